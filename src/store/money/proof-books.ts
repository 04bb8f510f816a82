/** Proofs that enter or leave a wallet without an operation of ours, matched by their Y inside the commit, with the entry that says so. */
import { type Account, type AccountOwner, accountOf } from '../../base/accounts.ts'
import { defineCommand, runCommand, type Sql } from '../commands.ts'
import { operationReturned } from '../keys.ts'
import { amount, text } from '../row.ts'
import type { Store } from '../store.ts'
import { type Cause, type Posting, postEntry } from './ledger.ts'
import { insertProofs, type ProofRow } from './proofs.ts'

/** What a restore found, or found missing. */
export const restoreAccount = (owner: AccountOwner): Account => accountOf(owner, 'equity', 'restore')

interface Change {
  /** Of the ledger; posted once. */
  readonly entryId: string
  readonly cause: Cause
  readonly memo: string
  readonly at: number
}

/**
 * Takes those of these proofs out of the books that are free in any wallet of this home: their mint has seen them spent, or
 * somebody brought them as a token. What is held by an operation is left to that operation. Returns the sats.
 */
export const dropProofs = defineCommand('drop_proofs', (sql, p: Change & { ys: readonly string[] }): bigint => {
  const find = sql(
    `SELECT p.amount_sats, p.mint_url, o.account_owner FROM proofs p JOIN wallet_owners o ON o.pubkey = p.owner_pubkey
     WHERE p.y = ? AND p.state = 'unspent'`,
  )
  const postings: Posting[] = []
  let total = 0n
  for (const y of p.ys) {
    const row = find.get(y)
    if (row === undefined) continue
    sql(`UPDATE proofs SET state = 'spent', operation_id = NULL, updated_at = ? WHERE y = ?`).run(BigInt(p.at), y)
    const owner = text(row, 'account_owner') as AccountOwner
    const sats = amount(row, 'amount_sats')
    postings.push({ account: accountOf(owner, 'wallet', text(row, 'mint_url')), amountMsats: -sats * 1000n })
    postings.push({ account: restoreAccount(owner), amountMsats: sats * 1000n })
    total += sats
  }
  if (total > 0n) post(sql, p, postings)
  return total
})

/** Takes in those of these proofs, of one wallet and mint, that nobody here holds or held. Returns the sats. */
export const adoptProofs = defineCommand(
  'adopt_proofs',
  (sql, p: Change & { accountOwner: AccountOwner; mintUrl: string; proofs: readonly ProofRow[] }): bigint => {
    const find = sql('SELECT 1 AS known FROM proofs WHERE y = ?')
    const fresh = p.proofs.filter((proof) => find.get(proof.y) === undefined)
    const total = fresh.reduce((sum, proof) => sum + proof.amountSats, 0n)
    if (total === 0n) return 0n
    runCommand(sql, insertProofs({ proofs: fresh, at: p.at }))
    post(sql, p, [
      { account: accountOf(p.accountOwner, 'wallet', p.mintUrl), amountMsats: total * 1000n },
      { account: restoreAccount(p.accountOwner), amountMsats: -total * 1000n },
    ])
    return total
  },
)

/** The Ys among these that are known here, in any state. */
export function knownYs(store: Store, ys: readonly string[]): Set<string> {
  const find = store.sql('SELECT 1 AS known FROM proofs WHERE y = ?')
  return new Set(ys.filter((y) => find.get(y) !== undefined))
}

function post(sql: Sql, { entryId, cause, memo, at }: Change, postings: readonly Posting[]): void {
  runCommand(sql, postEntry({ id: entryId, cause, at, memo, postings }))
}

/** How much of a token that was received was in the books before. */
export function returnedSats(store: Store, operationId: string): bigint {
  const row = store
    .sql('SELECT coalesce(sum(amount_msats), 0) AS total FROM postings WHERE entry_id = ? AND amount_msats > 0')
    .get(operationReturned.of(operationId))
  return row === undefined ? 0n : amount(row, 'total') / 1000n
}
