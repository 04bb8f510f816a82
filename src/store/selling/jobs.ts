/** Jobs: work that others ordered, and cancel requests that came before their job; job-steps.ts claims and moves them. */
import type { Msats } from '../../base/amounts.ts'
import { JOB_STEPS, type JobState, statesOf } from '../../base/states.ts'
import { defineCommand } from '../commands.ts'
import { jobResultMessage } from '../keys.ts'
import { countOf, int, isThere, text, textsOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, Table } from '../table.ts'
import { forgetJobs, PAYABLE, wasForgotten } from './unpaid-jobs.ts'

/** Times are milliseconds since the epoch, but for `requestedAtS`. */
const COLUMNS = {
  /** The id of the request event. */
  id: column.text(),
  transport: column.text<'nip90'>(),
  kind: column.int(),
  customerPubkey: column.text(),
  status: column.text<JobState>(),
  /** Whether the request named us, so that we may answer with an error. */
  directed: column.flag(),
  encryption: column.text<'none' | 'nip44' | 'nip04'>(),
  /** The request as it came, null once refused. */
  request: column.orNull(column.json<unknown>()),
  answerRelays: column.json<readonly string[]>(),
  /** created_at of the request, unix seconds. */
  requestedAtS: column.int(),
  deadline: column.int(),
  priceMsats: column.amount<Msats>(),
  bidMsats: column.orNull(column.amount<Msats>()),
  paymentMethod: column.text<'none' | 'invoice' | 'token'>(),
  /** The bolt11 invoice that the customer was sent. */
  bill: column.orNull(column.group({ request: column.text('payment_request'), expiresAt: column.int('payment_expires_at') })),
  mintUrl: column.orNull(column.text()),
  paidMsats: column.amount<Msats>(),
  attempts: column.int(),
  result: column.orNull(column.text()),
  resultEvent: column.orNull(column.json<unknown>()),
  errorCode: column.orNull(column.text()),
  error: column.orNull(column.text()),
  refundSends: column.int(),
  refundNextAt: column.orNull(column.int()),
  createdAt: column.int(),
  startedAt: column.orNull(column.int()),
  completedAt: column.orNull(column.int()),
  updatedAt: column.int(),
}
type Columns = RowOf<typeof COLUMNS>

/** What is ready to be delivered has its result, whatever becomes of that later. */
export type JobRow = Columns &
  ({ readonly status: 'ready' | 'delivered'; readonly result: string } | { readonly status: Exclude<JobState, 'ready' | 'delivered'> })

const isJob = (row: Columns): row is JobRow => row.result !== null || (row.status !== 'ready' && row.status !== 'delivered')

export const jobs = new Table('jobs', COLUMNS, isJob)

const MAX_CANCELLATIONS = 10_000n
const MAX_CANCELLATIONS_OF_KEY = 200n

/** Remembers a cancel request whose job is not here yet: so many of one key, then so many in all, the oldest go. */
export const rememberCancellation = defineCommand(
  'remember_cancellation',
  (sql, p: { jobIds: readonly string[]; pubkey: string; eventId: string; at: number }) => {
    for (const jobId of p.jobIds) {
      sql('INSERT INTO job_cancellations (job_id, pubkey, event_id, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING').run(
        jobId,
        p.pubkey,
        p.eventId,
        BigInt(p.at),
      )
    }
    sql(
      `DELETE FROM job_cancellations WHERE pubkey = @pubkey AND job_id NOT IN
         (SELECT job_id FROM job_cancellations WHERE pubkey = @pubkey ORDER BY at DESC LIMIT @most)`,
    ).run({ pubkey: p.pubkey, most: MAX_CANCELLATIONS_OF_KEY })
    sql('DELETE FROM job_cancellations WHERE at < (SELECT at FROM job_cancellations ORDER BY at DESC LIMIT 1 OFFSET ?)').run(
      MAX_CANCELLATIONS,
    )
  },
)

/**
 * Forgets jobs at rest since before `before`, at most `limit` at once, and returns how many. Jobs that hold or owe money
 * (a paid one that failed and is not refunded yet), or whose invoice the wallet still watches, are never at rest.
 * @param cancelsBefore cancel requests from before this mean no request that may still come
 */
export const sweepJobs = defineCommand('sweep_jobs', (sql, p: { before: number; cancelsBefore: number; limit: number }): number => {
  sql('DELETE FROM job_cancellations WHERE at < ?').run(BigInt(p.cancelsBefore))
  const gone = textsOf(
    sql,
    `SELECT id FROM jobs WHERE updated_at < ? AND (status IN ('refused', 'settled', 'refunded', 'expired')
     OR (status IN ('failed', 'cancelled') AND paid_msats = 0))
     AND NOT ${PAYABLE} LIMIT ?`,
    ...[BigInt(p.before), BigInt(p.limit)],
  )
  forgetJobs(sql, gone)
  return gone.length
})

export const hasJob = (store: Store, id: string): boolean => isThere(store.sql, 'SELECT 1 FROM jobs WHERE id = ?', id)

/** Whether a request became a job here once, also one that is forgotten. */
export const isKnownJob = (store: Store, id: string): boolean => hasJob(store, id) || wasForgotten(store, id)

export const getJob = (store: Store, id: string): JobRow | undefined => jobs.get(store.sql, { id })

