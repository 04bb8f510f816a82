/** NUT-09 and 13: finds ecash that a wallet's seed made and that the database does not know, as after losing the database. */
import { accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { isPylonError } from '../../base/errors.ts'
import { all } from '../../store/commands.ts'
import type { KeysetInfo } from '../../store/money/keysets.ts'
import { nextCounter, raiseCounter } from '../../store/money/mints.ts'
import { adoptProofs, dropProofs } from '../../store/money/proof-books.ts'
import { listProofs, type ProofRow } from '../../store/money/proofs.ts'
import { newId, type WalletContext } from '../context.ts'
import type { FreshProof } from '../ecash/crypto.ts'
import { unwrap } from '../mint/client.ts'
import { collectAllOwed } from './owed.ts'
import { proofRow, unblindEach } from './unblinding.ts'

const BATCH = 100
/** A gap this long ends the search: a request that a mint refuses leaves a few counters unused. */
const EMPTY_BATCHES = 10
/** Of a keyset of which nothing is known or found (NUT-13 says three): some mints list a thousand. */
const EMPTY_BATCHES_UNTOUCHED = 4
/** Keysets that are asked about at once: while a mint thinks about one, outputs of the next are made. */
const AT_ONCE = 4

export interface Found {
  readonly foundSats: bigint
  /** What could not be read, each as a sentence: nothing of that stands in the way of the rest. */
  readonly problems: readonly string[]
}

/**
 * @param refusedOperation one whose outputs the mint had signed before: what they hold is not on its way.
 * @throws mint_not_allowed, mint_unreachable, mint_rejected
 */
export async function restoreWallet(context: WalletContext, owner: WalletOwner, mintUrl: string, refusedOperation = ''): Promise<Found> {
  const mint = context.mints.get(mintUrl)
  await context.mints.refreshKeysets(mint.url)
  const problems: string[] = []
  let foundSats = 0n
  if (refusedOperation === '') {
    const { pubkey } = owner
    await forgetSpent(context, mint.url, listProofs(context.store, { pubkey, mintUrl: mint.url, state: 'unspent' }))
    const owed = await collectAllOwed(context, owner, mint.url)
    foundSats += owed.found
    problems.push(...owed.problems)
  }
  const next = context.mints.keysets(mint.url)[Symbol.iterator]()
  let failure: unknown
  const work = async () => {
    for (const keyset of { [Symbol.iterator]: () => next }) {
      if (failure !== undefined) return
      try {
        // Added when it is there: the others have added theirs meanwhile.
        const found = await restoreKeyset(context, owner, keyset, refusedOperation, (problem) => problems.push(problem))
        foundSats += found
      } catch (error) {
        // What the mint does not do for one keyset it may do for the others; where it does not answer the rest waits too.
        if (isPylonError(error, 'mint_rejected')) problems.push(`The keyset ${keyset.id}: ${error.message}`)
        else failure ??= error
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  if (failure !== undefined) throw failure
  return { foundSats, problems }
}

/** Whether a mint has signed anything for this wallet: its first outputs of each keyset are asked about. @throws mint_not_allowed, mint_unreachable, mint_rejected */
export async function hasTraces(context: WalletContext, owner: WalletOwner, mintUrl: string): Promise<boolean> {
  const mint = context.mints.get(mintUrl)
  for (const keyset of context.mints.keysets(mint.url)) {
    const { signatures } = await askBatch(context, owner, keyset, 0)
    if (signatures.some((signature) => signature !== undefined)) return true
  }
  return false
}

/** NUT-07: which of these coins of ours their mint has seen spent leave the books, as after putting an old backup back. Returns the sats. @throws mint_unreachable, mint_rejected */
export async function forgetSpent(context: WalletContext, mintUrl: string, held: readonly ProofRow[]): Promise<bigint> {
  const { store, clock, mints } = context
  if (held.length === 0) return 0n
  const states = unwrap(mintUrl, await mints.client(mintUrl).checkStates(held.map((proof) => proof.y)))
  const spent = held.filter((_, i) => states[i] === 'SPENT').map((proof) => proof.y)
  if (spent.length === 0) return 0n
  const entry = { entryId: `restore:${newId(context)}`, cause: { type: 'owner', id: 'restore' }, at: clock.now() } as const
  return store.write(dropProofs({ ...entry, ys: spent, memo: 'spent elsewhere, as the mint says' }))
}

async function restoreKeyset(
  context: WalletContext,
  owner: WalletOwner,
  keyset: KeysetInfo,
  refusedOperation: string,
  onProblem: (problem: string) => void,
): Promise<bigint> {
  let total = 0n
  let empty = 0
  // Up to where the database knows of counters there may be any gap.
  const known = nextCounter(context.store, { ownerPubkey: owner.pubkey, keysetId: keyset.id })
  let isTouched = known > 0
  for (let counter = 0; empty < (isTouched ? EMPTY_BATCHES : EMPTY_BATCHES_UNTOUCHED); counter += BATCH) {
    const found = await restoreBatch(context, owner, keyset, counter)
    isTouched ||= found.highest !== undefined
    empty = found.highest === undefined && counter >= known ? empty + 1 : 0
    if (found.highest === undefined) continue
    for (const fault of found.faults) onProblem(`A coin of the keyset ${keyset.id} can't be read: ${fault}.`)
    const fresh = found.proofs.filter((proof) => !isUnderWay(context, proof.secret, refusedOperation))
    total += await keep(context, owner, keyset, fresh, found.highest + 1)
  }
  return total
}

async function restoreBatch(
  context: WalletContext,
  owner: WalletOwner,
  keyset: KeysetInfo,
  counter: number,
): Promise<{ proofs: FreshProof[]; faults: string[]; highest?: number }> {
  const { mints } = context
  const { blanks, signatures } = await askBatch(context, owner, keyset, counter)
  const highest = signatures.findLastIndex((signature) => signature !== undefined)
  if (highest === -1) return { proofs: [], faults: [] }
  const unblinded = await unblindEach(
    context,
    keyset.mintUrl,
    blanks.map((output, i) => ({ output, signature: signatures[i] })),
  )
  const proofs = unblinded.proofs.map(({ proof }) => proof)
  const states = unwrap(keyset.mintUrl, await mints.client(keyset.mintUrl).checkStates(proofs.map((proof) => proof.y)))
  return {
    proofs: proofs.filter((_, i) => states[i] === 'UNSPENT'),
    faults: unblinded.faults.map((fault) => fault.reason),
    highest: counter + highest,
  }
}

async function askBatch({ crypto, keyring, mints }: WalletContext, owner: WalletOwner, keyset: KeysetInfo, counter: number) {
  // The amount is not part of the secret: the mint tells it.
  const blanks = await crypto.run('deterministic', {
    seed: keyring.walletSeed(owner.pubkey),
    keysetId: keyset.id,
    counter,
    amounts: new Array<number>(BATCH).fill(0),
  })
  return { blanks, signatures: unwrap(keyset.mintUrl, await mints.client(keyset.mintUrl).restore(blanks)) }
}

/** Stores what is new, with its posting and the counter, in one commit. */
async function keep(
  context: WalletContext,
  owner: WalletOwner,
  keyset: KeysetInfo,
  proofs: readonly FreshProof[],
  next: number,
): Promise<bigint> {
  const { store, clock } = context
  const at = clock.now()
  const rows = proofs.map((proof) => proofRow(proof, { ownerPubkey: owner.pubkey, mintUrl: keyset.mintUrl }))
  const entry = {
    entryId: `restore:${newId(context)}`,
    cause: { type: 'owner', id: 'restore' },
    at,
    memo: 'restored from the seed',
  } as const
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
