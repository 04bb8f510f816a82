/** NUT-09 and 13: finds ecash that a wallet's seed made and that the database does not know, as after losing the database. */
import { sats } from '../base/amounts.ts'
import { all } from '../store/commands.ts'
import { postEntry } from '../store/ledger.ts'
import { type KeysetRow, nextCounter, raiseCounter } from '../store/mints.ts'
import { insertProofs, knownYs, listProofs, moveProofs, type ProofRow } from '../store/proofs.ts'
import { msatsOf, newId, restoreAccount, type WalletContext, walletAccount } from './context.ts'
import type { BlindedOutput, BlindSignature, FreshProof } from './crypto.ts'
import { unwrap } from './mint-client.ts'
import type { WalletOwner } from './types.ts'

const BATCH = 100
/** A gap this long ends the search: a request that a mint refuses leaves a few counters unused. */
const EMPTY_BATCHES = 10

/**
 * Returns the sats found.
 * @param refusedOperation one whose outputs the mint had signed before: what they hold is not on its way.
 * @throws mint_not_allowed, mint_unreachable, mint_rejected
 */
export async function restoreWallet(context: WalletContext, owner: WalletOwner, mintUrl: string, refusedOperation = ''): Promise<bigint> {
  const mint = context.mints.get(mintUrl)
  await context.mints.refreshKeysets(mint.url)
  if (refusedOperation === '') await forgetSpent(context, owner, mint.url)
  let total = 0n
  for (const keyset of context.mints.keysets(mint.url)) total += await restoreKeyset(context, owner, keyset, refusedOperation)
  return sats(total)
}

/** NUT-07: ecash that the database holds and the mint has seen spent, as after putting an old backup back. */
async function forgetSpent({ store, clock, mints }: WalletContext, owner: WalletOwner, mintUrl: string): Promise<void> {
  const held = listProofs(store, { pubkey: owner.pubkey, mintUrl, state: 'unspent' })
  if (held.length === 0) return
  const states = unwrap(mintUrl, await mints.client(mintUrl).checkStates(held.map((proof) => proof.y)))
  const spent = held.filter((_, i) => states[i] === 'SPENT')
  if (spent.length === 0) return
  const at = clock.now()
  const total = spent.reduce((sum, proof) => sum + proof.amountSats, 0n)
  await store.write(
    all(
      moveProofs({ ys: spent.map((proof) => proof.y), from: 'unspent', to: 'spent', operationId: null, at }),
      postEntry({
        id: `restore:${newId()}`,
        cause: { type: 'owner', id: 'restore' },
        at,
        memo: 'spent elsewhere, as the mint says',
        postings: [
          { account: walletAccount(owner, mintUrl), amountMsats: -msatsOf(total) },
          { account: restoreAccount(owner), amountMsats: msatsOf(total) },
        ],
      }),
    ),
  )
}

async function restoreKeyset(context: WalletContext, owner: WalletOwner, keyset: KeysetRow, refusedOperation: string): Promise<bigint> {
  let total = 0n
  let empty = 0
  // Up to where the database knows of counters there may be any gap.
  const known = nextCounter(context.store, { ownerPubkey: owner.pubkey, keysetId: keyset.id })
  for (let counter = 0; empty < EMPTY_BATCHES; counter += BATCH) {
    const found = await restoreBatch(context, owner, keyset, counter)
    empty = found.highest === undefined && counter >= known ? empty + 1 : 0
    if (found.highest === undefined) continue
    const fresh = found.proofs.filter((proof) => !isUnderWay(context, proof.secret, refusedOperation))
    total += await keep(context, owner, keyset, fresh, found.highest + 1)
  }
  return total
}

async function restoreBatch(
  context: WalletContext,
  owner: WalletOwner,
  keyset: KeysetRow,
  counter: number,
): Promise<{ proofs: FreshProof[]; highest?: number }> {
  const { crypto, keyring, mints } = context
  // The amount is not part of the secret: the mint tells it.
  const blanks = await crypto.run('deterministic', {
    seed: keyring.walletSeed(owner.pubkey),
    keysetId: keyset.id,
    counter,
    amounts: new Array<number>(BATCH).fill(0),
  })
  const signatures = unwrap(keyset.mintUrl, await mints.client(keyset.mintUrl).restore(blanks))
  const pairs: { output: BlindedOutput; signature: BlindSignature; counter: number }[] = []
  for (const [i, output] of blanks.entries()) {
    const signature = signatures[i]
    if (signature !== undefined) pairs.push({ output, signature, counter: counter + i })
  }
  const last = pairs.at(-1)
  if (last === undefined) return { proofs: [] }
  const proofs = await crypto.run('unblind', {
    outputs: pairs.map((pair) => pair.output),
    signatures: pairs.map((pair) => pair.signature),
    keys: keyset.keys,
  })
  const states = unwrap(keyset.mintUrl, await mints.client(keyset.mintUrl).checkStates(proofs.map((proof) => proof.y)))
  return { proofs: proofs.filter((_, i) => states[i] === 'UNSPENT'), highest: last.counter }
}

/** Stores what is new, with its posting and the counter, in one commit. */
async function keep(
  context: WalletContext,
  owner: WalletOwner,
  keyset: KeysetRow,
  proofs: readonly FreshProof[],
  next: number,
): Promise<bigint> {
  const { store, clock } = context
  const at = clock.now()
  const raise = raiseCounter({ ownerPubkey: owner.pubkey, keysetId: keyset.id, next })
  const known = knownYs(
    store,
    proofs.map((proof) => proof.y),
  )
  const rows = proofs
    .filter((proof) => !known.has(proof.y))
    .map(
      (proof): ProofRow => ({
        y: proof.y,
        secret: proof.secret,
        keysetId: proof.id,
        amountSats: BigInt(proof.amount),
        c: proof.C,
        dleq: proof.dleq,
        mintUrl: keyset.mintUrl,
        ownerPubkey: owner.pubkey,
        state: 'unspent',
        operationId: null,
      }),
    )
  const total = rows.reduce((sum, row) => sum + row.amountSats, 0n)
  if (rows.length === 0) {
    await store.write(raise)
    return 0n
  }
  await store.write(
    all(
      raise,
      insertProofs({ proofs: rows, at }),
      postEntry({
        id: `restore:${newId()}`,
        cause: { type: 'owner', id: 'restore' },
        at,
        memo: 'restored from the seed',
        postings: [
          { account: walletAccount(owner, keyset.mintUrl), amountMsats: msatsOf(total) },
          { account: restoreAccount(owner), amountMsats: -msatsOf(total) },
        ],
      }),
    ),
  )
  return total
}

/** An output of an operation that is not finished: its own recovery brings it in. */
function isUnderWay({ store }: WalletContext, secret: string, exceptOperation: string): boolean {
  return (
    store
      .sql(`SELECT 1 FROM operations WHERE state IN ('prepared', 'submitted', 'unknown') AND id <> ? AND instr(plan_json, ?) > 0`)
      .get(exceptOperation, JSON.stringify(secret)) !== undefined
  )
}
