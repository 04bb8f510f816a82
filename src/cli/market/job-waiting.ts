/** Waiting for a job that was bought: for an offer that the person at the terminal is asked about, and for its end. */
import { createInterface } from 'node:readline/promises'
import { formatSats } from '../../base/amounts.ts'
import { isPurchaseOver } from '../../base/states.ts'
import type { Answer } from '../../control/client.ts'
import { purchasesRoutes } from '../../control/contract/jobs.ts'
import { callNode } from '../command.ts'
import { plain, warn } from '../terminal/output.ts'
import { pause } from '../terminal/waiting.ts'
import { drawPaid, idOf, type Purchase } from './job-drawing.ts'

const WAIT_S = 20
/** What the node needs to say what the end of the time means. */
const END_GRACE_MS = 1_500
const REFUND_LOOK_MS = 200
/** Beyond the wait that was asked for. */
const ANSWER_S = 10
/** While the owner is to be asked, an offer should be seen soon. */
const OFFER_WAIT_S = 1

type WaitArgs = { readonly sandbox: boolean }

/** Waits for an offer and asks the person at the terminal; where there is none it leaves the job offered and says how to go on. */
export async function askToPay(args: WaitArgs, first: Answer<Purchase>, signal: AbortSignal): Promise<Answer<Purchase>> {
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
export async function awaitEnd(args: WaitArgs, first: Answer<Purchase>, signal: AbortSignal): Promise<Answer<Purchase>> {
  let answer = first
  const until = Date.parse(first.value.deadline_at) + END_GRACE_MS
  while (isOpen(answer.value) && Date.now() < until) {
    const isSettled = isPurchaseOver(answer.value.status)
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
export function isOpen(job: Purchase): boolean {
  return !isPurchaseOver(job.status) || isOwedRefund(job)
}

function isOwedRefund(job: Purchase): boolean {
  return job.status === 'failed' && job.paid_msats > 0n
}

export function howOn(job: Purchase): string {
  const paid = job.paid_msats > 0n ? `${drawPaid(job)} were paid` : 'nothing was paid'
  const what = isOwedRefund(job) ? 'the refund has not come yet' : 'there is no result yet'
  const more =
    job.paid_msats > 0n || job.status === 'paying' ? '; the node goes on listening, and takes a result or a refund when it comes' : ''
  const cancel = isOwedRefund(job) ? '' : `; ask for it to be dropped with: pylon job cancel ${idOf(job)}`
  return `the time is up: ${what}, ${paid}${more}. Look again with: pylon job show ${idOf(job)}${cancel}`
}
