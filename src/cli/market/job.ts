/** `pylon job`: buying work from others with the customer key. (`pylon jobs` is the other side.) */
import { createInterface } from 'node:readline/promises'
import { formatSats, satsToMsats } from '../../base/amounts.ts'
import { given } from '../../base/given.ts'
import type { Answer, Input, Output } from '../../control/client.ts'
import { purchasesRoutes } from '../../control/contract/jobs.ts'
import { callNode, defineCommand, defineGroup } from '../command.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { plain, printAnswer, warn } from '../terminal/output.ts'
import { clockTime, drawFields, drawTable, relativeTime, shorten, shortId } from '../terminal/table.ts'
import { many, nameAndValue, textFrom, wholeNumber, wholeNumberIf } from '../terminal/values.ts'
import { interruptible, pause } from '../terminal/waiting.ts'

type Purchase = Output<typeof purchasesRoutes.getPurchase>
type Order = Input<typeof purchasesRoutes.submitPurchase>

const WAIT_S = 20
/** What the node needs to say what the end of the time means. */
const END_GRACE_MS = 1_500
const REFUND_LOOK_MS = 200
/** Beyond the wait that was asked for. */
const ANSWER_S = 10
/** While the owner is to be asked, an offer should be seen soon. */
const OFFER_WAIT_S = 1
const OVER = ['completed', 'failed', 'timeout', 'cancelled', 'refunded']

const submit = defineCommand({
  command: 'submit',
  describe: 'Order a job; pays the best offer within --bid-sats and --max-sats',
  builder: (yargs) =>
    yargs
      .option('kind', { type: 'string', nargs: 1, demandOption: true, describe: 'What to do: 5001 summarise, 5050 generate text, ...' })
      .option('input', { type: 'string', nargs: 1, demandOption: true, describe: 'TEXT, @FILE or - for standard input; may be repeated' })
      .option('input-type', { choices: ['text', 'url', 'event', 'job'] as const, default: 'text' as const, describe: 'What the input is' })
      .option('param', { type: 'string', nargs: 1, describe: 'name=value; may be repeated' })
      .option('provider', { type: 'string', nargs: 1, describe: 'The npub that shall do it (anybody by default)' })
      .option('bid-sats', { type: 'string', nargs: 1, describe: 'What you offer; said in public' })
      .option('max-sats', { type: 'string', nargs: 1, describe: 'The most it may cost with fees; said to nobody (100)' })
      .option('encrypt', { type: 'boolean', default: false, describe: 'Only the provider can read input and result' })
      .option('pay', {
        choices: ['auto', 'ask', 'never'] as const,
        default: 'auto' as const,
        describe: 'Pay by itself, after a question, or not',
      })
      .option('pay-with', {
        choices: ['invoice', 'token'] as const,
        default: 'invoice' as const,
        describe: 'Lightning when asked, or a locked Cashu token with the request',
      })
      .option('wait', { type: 'boolean', default: false, describe: 'Wait for the result' })
      .option('timeout', { type: 'string', nargs: 1, describe: 'Seconds until nobody wants the result (120)' })
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const order: Order = {
      kind: wholeNumber(args.kind, '--kind'),
      inputs: many(args.input).map((input) => ({ data: textFrom(input), type: args.inputType })),
      params: many(args.param).map((param) => nameAndValue(param, '--param')),
      encrypt: args.encrypt,
      pay: args.pay,
      pay_with: args.payWith,
      ...given({
        provider: args.provider,
        bid_sats: wholeNumberIf(args.bidSats, '--bid-sats', 0),
        max_sats: wholeNumberIf(args.maxSats, '--max-sats', 0),
        timeout_s: wholeNumberIf(args.timeout, '--timeout'),
      }),
    }
    let answer: Answer<Purchase> = await callNode(args, purchasesRoutes.submitPurchase, order, spendingCall(args))
    const { value } = answer
    if (args.pay === 'ask' || args.wait) {
      answer = await interruptible(
        () => `The job goes on. Look at it with: pylon job show ${idOf(value)}; end it with: pylon job cancel ${idOf(value)}`,
        async (signal) => {
          const asked = args.pay === 'ask' ? await askToPay(args, answer, signal) : answer
          return args.wait ? await awaitEnd(args, asked, signal) : asked
        },
      )
    }
    if (args.wait && !args.json && isOpen(answer.value)) warn(howOn(answer.value))
    if (args.wait && answer.value.status !== 'completed') process.exitCode = 1
    printAnswer(args, answer, (job) => (args.wait ? drawOutcome(job) : drawSubmitted(job)))
  },
})

type WaitArgs = { readonly sandbox: boolean }

