/** NUT-09 and 13: finds ecash that a wallet's seed made and that the database does not know, as after losing the database. */
import { sats } from '../base/amounts.ts'
import { all } from '../store/commands.ts'
import { type KeysetRow, nextCounter, raiseCounter } from '../store/mints.ts'
import { adoptProofs, dropProofs } from '../store/proof-books.ts'
import { listProofs, type ProofRow } from '../store/proofs.ts'
import { accountOwner, newId, type WalletContext } from './context.ts'
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
  if (refusedOperation === '') {
    const { pubkey } = owner
    await forgetSpent(context, mint.url, listProofs(context.store, { pubkey, mintUrl: mint.url, state: 'unspent' }))
  }
  let total = 0n
  for (const keyset of context.mints.keysets(mint.url)) total += await restoreKeyset(context, owner, keyset, refusedOperation)
  return sats(total)
}

/** NUT-07: which of these coins of ours their mint has seen spent leave the books, as after putting an old backup back. Returns the sats. @throws mint_unreachable, mint_rejected */
export async function forgetSpent({ store, clock, mints }: WalletContext, mintUrl: string, held: readonly ProofRow[]): Promise<bigint> {
  if (held.length === 0) return 0n
  const states = unwrap(mintUrl, await mints.client(mintUrl).checkStates(held.map((proof) => proof.y)))
  const spent = held.filter((_, i) => states[i] === 'SPENT').map((proof) => proof.y)
  if (spent.length === 0) return 0n
  const entry = { entryId: `restore:${newId()}`, cause: { type: 'owner', id: 'restore' }, at: clock.now() } as const
  return store.write(dropProofs({ ...entry, ys: spent, memo: 'spent elsewhere, as the mint says' }))
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
  const rows = proofs.map(
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
  const entry = { entryId: `restore:${newId()}`, cause: { type: 'owner', id: 'restore' }, at, memo: 'restored from the seed' } as const
  const [, total] = await store.write(
    all(
      raiseCounter({ ownerPubkey: owner.pubkey, keysetId: keyset.id, next }),
      adoptProofs({ ...entry, accountOwner: accountOwner(owner), mintUrl: keyset.mintUrl, proofs: rows }),
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
