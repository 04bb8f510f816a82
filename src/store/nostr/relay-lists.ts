/** The newest kind 0, 10002 and 10050 of others, as looked up. */
import { defineCommand } from '../commands.ts'
import { int, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

export const putRelayList = defineCommand(
  'put_relay_list',
  (sql, p: { pubkey: string; kind: number; event: string | null; at: number }) => {
    sql(
      'INSERT INTO relay_lists (pubkey, kind, event, fetched_at) VALUES (?, ?, ?, ?) ON CONFLICT (pubkey, kind) DO UPDATE SET event = excluded.event, fetched_at = excluded.fetched_at',
    ).run(p.pubkey, BigInt(p.kind), p.event, BigInt(p.at))
  },
)

/** The stored event as JSON (null: none was found) and when it was looked up; undefined when it never was. */
export function relayListOf(store: Store, pubkey: string, kind: number): { event: string | null; fetchedAt: number } | undefined {
  const row = store.sql('SELECT event, fetched_at FROM relay_lists WHERE pubkey = ? AND kind = ?').get(pubkey, BigInt(kind))
  return row === undefined ? undefined : { event: textOrNull(row, 'event'), fetchedAt: int(row, 'fetched_at') }
}

/** Forgets look-ups from before a time (ms). */
export const sweepRelayLists = defineCommand('sweep_relay_lists', (sql, p: { before: number; limit: number }): number => {
  return sql('DELETE FROM relay_lists WHERE (pubkey, kind) IN (SELECT pubkey, kind FROM relay_lists WHERE fetched_at < ? LIMIT ?)').run(
    BigInt(p.before),
    BigInt(p.limit),
  ).changes
})