/** The ids that begin with these hex digits, at most two: enough to tell a unique one. */
export const jobIdsWithPrefix = (store: Store, prefix: string): string[] =>
  textsOf(store.sql, 'SELECT id FROM jobs WHERE id >= @prefix AND id < @prefix || char(1114111) LIMIT 2', { prefix })

/** Newest first. `before` is the created_at (ms) to page on from, exclusive. */
export const listJobs = (store: Store, options: { states?: readonly JobState[]; limit: number; before?: number }): JobRow[] =>
  jobs.all(
    store.sql,
    'WHERE status IN (SELECT value FROM json_each(?)) AND created_at < ? ORDER BY created_at DESC, rowid DESC LIMIT ?',
    ...[JSON.stringify(options.states ?? statesOf(JOB_STEPS)), BigInt(options.before ?? Number.MAX_SAFE_INTEGER), BigInt(options.limit)],
  )

/** Oldest first, so that work goes on in the order it came. */
export const jobsInState = (store: Store, state: JobState): JobRow[] =>
  jobs.all(store.sql, 'WHERE status = ? ORDER BY created_at, rowid LIMIT 100000', state)

/** In SQL: the states in which a job does not stay. */
const OPEN_STATES = "'received', 'queued', 'quoted', 'paid', 'running', 'ready', 'refunding'"

/** Jobs by state; states without jobs are absent. */
export function countJobs(store: Store): Partial<Record<JobState, number>> {
  const counts: Partial<Record<JobState, number>> = {}
  // Those that stay are counted as they come to rest (migration 044).
  const rows = store.sql(
    `SELECT status, jobs AS n FROM job_counts WHERE jobs > 0 UNION ALL SELECT status, count(*) FROM jobs WHERE status IN (${OPEN_STATES}) GROUP BY status`,
  )
  for (const row of rows.all()) {
    counts[text(row, 'status') as JobState] = int(row, 'n')
  }
  return counts
}

/** Ids and customers of the jobs in the given states. */
export const openJobs = (store: Store, states: readonly JobState[]): { id: string; customerPubkey: string; status: JobState }[] =>
  store
    .sql('SELECT id, customer_pubkey, status FROM jobs WHERE status IN (SELECT value FROM json_each(?)) ORDER BY created_at DESC')
    .all(JSON.stringify(states))
    .map((row) => ({ id: text(row, 'id'), customerPubkey: text(row, 'customer_pubkey'), status: text(row, 'status') as JobState }))

/** Free jobs of a customer that were not refused, since a time. */
export const countFreeJobsSince = (store: Store, customerPubkey: string, since: number): number =>
  countOf(
    store.sql,
    `SELECT count(*) AS n FROM jobs WHERE customer_pubkey = ? AND created_at >= ? AND price_msats = 0 AND status <> 'refused'`,
    customerPubkey,
    BigInt(since),
  )

/** Jobs of a customer since a time whose payment went back by its own doing: cancelled, or ended with one of these codes. */
export const countRefundsCaused = (store: Store, p: { customerPubkey: string; since: number; codes: readonly string[] }): number =>
  countOf(
    store.sql,
    `SELECT count(*) AS n FROM jobs WHERE customer_pubkey = ? AND paid_msats > 0 AND created_at >= ? AND status IN ('refunding', 'refunded')
         AND (error_code IS NULL OR error_code IN (SELECT value FROM json_each(?)))`,
    p.customerPubkey,
    BigInt(p.since),
    JSON.stringify(p.codes),
  )

/** Quoted jobs whose invoice has run out. */
export const expiredQuotes = (store: Store, now: number): string[] =>
  textsOf(store.sql, `SELECT id FROM jobs WHERE status = 'quoted' AND payment_method = 'invoice' AND payment_expires_at <= ?`, BigInt(now))

/** Refunds that are due to be sent, for the first time or again. */
export const refundsDue = (store: Store, now: number): string[] =>
  textsOf(
    store.sql,
    `SELECT id FROM jobs WHERE status = 'refunding' AND coalesce(refund_next_at, 0) <= ? ORDER BY created_at LIMIT 100`,
    BigInt(now),
  )

export const wasCancelled = (store: Store, jobId: string, pubkey: string): boolean =>
  isThere(store.sql, 'SELECT 1 FROM job_cancellations WHERE job_id = ? AND pubkey = ?', jobId, pubkey)

/** Jobs past their deadline whose result some relay refused for good and none took. */
export const refusedResults = (store: Store, now: number): JobRow[] =>
  jobs.all(
    store.sql,
    `WHERE status = 'ready' AND deadline < ? AND EXISTS (
         SELECT 1 FROM outbox_messages m JOIN outbox_deliveries d ON d.message_id = m.id WHERE m.key >= ${jobResultMessage.sql('jobs.id')}
           AND m.key < ${jobResultMessage.sql('jobs.id')} || ';' AND m.accepted_at IS NULL AND d.state = 'rejected') LIMIT 100`,
    BigInt(now),
  )

/** Jobs whose result no relay took since `before`. */
export const undeliveredJobs = (store: Store, before: number): JobRow[] =>
  jobs.all(store.sql, `WHERE status = 'ready' AND updated_at < ? LIMIT 100`, BigInt(before))
