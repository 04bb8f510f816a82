/** Proofs: the ecash of every wallet of this home, each known by its Y and its secret once and for ever. */
import { PylonError } from '../../base/errors.ts'
import { defineCommand, type Row } from '../commands.ts'
import { amount, intOrNull, jsonOrNull, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

export type ProofState = 'unspent' | 'reserved' | 'sent' | 'spent'

export interface ProofRow {
  /** hash_to_curve(secret), compressed hex: what NUT-07 asks by. */
  readonly y: string
  readonly secret: string
  readonly keysetId: string
  readonly amountSats: bigint
  readonly c: string
  readonly dleq: { readonly e: string; readonly s: string; readonly r?: string } | null
  readonly mintUrl: string
  readonly ownerPubkey: string
  readonly state: ProofState
  readonly operationId: string | null
}

export const insertProofs = defineCommand('insert_proofs', (sql, p: { proofs: readonly ProofRow[]; at: number }) => {
  for (const proof of p.proofs) {
    sql(
      `INSERT INTO proofs (y, secret, keyset_id, amount_sats, c, dleq_json, mint_url, owner_pubkey, state, operation_id, created_at, updated_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ).run(
      proof.y,
      proof.secret,
      proof.keysetId,
      proof.amountSats,
      proof.c,
      proof.dleq === null ? null : JSON.stringify(proof.dleq),
      proof.mintUrl,
      proof.ownerPubkey,
      proof.state,
      proof.operationId,
      BigInt(p.at),
      BigInt(p.at),
    )
  }
})

/** Moves every named proof on. @throws conflict unless all of them were in `from`. */
export const moveProofs = defineCommand(
  'move_proofs',
  (sql, p: { ys: readonly string[]; from: ProofState; to: ProofState; operationId: string | null; at: number }) => {
    for (const y of p.ys) {
      const moved = sql('UPDATE proofs SET state = ?, operation_id = ?, updated_at = ? WHERE y = ? AND state = ?').run(
        p.to,
        p.operationId,
        BigInt(p.at),
        y,
        p.from,
      )
      if (moved.changes !== 1) throw new PylonError('conflict', `A proof is not ${p.from} any more and cannot become ${p.to}.`)
    }
  },
)

export function listProofs(store: Store, owner: { pubkey: string; mintUrl: string; state: ProofState }): ProofRow[] {
  return store
    .sql('SELECT * FROM proofs WHERE owner_pubkey = ? AND mint_url = ? AND state = ? ORDER BY amount_sats DESC, y')
    .all(owner.pubkey, owner.mintUrl, owner.state)
    .map(decode)
}

export function proofsOfOperation(store: Store, operationId: string, state: ProofState): ProofRow[] {
  return store.sql('SELECT * FROM proofs WHERE operation_id = ? AND state = ? ORDER BY amount_sats, y').all(operationId, state).map(decode)
}

/** When the oldest free proof of a wallet at a mint came in. */
export function oldestUnspentAt(store: Store, owner: { pubkey: string; mintUrl: string }): number | undefined {
  const row = store
    .sql(`SELECT min(created_at) AS at FROM proofs WHERE owner_pubkey = ? AND mint_url = ? AND state = 'unspent'`)
    .get(owner.pubkey, owner.mintUrl)
  return row === undefined ? undefined : (intOrNull(row, 'at') ?? undefined)
}

function decode(row: Row): ProofRow {
  return {
    y: text(row, 'y'),
    secret: text(row, 'secret'),
    keysetId: text(row, 'keyset_id'),
    amountSats: amount(row, 'amount_sats'),
    c: text(row, 'c'),
    dleq: jsonOrNull(row, 'dleq_json'),
    mintUrl: text(row, 'mint_url'),
    ownerPubkey: text(row, 'owner_pubkey'),
    state: text(row, 'state') as ProofState,
    operationId: textOrNull(row, 'operation_id'),
  }
}

/** Sats in proofs of one wallet at one mint that are ours in the ledger. */
export function heldSats(store: Store, pubkey: string, mintUrl: string): bigint {
  const row = store
    .sql(
      `SELECT coalesce(sum(amount_sats), 0) AS total FROM proofs WHERE owner_pubkey = ? AND mint_url = ? AND state IN ('unspent', 'reserved')`,
    )
    .get(pubkey, mintUrl)
  return row === undefined ? 0n : amount(row, 'total')
}
