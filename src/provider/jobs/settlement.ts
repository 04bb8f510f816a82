/** Whose money a settled job's deposit becomes; pure. */
import { type Msats, msatsToSatsUp, satsToMsats } from '../../base/amounts.ts'
import type { Entry, Posting } from '../../store/money/ledger.ts'

export const depositAccount = (jobId: string): string => `node/deposit/job:${jobId}`

/** Keys under which the wallet knows what is done for a job. */
export const invoiceKey = (jobId: string): string => `job:${jobId}:invoice`
export const tokenKey = (jobId: string): string => `job:${jobId}:token`
export const refundKey = (jobId: string): string => `job:${jobId}:refund`

/**
 * The price becomes income; what the next whole sat added is rounding; what was paid beyond that is a tip. Everything
 * that one of our own keys paid is internal. Undefined when nothing was paid.
 */
export function settleEntry(job: { id: string; priceMsats: Msats; paidMsats: Msats; internal: boolean; at: number }): Entry | undefined {
  if (job.paidMsats === 0n) return undefined
  const postings: Posting[] = [{ account: depositAccount(job.id), amountMsats: job.paidMsats }]
  if (job.internal) {
    postings.push({ account: 'node/income/internal', amountMsats: -job.paidMsats })
  } else {
    const asked = satsToMsats(msatsToSatsUp(job.priceMsats))
    const income = smaller(job.paidMsats, job.priceMsats)
    const rounding = smaller(job.paidMsats, asked) - income
    postings.push(
      { account: 'node/income/job', amountMsats: -income },
      { account: 'node/income/rounding', amountMsats: -rounding },
      { account: 'node/income/tip', amountMsats: -(job.paidMsats - income - rounding) },
    )
  }
  return { id: `job:${job.id}:settle`, cause: { type: 'job', id: job.id }, at: job.at, postings }
}

function smaller(a: bigint, b: bigint): bigint {
  return a < b ? a : b
}
