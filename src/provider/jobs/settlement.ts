/** Whose money a settled job's deposit becomes; pure. */
import { accountOf } from '../../base/accounts.ts'
import { type Msats, msatsToSatsUp, satsToMsats } from '../../base/amounts.ts'
import { jobInvoiceKey, jobRefundKey, jobSettled, jobTokenKey } from '../../store/keys.ts'
import { depositOf, type Entry, type Posting } from '../../store/money/ledger.ts'

export const depositAccount = (jobId: string) => depositOf({ type: 'job', id: jobId })

/** Keys under which the wallet knows what is done for a job. */
export const invoiceKey = (jobId: string): string => jobInvoiceKey.of(jobId)
export const tokenKey = (jobId: string): string => jobTokenKey.of(jobId)
export const refundKey = (jobId: string): string => jobRefundKey.of(jobId)

/**
 * The price becomes income; what the next whole sat added is rounding; what was paid beyond that is a tip. Everything
 * that one of our own keys paid is internal. Undefined when nothing was paid.
 */
export function settleEntry(job: { id: string; priceMsats: Msats; paidMsats: Msats; internal: boolean; at: number }): Entry | undefined {
  if (job.paidMsats === 0n) return undefined
  const postings: Posting[] = [{ account: depositAccount(job.id), amountMsats: job.paidMsats }]
  if (job.internal) {
    postings.push({ account: accountOf('node', 'income', 'internal'), amountMsats: -job.paidMsats })
  } else {
    const asked = satsToMsats(msatsToSatsUp(job.priceMsats))
    const income = smaller(job.paidMsats, job.priceMsats)
    const rounding = smaller(job.paidMsats, asked) - income
    postings.push(
      { account: accountOf('node', 'income', 'job'), amountMsats: -income },
      { account: accountOf('node', 'income', 'rounding'), amountMsats: -rounding },
      { account: accountOf('node', 'income', 'tip'), amountMsats: -(job.paidMsats - income - rounding) },
    )
  }
  return { id: jobSettled.of(job.id), cause: { type: 'job', id: job.id }, at: job.at, postings }
}

function smaller(a: bigint, b: bigint): bigint {
  return a < b ? a : b
}
