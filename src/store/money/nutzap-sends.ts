/** Nutzaps on their way out (NIP-61): mint, lock and relays are fixed before the token is made, the event once it is. */
import type { WalletOwner } from '../../base/accounts.ts'
import { PylonError } from '../../base/errors.ts'
import { NUTZAP_SEND_STEPS, type NutzapSendState, statesBefore } from '../../base/states.ts'
import { defineCommand } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'
import type { Cause } from './ledger.ts'

const sends = table('nutzap_sends', {
  idempotencyKey: column.text(),
  requestDigest: column.text(),
  owner: column.group({ kind: column.text<WalletOwner['kind']>('owner_kind'), pubkey: column.text('owner_pubkey') }),
  recipient: column.text(),
  cause: column.group({ type: column.text<Cause['type']>('cause_type'), id: column.text('cause_id') }),
  amountSats: column.amount(),
  /** Of our list. */
  mintUrl: column.text(),
  /** The same as the recipient writes it. */
  mintNamed: column.text(),
  /** A compressed key. */
  lockTo: column.text(),
  relays: column.json<readonly string[]>('relays_json'),
  comment: column.text(),
  zapped: column.orNull(column.text()),
  zappedKind: column.orNull(column.int()),
  state: column.text<NutzapSendState>(),
  eventId: column.orNull(column.text()),
  /** Why it failed, or what is worth knowing of it. */
  note: column.orNull(column.text()),
  nextTryAt: column.orNull(column.int()),
  createdAt: column.int(),
  updatedAt: column.int(),
})
export type NutzapSendRow = RowOfTable<typeof sends>

/** The first under a key stays; a second one does nothing. */
export const insertNutzapSend = defineCommand(
  'insert_nutzap_send',
  (sql, { at, ...send }: Omit<NutzapSendRow, 'state' | 'eventId' | 'note' | 'createdAt' | 'updatedAt'> & { readonly at: number }) => {
    sends.insert(sql, { ...send, state: 'fixed', createdAt: at, updatedAt: at }, 'ON CONFLICT DO NOTHING')
  },
)

/** @throws conflict when its state can't become `to` */
export const moveNutzapSend = defineCommand(
  'move_nutzap_send',
  (sql, p: { idempotencyKey: string; to: NutzapSendState; at: number; eventId?: string; note?: string }) => {
    const { idempotencyKey, to: state, at: updatedAt, ...change } = p
    const row = sends.get(sql, { idempotencyKey })
    if (row === undefined || !statesBefore(NUTZAP_SEND_STEPS, state).includes(row.state))
      throw new PylonError('conflict', `The nutzap is ${row?.state ?? 'missing'}, which cannot become ${state}.`)
    sends.patch(sql, { idempotencyKey }, { ...change, state, nextTryAt: null, updatedAt })
  },
  (p) => `move_nutzap_send:${p.to}`,
)

export const noteNutzapSend = defineCommand('note_nutzap_send', (sql, p: { idempotencyKey: string; note: string }) => {
  sends.patch(sql, { idempotencyKey: p.idempotencyKey }, { note: p.note })
})

export const getNutzapSend = (store: Store, idempotencyKey: string): NutzapSendRow | undefined => sends.get(store.sql, { idempotencyKey })

export const dueNutzapSends = (store: Store, now: number): NutzapSendRow[] =>
  sends.all(store.sql, 'WHERE next_try_at <= ? ORDER BY next_try_at LIMIT 100', BigInt(now))
