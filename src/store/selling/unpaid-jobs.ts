/** Work that nobody paid for: what is kept of it is little, for a short time, and bounded in all. */
import { defineCommand, type Sql } from '../commands.ts'
import { JOB_ID_LENGTH, jobFeedbackMessage, jobInvoiceKey, jobResultMessage } from '../keys.ts'
import { countOf, isThere, sumOf, text, textsOf } from '../row.ts'
import type { Store } from '../store.ts'

/** Jobs that are remembered by their id alone. */
const MAX_FORGOTTEN = 50_000n

const AT_REST = `paid_msats = 0 AND status IN ('refused', 'settled', 'expired', 'failed', 'cancelled')`
/** Its invoice may still be paid: whoever does must find the job. */
export const PAYABLE = `EXISTS (SELECT 1 FROM mint_quotes q WHERE status IN ('expired', 'cancelled', 'refused')
   AND q.idempotency_key = ${jobInvoiceKey.sql('jobs.id')} AND q.state IN ('unpaid', 'paid', 'expired'))`
const STRIP = `UPDATE jobs SET request = NULL, result = NULL, result_event = iif(result_event IS NULL, NULL, '{}')`
/** Unpaid jobs that ended, of whatever age: the oldest beyond these go. */
const MAX_AT_REST = 10_000
const BYTES = 'coalesce(octet_length(request), 0) + coalesce(octet_length(result), 0) + coalesce(octet_length(result_event), 0)'

export interface UnpaidSweep {
  /** What rests since before this (ms) goes. */
  readonly before: number
  /** Free jobs that were done stay as one line each, this many of them. */
  readonly keepDone: number
  readonly limit: number
}

/** Forgets unpaid jobs that ended before a time: their texts, then the jobs themselves. At most `limit` of each a call; returns how many. */
export const sweepUnpaidJobs = defineCommand('sweep_unpaid_jobs', (sql, p: UnpaidSweep): number => {
  const [before, limit] = [BigInt(p.before), BigInt(p.limit)]
  const nth = (states: string, offset: number) =>
    sumOf(sql, `SELECT updated_at FROM jobs WHERE ${AT_REST} ${states} ORDER BY updated_at DESC LIMIT 1 OFFSET ?`, BigInt(offset))
  const those = (what: string, ...params: readonly bigint[]) =>
    textsOf(sql, `SELECT id FROM jobs WHERE ${AT_REST} AND ${what} LIMIT ?`, ...params, limit)
  const gone = [
    ...those(`status <> 'settled' AND updated_at < ? AND NOT ${PAYABLE}`, before),
    ...those(`status = 'settled' AND updated_at < min(?, ?)`, before, nth(`AND status = 'settled'`, p.keepDone)),
    ...those(`updated_at < ? AND NOT ${PAYABLE} ORDER BY updated_at`, nth('', MAX_AT_REST)),
  ]
  forgetJobs(sql, gone)
  // Of the others one line stays: who pays that late gets it back, which needs neither the request nor how it came to this.
  const lines = textsOf(sql, `SELECT id FROM jobs WHERE ${AT_REST} AND updated_at < ? AND ${BYTES} > 2 LIMIT ?`, before, limit)
  for (const id of lines) {
    sql(`${STRIP} WHERE id = ?`).run(id)
    sql(
      `DELETE FROM job_transitions WHERE job_id = @id AND id < (SELECT max(id) FROM job_transitions WHERE job_id = @id)
         AND NOT EXISTS (SELECT 1 FROM jobs WHERE id = @id AND status = 'settled')`,
    ).run({ id })
  }
  return Math.max(gone.length, lines.length)
})

/** Drops the texts of unpaid jobs that ended, the oldest first, until those that are left hold at most so many bytes. Returns how many. */
export const boundUnpaidBytes = defineCommand('bound_unpaid_bytes', (sql, p: { maxBytes: number }): number => {
  let excess = countOf(sql, `SELECT coalesce(sum(${BYTES}), 0) FROM jobs INDEXED BY jobs_unpaid WHERE ${AT_REST}`) - p.maxBytes
  if (excess <= 0) return 0
  const strip = sql(`${STRIP} WHERE id = ?`)
  let stripped = 0
  for (const row of sql(`SELECT id, ${BYTES} AS bytes FROM jobs WHERE ${AT_REST} AND ${BYTES} > 2 ORDER BY updated_at LIMIT 500`).all()) {
    if (excess <= 0) break
    excess -= Number(row['bytes'])
    strip.run(text(row, 'id'))
    stripped++
  }
  return stripped
})

/** Forgets what jobs said, once relays took it, or refused it and the job is gone too. */
export const sweepJobMessages = defineCommand('sweep_job_messages', (sql, p: { before: number; limit: number }): number =>
  Number(
    sql(
      `DELETE FROM outbox_messages WHERE id IN (SELECT m.id FROM outbox_messages m WHERE m.created_at < ?
         AND ((${jobResultMessage.isIn('m.key')} AND m.accepted_at IS NOT NULL AND m.notified = 1)
           OR (${jobFeedbackMessage.isIn('m.key')} AND (m.accepted_at IS NOT NULL OR (m.given_up_at IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = ${jobFeedbackMessage.idSql('m.key', JOB_ID_LENGTH)})))))
         AND NOT EXISTS (SELECT 1 FROM outbox_deliveries d WHERE d.message_id = m.id AND d.state = 'pending') LIMIT ?)`,
    ).run(BigInt(p.before), BigInt(p.limit)).changes,
  ),
)

/** Forgets invoices of strangers that nobody can pay any more, with the job that they were for. */
export const sweepStrangersQuotes = defineCommand('sweep_strangers_quotes', (sql, p: { limit: number }): number =>
  Number(
    sql(
      `DELETE FROM mint_quotes WHERE id IN (SELECT id FROM mint_quotes WHERE of_stranger = 1 AND state = 'closed'
         AND cause_type = 'job' AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = cause_id) LIMIT ?)`,
    ).run(BigInt(p.limit)).changes,
  ),
)

/** Removes jobs and remembers their ids. For use inside another command. */
export function forgetJobs(sql: Sql, ids: readonly string[]): void {
  if (ids.length === 0) return
  const remember = sql('INSERT INTO forgotten_jobs (job) VALUES (?) ON CONFLICT DO NOTHING')
  const forget = sql('DELETE FROM jobs WHERE id = ?')
  for (const id of ids) {
    remember.run(nameOf(id))
    forget.run(id)
  }
  sql('DELETE FROM forgotten_jobs WHERE n <= (SELECT max(n) FROM forgotten_jobs) - ?').run(MAX_FORGOTTEN)
}

/** Whether a job of this id was here and is forgotten. */
export const wasForgotten = (store: Store, id: string): boolean =>
  isThere(store.sql, 'SELECT 1 FROM forgotten_jobs WHERE job = ?', nameOf(id))

/** Whether this key has paid for a job or a lease and did not get it all back, or is owed something. */
export const hasPaid = (store: Store, pubkey: string): boolean =>
  isThere(
    store.sql,
    `SELECT 1 FROM jobs WHERE customer_pubkey = @pubkey AND paid_msats > 0 AND status NOT IN ('refunded')
         UNION ALL SELECT 1 FROM leases WHERE tenant_pubkey = @pubkey AND paid_msats > 0 AND state <> 'refunded' LIMIT 1`,
    { pubkey },
  )

const nameOf = (id: string): Buffer => Buffer.from(id.slice(0, 32), 'hex')