/** Waits for an offer and asks the person at the terminal; where there is none it leaves the job offered and says how to go on. */
async function askToPay(args: WaitArgs, first: Answer<Purchase>, signal: AbortSignal): Promise<Answer<Purchase>> {
  let answer = first
  const until = Date.parse(first.value.deadline_at)
  // Offers are gathered for a moment before one can be taken, and an invoice that two keys name waits for another way.
  while (mayGetOffer(answer.value)) {
    if (Date.now() >= until) return answer
    answer = await look(args, answer.value, OFFER_WAIT_S, signal)
  }
  const best = answer.value.offers.find((offer) => offer.state === 'open')
  if (best === undefined || answer.value.status !== 'offered') return answer
  const words = `${best.provider} asks ${formatSats(best.amount_msats)}${best.reason === null ? '' : ` (${plain(best.reason)})`}`
  if (!process.stdin.isTTY) {
    warn(`${words}; pay it with: pylon job pay ${answer.value.job_id}`)
    return answer
  }
  const reply = await askUntil(`${words}. Pay? [y/N] `, until, signal)
  if (reply === undefined) {
    warn('the time of the job is up; nothing was paid')
    return await look(args, answer.value, OFFER_WAIT_S, signal)
  }
  if (!/^y(es)?$/i.test(reply.trim())) return await callNode(args, purchasesRoutes.cancelPurchase, { id: answer.value.purchase_id })
  // A yes is for this offer: where its payment fails the next one is asked about.
  return await askToPay(args, await callNode(args, purchasesRoutes.payPurchase, { id: answer.value.purchase_id }), signal)
}

function mayGetOffer({ status, offers }: Purchase): boolean {
  if (['preparing', 'requested'].includes(status)) return true
  return status === 'offered' && !offers.some((offer) => offer.state === 'open')
}

/** What was typed, or undefined when nothing was until then. */
async function askUntil(question: string, until: number, signal: AbortSignal): Promise<string | undefined> {
  const late = AbortSignal.timeout(Math.max(1, until - Date.now()))
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  // The terminal keeps Ctrl-C to itself while it asks.
  terminal.once('SIGINT', () => process.emit('SIGINT'))
  try {
    return await terminal.question(question, { signal: AbortSignal.any([late, signal]) })
  } catch (error) {
    if (late.aborted) return undefined
    throw error
  } finally {
    terminal.close()
  }
}

/** Waits for the end, no longer than the job has time: what was paid stays watched by the node. */
async function awaitEnd(args: WaitArgs, first: Answer<Purchase>, signal: AbortSignal): Promise<Answer<Purchase>> {
  let answer = first
  const until = Date.parse(first.value.deadline_at) + END_GRACE_MS
  while (isOpen(answer.value) && Date.now() < until) {
    const isSettled = OVER.includes(answer.value.status)
    const leftS = Math.ceil((until - Date.now()) / 1000)
    answer = await look(args, answer.value, isSettled ? 0 : Math.max(1, Math.min(WAIT_S, leftS)), signal)
    if (isOwedRefund(answer.value)) await pause(REFUND_LOOK_MS, signal)
  }
  return answer
}

async function look(args: WaitArgs, job: Purchase, waitS: number, signal: AbortSignal): Promise<Answer<Purchase>> {
  return await callNode(
    args,
    purchasesRoutes.getPurchase,
    { id: job.purchase_id, wait: waitS },
    { signal, timeoutMs: (waitS + ANSWER_S) * 1000 },
  )
}

/** Something may still come of it: the end, or the refund of what was paid. */
function isOpen(job: Purchase): boolean {
  return !OVER.includes(job.status) || isOwedRefund(job)
}

function isOwedRefund(job: Purchase): boolean {
  return job.status === 'failed' && job.paid_msats > 0n
}

const idOf = (job: Purchase): string => job.job_id || job.purchase_id

function howOn(job: Purchase): string {
  const paid = job.paid_msats > 0n ? `${drawPaid(job)} were paid` : 'nothing was paid'
  const what = isOwedRefund(job) ? 'the refund has not come yet' : 'there is no result yet'
  const more =
    job.paid_msats > 0n || job.status === 'paying' ? '; the node goes on listening, and takes a result or a refund when it comes' : ''
  const cancel = isOwedRefund(job) ? '' : `; ask for it to be dropped with: pylon job cancel ${idOf(job)}`
  return `the time is up: ${what}, ${paid}${more}. Look again with: pylon job show ${idOf(job)}${cancel}`
}

