/** Proofs: the ecash of every wallet of this home, each known by its Y and its secret once and for ever. */
import { PylonError } from '../../base/errors.ts'
import { defineCommand } from '../commands.ts'
import { amount, intOrNull, isThere, sumOf, text } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, Table } from '../table.ts'

export type ProofState = 'unspent' | 'reserved' | 'sent' | 'spent'

const COLUMNS = {
  /** hash_to_curve(secret), compressed hex: what NUT-07 asks by. */
  y: column.text(),
  secret: column.text(),
  keysetId: column.text(),
  amountSats: column.amount(),
  c: column.text(),
  dleq: column.orNull(column.json<{ readonly e: string; readonly s: string; readonly r?: string }>('dleq_json')),
  mintUrl: column.text(),
  ownerPubkey: column.text(),
  state: column.text<ProofState>(),
  operationId: column.orNull(column.text()),
  createdAt: column.int(),
  updatedAt: column.int(),
}
type Columns = RowOf<typeof COLUMNS>

/** Free, or held or given away by an operation; of a spent one that is known as long as its operation is. */
export type ProofRow = Omit<Columns, 'createdAt' | 'updatedAt'> &
  (
    | { readonly state: 'unspent'; readonly operationId: null }
    | { readonly state: 'reserved' | 'sent'; readonly operationId: string }
    | { readonly state: 'spent' }
  )

const isProof = (row: Columns): row is Columns & ProofRow =>
  row.state === 'spent' || (row.operationId === null) === (row.state === 'unspent')

const proofs = new Table('proofs', COLUMNS, isProof)

export const insertProofs = defineCommand('insert_proofs', (sql, p: { proofs: readonly ProofRow[]; at: number }) => {
  for (const proof of p.proofs) proofs.insert(sql, { ...proof, createdAt: p.at, updatedAt: p.at })
})

/** Moves every named proof on. @throws conflict unless all of them were in `from`. */
export const moveProofs = defineCommand(
  'move_proofs',
  (sql, p: { ys: readonly string[]; from: ProofState; to: ProofState; operationId: string | null; at: number }) => {
    for (const y of p.ys) {
      if (!proofs.patch(sql, { y, state: p.from }, { state: p.to, operationId: p.operationId, updatedAt: p.at }))
        throw new PylonError('conflict', `A proof is not ${p.from} any more and cannot become ${p.to}.`)
    }
  },
)

export const listProofs = (store: Store, owner: { pubkey: string; mintUrl: string; state: ProofState }): ProofRow[] =>
  proofs.all(
    store.sql,
    'WHERE owner_pubkey = ? AND mint_url = ? AND state = ? ORDER BY amount_sats DESC, y',
    owner.pubkey,
    owner.mintUrl,
    owner.state,
  )

export const proofsOfOperation = (store: Store, operationId: string, state: ProofState): ProofRow[] =>
  proofs.all(store.sql, 'WHERE operation_id = ? AND state = ? ORDER BY amount_sats, y', operationId, state)

/** Whether the books have this coin, in whatever state. */
export const knownSecret = (store: Store, secret: string): boolean => isThere(store.sql, 'SELECT 1 FROM proofs WHERE secret = ?', secret)

/** When the oldest free proof of a wallet at a mint came in. */
export function oldestUnspentAt(store: Store, owner: { pubkey: string; mintUrl: string }): number | undefined {
  const row = store
    .sql(`SELECT min(created_at) AS at FROM proofs WHERE owner_pubkey = ? AND mint_url = ? AND state = 'unspent'`)
    .get(owner.pubkey, owner.mintUrl)
  return row === undefined ? undefined : (intOrNull(row, 'at') ?? undefined)
}

/** Sats in proofs of one wallet at one mint that are ours in the ledger. */
export const heldSats = (store: Store, pubkey: string, mintUrl: string): bigint =>
  sumOf(
    store.sql,
    `SELECT coalesce(sum(amount_sats), 0) AS total FROM proofs WHERE owner_pubkey = ? AND mint_url = ? AND state IN ('unspent', 'reserved')`,
    pubkey,
    mintUrl,
  )

/** What spending all free coins of a wallet would cost in input fees, in sats rounded up, by mint. */
export function inputFeesOf(store: Store, pubkey: string): Map<string, bigint> {
  const rows = store
    .sql(
      `SELECT p.mint_url AS mint_url, (sum(k.input_fee_ppk) + 999) / 1000 AS fee FROM proofs p JOIN mint_keysets k ON k.id = p.keyset_id
       WHERE p.owner_pubkey = ? AND p.state = 'unspent' GROUP BY p.mint_url`,
    )
    .all(pubkey)
  return new Map(rows.map((row) => [text(row, 'mint_url'), amount(row, 'fee')]))
}
