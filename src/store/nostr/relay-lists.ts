/** The newest kind 0, 10002 and 10050 of others, as looked up. */
import { defineCommand, defineSweep } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const relayLists = table('relay_lists', {
  pubkey: column.text(),
  kind: column.int(),
  /** As JSON; null where none was found. */
  event: column.orNull(column.text()),
  fetchedAt: column.int(),
})
type RelayListRow = RowOfTable<typeof relayLists>

export const putRelayList = defineCommand('put_relay_list', (sql, { at, ...list }: Omit<RelayListRow, 'fetchedAt'> & { at: number }) => {
  const replace = 'ON CONFLICT (pubkey, kind) DO UPDATE SET event = excluded.event, fetched_at = excluded.fetched_at'
  relayLists.insert(sql, { ...list, fetchedAt: at }, replace)
})

/** Undefined when it was never looked up. */
export const relayListOf = (store: Store, pubkey: string, kind: number): RelayListRow | undefined =>
  relayLists.get(store.sql, { pubkey, kind })

export const sweepRelayLists = defineSweep('sweep_relay_lists', 'relay_lists', 'pubkey, kind', 'fetched_at')
