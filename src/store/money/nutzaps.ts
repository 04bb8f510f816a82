/** Nutzaps that came (NIP-61): claimed by their events, redeemed once, told once; and the proofs that they brought. */
import type { WalletOwner } from '../../base/accounts.ts'
import { PylonError } from '../../base/errors.ts'
import { NUTZAP_STEPS, type NutzapState, statesBefore } from '../../base/states.ts'
import { defineCommand, defineSweep } from '../commands.ts'
import { nutzapKey } from '../keys.ts'
import { countOf, intOrNull, isThere } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, Table } from '../table.ts'

/** As the event has it (NUT-00, 12). */
interface KeptProof {
  readonly id: string
  readonly amount: number
  readonly secret: string
  readonly C: string
  readonly dleq: { readonly e: string; readonly s: string; readonly r: string }
}

const NUTZAP = {
  /** Of the event. */
  id: column.text(),
  owner: column.group({ kind: column.text<WalletOwner['kind']>('owner_kind'), pubkey: column.text('owner_pubkey') }),
  sender: column.text(),
  comment: column.text(),
  /** The event that was zapped. */
  zapped: column.orNull(column.text()),
  mintUrl: column.text(),
  /** Empty once its end is known. */
  proofs: column.json<readonly KeptProof[]>('proofs_json'),
  state: column.text<NutzapState>(),
  /** What it brought, after the fee of its mint. */
  amountSats: column.orNull(column.amount()),
  reason: column.orNull(column.text()),
  tries: column.int(),
  nextTryAt: column.orNull(column.int()),
  /** Unix seconds, as the sender says. */
  createdAt: column.int(),
  heardAt: column.int(),
  updatedAt: column.int(),
}
type Nutzap = RowOf<typeof NUTZAP>
export type NutzapRow = Nutzap &
  (
    | { readonly state: 'claimed' | 'refused' }
    | { readonly state: 'redeemed'; readonly amountSats: bigint }
    | { readonly state: 'told'; readonly amountSats: bigint }
  )
const nutzaps = new Table(
  'nutzaps',
  NUTZAP,
  (row): row is NutzapRow => row.amountSats !== null || !['redeemed', 'told'].includes(row.state),
)

/** For one key: what waits at most, and what is taken in an hour from one sender and from all; the rest is not looked at. */
const MAX_WAITING = 500
const HOUR_MS = 3_600_000
const MAX_OF_SENDER_AN_HOUR = 60
const MAX_AN_HOUR = 600

export type NewNutzap = Pick<Nutzap, 'id' | 'owner' | 'sender' | 'comment' | 'zapped' | 'mintUrl' | 'proofs' | 'createdAt'>

/** The first claim of an event stands: `known` where there is one, `full` where its sender or all together bring too many. */
export const claimNutzap = defineCommand(
  'claim_nutzap',
  (sql, { at, ...nutzap }: NewNutzap & { readonly at: number }): 'new' | 'known' | 'full' => {
    const { owner, sender, id } = nutzap
    if (isThere(sql, 'SELECT 1 FROM nutzaps WHERE id = ?', id)) return 'known'
    const since = BigInt(at - HOUR_MS)
    const ofAll = countOf(sql, 'SELECT count(*) AS n FROM nutzaps WHERE owner_pubkey = ? AND heard_at > ?', owner.pubkey, since)
    const ofSender = countOf(
      sql,
      'SELECT count(*) AS n FROM nutzaps WHERE owner_pubkey = ? AND sender = ? AND heard_at > ?',
      ...[owner.pubkey, sender, since],
    )
    const waiting = countOf(sql, "SELECT count(*) AS n FROM nutzaps WHERE owner_pubkey = ? AND state = 'claimed'", owner.pubkey)
    if (ofSender >= MAX_OF_SENDER_AN_HOUR || ofAll >= MAX_AN_HOUR || waiting >= MAX_WAITING) return 'full'
    nutzaps.insert(sql, { ...nutzap, state: 'claimed', tries: 0, nextTryAt: at, heardAt: at, updatedAt: at })
    return 'new'
  },
)

export interface NutzapMove {
  readonly id: string
  readonly to: NutzapState
  readonly at: number
  /** Undefined: never again. */
  readonly nextTryAt?: number
  readonly tries?: number
  readonly reason?: string
  readonly amountSats?: bigint
  /** sha256 of the secrets that it brought. */
  readonly brought?: readonly string[]
}

/** Its proofs go with its end. @throws conflict when its state can't become `to` */
export const moveNutzap = defineCommand(
  'move_nutzap',
  (sql, p: NutzapMove) => {
    const { id, to: state, at: updatedAt, nextTryAt = null, brought = [], reason = null, ...change } = p
    const row = nutzaps.get(sql, { id })
    if (row === undefined || !statesBefore(NUTZAP_STEPS, state).includes(row.state))
      throw new PylonError('conflict', `The nutzap is ${row?.state ?? 'missing'}, which cannot become ${state}.`)
    const proofs = state === 'claimed' ? {} : { proofs: [] }
    nutzaps.patch(sql, { id }, { ...change, ...proofs, state, reason, nextTryAt, updatedAt })
    for (const secret of brought)
      sql('INSERT INTO nutzap_proofs (secret_hash, nutzap_id) VALUES (?, ?) ON CONFLICT DO NOTHING').run(secret, id)
  },
  (p) => `move_nutzap:${p.to}`,
)

export const getNutzap = (store: Store, id: string): NutzapRow | undefined => nutzaps.get(store.sql, { id })

export const dueNutzaps = (store: Store, now: number): NutzapRow[] =>
  nutzaps.all(store.sql, 'WHERE next_try_at <= ? ORDER BY next_try_at LIMIT 100', BigInt(now))

/** When the next is to be gone on with. */
export function nextNutzapDue(store: Store): number | undefined {
  const row = store.sql('SELECT min(next_try_at) AS at FROM nutzaps WHERE next_try_at IS NOT NULL').get()
  return row === undefined ? undefined : (intOrNull(row, 'at') ?? undefined)
}

/** Whether a nutzap has brought this secret. @param secretHash sha256 of it */
export const wasBrought = (store: Store, secretHash: string): boolean =>
  isThere(store.sql, 'SELECT 1 FROM nutzap_proofs WHERE secret_hash = ?', secretHash)

/** Whether another that waits has some of these secrets in a swap that its mint did not refuse: it may have brought them already. */
export const isSwappedByOther = (store: Store, p: { id: string; owner: WalletOwner; secrets: readonly string[] }): boolean =>
  isThere(
    store.sql,
    `SELECT 1 FROM nutzaps n JOIN operations o ON o.idempotency_key = '${nutzapKey.of('')}' || n.id, json_each(n.proofs_json) proof
     WHERE n.state = 'claimed' AND n.owner_pubkey = ? AND n.id <> ? AND o.state <> 'failed'
       AND proof.value ->> 'secret' IN (SELECT value FROM json_each(?))`,
    ...[p.owner.pubkey, p.id, JSON.stringify(p.secrets)],
  )

/** What has ended is forgotten after a while; proofs that were brought are not. */
export const sweepNutzaps = defineSweep('sweep_nutzaps', 'nutzaps', 'id', 'next_try_at IS NULL AND updated_at')
