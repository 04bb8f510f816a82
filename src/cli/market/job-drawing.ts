/** A job that was bought, as the terminal shows it. */
import { formatSats, satsToMsats } from '../../base/amounts.ts'
import type { Output } from '../../control/client.ts'
import type { purchasesRoutes } from '../../control/contract/jobs.ts'
import { plain } from '../terminal/output.ts'
import { clockTime, drawFields, drawTable, right, shorten, shortId } from '../terminal/table.ts'

export type Purchase = Output<typeof purchasesRoutes.getPurchase>

export const idOf = (job: Purchase): string => job.job_id || job.purchase_id

/** The price, and what the mint took on top. */
export function drawPaid({ paid_msats, fee_msats }: Purchase): string {
  return fee_msats === 0n ? formatSats(paid_msats) : `${formatSats(paid_msats)} and ${formatSats(fee_msats)} in fees`
}

export function drawSubmitted(job: Purchase): string {
  return `${drawHead(job)}\n\nFollow it with: pylon job show ${idOf(job)}`
}

export function drawOutcome(job: Purchase): string {
  if (job.status !== 'completed') return `${drawHead(job)}\n\n${drawEnd(job)}`.trimEnd()
  const text = job.result === null ? drawResults(job) : plain(job.result)
  return `${text}\n\n${job.job_id}: completed for ${drawPaid(job)}`
}

/** Of several keys that claim the payment: who made the offer is for the owner to judge. */
function drawResults({ results }: Purchase): string {
  return results.map((result) => `Result of ${result.provider}:\n${plain(result.content)}`).join('\n\n')
}

export function drawHead(job: Purchase): string {
  return drawFields([
    ['Job', job.job_id || '(not sent yet)'],
    ['Kind', String(job.kind)],
    ['Status', job.reason === null ? job.status : `${job.status} (${job.reason})`],
    ['Provider', job.provider ?? 'anybody'],
    ['Paid', drawPaid(job)],
    ['Ordered', `${clockTime(job.created_at)} UTC`],
  ])
}

export function drawOffers(job: Purchase): string {
  if (job.offers.length === 0) return ''
  return drawTable(
    ['OFFER BY', right('ASKS'), 'STATE'],
    job.offers.map((offer) => [
      shortId(offer.provider),
      formatSats(offer.amount_msats),
      offer.reason === null ? offer.state : `${offer.state}: ${offer.reason}`,
    ]),
  )
}

export function drawEvents(job: Purchase): string {
  if (job.events.length === 0) return ''
  return drawTable(
    ['TIME (UTC)', 'KIND', 'EVENT', 'FROM', 'SAYS'],
    job.events.map((event) => [
      clockTime(event.received_at),
      String(event.kind),
      shortId(event.event_id),
      shortId(event.provider),
      shorten(event.summary, 60),
    ]),
  )
}

export function drawEnd(job: Purchase): string {
  const refunds = job.refunds.map(
    ({ state, amount_sats, reason }) =>
      `Refund: ${amount_sats === null ? state : `${formatSats(satsToMsats(amount_sats))} came back`}${reason === null ? '' : ` (${plain(reason)})`}`,
  )
  const differ = job.results.some((result) => result.content !== job.result)
  const end =
    differ || (job.result === null && job.results.length > 0)
      ? drawResults(job)
      : job.result !== null
        ? `Result:\n${plain(job.result)}`
        : job.error === null
          ? ''
          : `Error: ${plain(job.error.message)} (${plain(job.error.code)})`
  return [...refunds, end].filter((part) => part !== '').join('\n')
}