const list = defineCommand({
  command: 'list',
  describe: 'Jobs that you ordered',
  builder: (yargs) => yargs.option('limit', { type: 'string', nargs: 1, alias: 'n', describe: 'How many (50)' }),
  handler: async (args) => {
    const answer = await callNode(args, purchasesRoutes.listPurchases, given({ limit: wholeNumberIf(args.limit, '--limit') }))
    printAnswer(args, answer, ({ purchases }) =>
      purchases.length === 0
        ? 'No job was ordered yet; try: pylon job submit --kind 5001 --input @FILE --wait'
        : drawTable(
            [
              { title: 'JOB' },
              { title: 'KIND' },
              { title: 'STATUS' },
              { title: 'PAID', align: 'right' },
              { title: 'ORDERED' },
              { title: 'RESULT' },
            ],
            purchases.map((job) => [
              shortId(job.job_id || job.purchase_id),
              String(job.kind),
              job.status,
              formatSats(job.paid_msats),
              relativeTime(job.created_at, Date.now()),
              shorten(job.result ?? job.error?.message ?? '', 48),
            ]),
          ),
    )
  },
})

const show = defineCommand({
  command: 'show <id>',
  describe: 'One ordered job with its offers, events and result',
  builder: (yargs) => yargs.positional('id', { type: 'string', demandOption: true, describe: 'Job or purchase id' }),
  handler: async (args) => {
    const answer = await callNode(args, purchasesRoutes.getPurchase, { id: args.id })
    printAnswer(args, answer, (job) =>
      [drawHead(job), drawOffers(job), drawEvents(job), drawEnd(job)].filter((part) => part !== '').join('\n\n'),
    )
  },
})

const pay = defineCommand({
  command: 'pay <id>',
  describe: 'Pay the cheapest usable offer of a job ordered with --pay ask',
  builder: (yargs) => yargs.positional('id', { type: 'string', demandOption: true }).option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const answer = await callNode(args, purchasesRoutes.payPurchase, { id: args.id }, spendingCall(args))
    printAnswer(args, answer, drawSubmitted)
  },
})

const cancel = defineCommand({
  command: 'cancel <id>',
  describe: 'Ask the provider to drop the job (what was paid is refunded)',
  builder: (yargs) => yargs.positional('id', { type: 'string', demandOption: true }),
  handler: async (args) => {
    const answer = await callNode(args, purchasesRoutes.cancelPurchase, { id: args.id })
    printAnswer(args, answer, (job) => `The job ${shortId(job.job_id)} is ${job.status}.`)
  },
})

function drawSubmitted(job: Purchase): string {
  return `${drawHead(job)}\n\nFollow it with: pylon job show ${idOf(job)}`
}

function drawOutcome(job: Purchase): string {
  if (job.status !== 'completed') return `${drawHead(job)}\n\n${drawEnd(job)}`.trimEnd()
  const text = job.result === null ? drawResults(job) : plain(job.result)
  return `${text}\n\n${job.job_id}: completed for ${drawPaid(job)}`
}

/** Of several keys that claim the payment: who made the offer is for the owner to judge. */
function drawResults({ results }: Purchase): string {
  return results.map((result) => `Result of ${result.provider}:\n${plain(result.content)}`).join('\n\n')
}

/** The price, and what the mint took on top. */
function drawPaid({ paid_msats, fee_msats }: Purchase): string {
  return fee_msats === 0n ? formatSats(paid_msats) : `${formatSats(paid_msats)} and ${formatSats(fee_msats)} in fees`
}

function drawHead(job: Purchase): string {
  return drawFields([
    ['Job', job.job_id || '(not sent yet)'],
    ['Kind', String(job.kind)],
    ['Status', job.reason === null ? job.status : `${job.status} (${job.reason})`],
    ['Provider', job.provider ?? 'anybody'],
    ['Paid', drawPaid(job)],
    ['Ordered', `${clockTime(job.created_at)} UTC`],
  ])
}

function drawOffers(job: Purchase): string {
  if (job.offers.length === 0) return ''
  return drawTable(
    [{ title: 'OFFER BY' }, { title: 'ASKS', align: 'right' }, { title: 'STATE' }],
    job.offers.map((offer) => [
      shortId(offer.provider),
      formatSats(offer.amount_msats),
      offer.reason === null ? offer.state : `${offer.state}: ${offer.reason}`,
    ]),
  )
}

function drawEvents(job: Purchase): string {
  if (job.events.length === 0) return ''
  return drawTable(
    [{ title: 'TIME (UTC)' }, { title: 'KIND' }, { title: 'EVENT' }, { title: 'FROM' }, { title: 'SAYS' }],
    job.events.map((event) => [
      clockTime(event.received_at),
      String(event.kind),
      shortId(event.event_id),
      shortId(event.provider),
      shorten(event.summary, 60),
    ]),
  )
}

function drawEnd(job: Purchase): string {
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

/** `pylon job ...` */
export const jobCommand = defineGroup('job', 'Buy work: submit, follow and cancel jobs of your own', [submit, list, show, pay, cancel])
