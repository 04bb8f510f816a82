/** What customers asked for lately and what became of it, counted: for the owner who wonders why nothing is earned. */
import { countOf, isThere } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, Selection } from '../table.ts'

const asked = new Selection({ status: column.text(), code: column.orNull(column.text()), priced: column.flag(), jobs: column.int() })
/** Jobs of one fate. */
export type AskedJobs = RowOfTable<typeof asked>

/** Of jobs since a time (ms), most first. */
export const jobsAsked = (store: Store, since: number): AskedJobs[] =>
  asked.all(
    store.sql,
    `SELECT status, error_code AS code, price_msats > 0 AS priced, count(*) AS jobs FROM jobs WHERE created_at >= ?
     GROUP BY status, code, priced ORDER BY jobs DESC, status, code`,
    BigInt(since),
  )

/** Whether others paid anything that was earned since a time (ms). */
export const hasEarned = (store: Store, since: number): boolean =>
  isThere(store.sql, 'SELECT 1 FROM earnings WHERE earned_at >= ? LIMIT 1', BigInt(since))

const said = new Selection({ relay: column.text(), state: column.text(), words: column.orNull(column.text()), at: column.int() })

/** Where the newest announcement (31990) went, and what each relay said of it. */
export const announcedTo = (store: Store): RowOfTable<typeof said>[] =>
  said.all(
    store.sql,
    `SELECT d.relay AS relay, d.state AS state, d.last_error AS words, coalesce(m.accepted_at, m.created_at) AS at
     FROM outbox_deliveries d JOIN outbox_messages m ON m.id = d.message_id
     WHERE m.id = (SELECT max(id) FROM outbox_messages WHERE key >= 'announce:' AND key < 'announce;' AND kind = 31990) ORDER BY d.relay`,
  )

/** Leases that were asked for since a time (ms). */
export const leasesAsked = (store: Store, since: number): number =>
  countOf(store.sql, 'SELECT count(*) AS n FROM leases WHERE created_at >= ?', BigInt(since))
