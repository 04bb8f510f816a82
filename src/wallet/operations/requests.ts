/** Builds what is sent to a mint: blinded outputs with fresh counters, signed inputs, the exact bytes of a request. */
import { hash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import type { WalletOwner } from '../../base/accounts.ts'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import type { Keyring, LocalSigner } from '../../nostr/types.ts'
import type { KeysetRow } from '../../store/money/keysets.ts'
import { reserveCounters } from '../../store/money/mints.ts'
import type { OperationRow } from '../../store/money/operations.ts'
import type { ProofRow } from '../../store/money/proofs.ts'
import type { WalletContext } from '../context.ts'
import { splitAmount, spreadAmount } from '../ecash/coins.ts'
import type { BlindedOutput, OutputLock, TokenProof } from '../ecash/crypto.ts'
import { lockOf, type Opening, openingFor } from '../ecash/locks.ts'
import type { OutputPurpose, Plan, PlannedOutput, SendPlan } from './machine.ts'

/** As NUT-00 has an input. */
export interface MintInput {
  readonly amount: number
  readonly id: string
  readonly secret: string
  readonly C: string
  readonly witness?: string
}

export interface OutputGroup {
  readonly purpose: OutputPurpose
  readonly amounts: readonly number[]
  /** Whose seed makes them. */
  readonly owner: WalletOwner
  /** NUT-11 instead of NUT-13; of one name there is one token. */
  readonly lock?: OutputLock & { readonly name: string }
}

/** The fewest amounts of the keyset. @throws amount_invalid */
export function amountsFor(total: bigint, keyset: KeysetRow): number[] {
  const parts = splitAmount(total, Object.keys(keyset.keys).map(BigInt))
  if (parts === undefined) throw new PylonError('amount_invalid', `The mint has no coins that make up ${total} sats.`)
  return parts.map(Number)
}

/** The same, with small coins as a wallet likes to have them. @param have what it holds @throws amount_invalid */
export function spreadFor(total: bigint, keyset: KeysetRow, have: readonly { readonly amountSats: bigint }[]): number[] {
  const amounts = Object.keys(keyset.keys).map(BigInt)
  return spreadAmount(total, { amounts, feePpk: keyset.inputFeePpk }, have)?.map(Number) ?? amountsFor(total, keyset)
}

/** The most outputs that a token of one name is looked for with: the amounts of keysets are powers of two. */
const MAX_LOCKED_OUTPUTS = 64

/** The outputs of a locked token as they were made if it was made before, whatever its amounts and keyset: the mint tells them. */
export function lockedOutputs(context: WalletContext, operation: OperationRow, plan: SendPlan): Promise<BlindedOutput[]> {
  const { owner, idempotencyKey } = operation
  const { lock } = lockOfSend(context, owner, idempotencyKey, plan)
  if (lock === undefined) return Promise.resolve([])
  const amounts = new Array<number>(MAX_LOCKED_OUTPUTS).fill(0)
  const keysetId = plan.outputs[0]?.id ?? ''
  return context.crypto.run('locked', { ...lock, seed: context.keyring.walletSeed(owner.pubkey), keysetId, amounts })
}

/** Blinds outputs of all groups, ascending by amount (NUT-03); their counters are taken for good first. */
export async function makeOutputs(context: WalletContext, keyset: KeysetRow, groups: readonly OutputGroup[]): Promise<PlannedOutput[]> {
  const made: PlannedOutput[] = []
  for (const { purpose, amounts, owner, lock } of groups) {
    if (amounts.length === 0) continue
    const outputs =
      lock === undefined
        ? await makeDeterministic(context, keyset.id, owner, amounts)
        : await context.crypto.run('locked', { ...lock, seed: context.keyring.walletSeed(owner.pubkey), keysetId: keyset.id, amounts })
    made.push(...outputs.map((output) => ({ ...output, purpose })))
  }
  return made.sort((a, b) => a.amount - b.amount)
}

async function makeDeterministic(
  context: WalletContext,
  keysetId: string,
  owner: WalletOwner,
  amounts: readonly number[],
): Promise<BlindedOutput[]> {
  const counter = await context.store.write(reserveCounters({ ownerPubkey: owner.pubkey, keysetId, count: amounts.length }))
  return context.crypto.run('deterministic', { seed: context.keyring.walletSeed(owner.pubkey), keysetId, counter, amounts })
}

const wireOutputs = (outputs: readonly BlindedOutput[]) => outputs.map(({ amount, id, B_ }) => ({ amount, id, B_ }))

export function swapBody(inputs: readonly MintInput[], outputs: readonly BlindedOutput[]): string {
  return JSON.stringify({ inputs, outputs: wireOutputs(outputs) })
}

/** NUT-20: the quote's key signs the quote and every output. */
/** Who opens a quote (NUT-20): the wallet's own key, or the Nostr key of its owner, which services of addresses lock to. */
export const quoteSigner = (keyring: Keyring, { pubkey }: WalletOwner, lockedTo: string | undefined): LocalSigner =>
  lockedTo === `02${pubkey}` ? keyring.localSigner(pubkey) : keyring.walletSigner(pubkey)

export function mintBody(quoteId: string, outputs: readonly BlindedOutput[], signer: LocalSigner): string {
  const digest = hash('sha256', quoteId + outputs.map((output) => output.B_).join(''), 'buffer')
  return JSON.stringify({ quote: quoteId, outputs: wireOutputs(outputs), signature: signer.signDigest(digest) })
}

export function meltBody(quoteId: string, inputs: readonly MintInput[], outputs: readonly BlindedOutput[]): string {
  return JSON.stringify({ quote: quoteId, inputs, ...(outputs.length === 0 ? {} : { outputs: wireOutputs(outputs) }) })
}

export function inputsOf(proofs: readonly ProofRow[]): MintInput[] {
  return proofs.map(({ amountSats, keysetId, secret, c }) => ({ amount: Number(amountSats), id: keysetId, secret, C: c }))
}

/** Our keys that a lock may name: the wallet's own, the owner's Nostr key, and those given; by their x-only form. */
function lockSigners(keyring: Keyring, owner: WalletOwner, beside: readonly LocalSigner[]): Map<string, () => LocalSigner> {
  const wallet = keyring.walletSigner(owner.pubkey)
  return new Map([
    ...beside.map((signer) => [signer.pubkey, () => signer] as const),
    [wallet.pubkey, () => wallet],
    [owner.pubkey, () => keyring.localSigner(owner.pubkey)],
  ])
}

/** Whether all of a token opens for us now, and for whom else: by the strictest of its proofs. */
export function openingOf(
  keyring: Keyring,
  owner: WalletOwner,
  secrets: readonly string[],
  nowS: number,
  beside: readonly LocalSigner[] = [],
): Opening {
  const ours = new Set(lockSigners(keyring, owner, beside).keys())
  const openings = secrets.map((secret) => openingFor(lockOf(secret), ours, nowS))
  const closed = openings.find((opening) => !opening.opens)
  if (closed !== undefined) return closed
  // NUT-11: where one asks for a signature over all, all must ask for the same.
  if (secrets.some(signsAll) && new Set(secrets.map(conditionsOf)).size > 1)
    return { opens: false, reason: 'its lock is malformed (SIG_ALL beside another lock)' }
  return { opens: true, forAll: openings.some((opening) => opening.opens && opening.forAll), keys: [] }
}

function signsAll(secret: string): boolean {
  const lock = lockOf(secret)
  return lock.type === 'conditions' && lock.sigAll
}

/** What all coins of one request must share (NUT-11): nothing, unless one wants a signature over all. */
export const oneRequestOf = (secret: string): string => (signsAll(secret) ? conditionsOf(secret) : '')

/** All of a secret but its nonce. */
function conditionsOf(secret: string): string {
  const parsed = parseJson(secret)
  if (!Array.isArray(parsed)) return ''
  const { data, tags } = parsed[1] as { data?: unknown; tags?: unknown }
  return JSON.stringify([parsed[0], data, tags ?? []])
}

/** Foreign proofs as inputs, with the witness that opens each (NUT-11). @throws token_locked */
export async function unlockInputs(
  context: WalletContext,
  owner: WalletOwner,
  proofs: readonly TokenProof[],
  outputs: readonly BlindedOutput[],
  beside: readonly LocalSigner[],
): Promise<MintInput[]> {
  const nowS = context.clock.now() / 1000
  const signers = lockSigners(context.keyring, owner, beside)
  const ours = new Set(signers.keys())
  const sigAll = proofs.some(({ secret }) => signsAll(secret))
  const allMessage = proofs.map(({ secret, C }) => secret + C).join('') + outputs.map(({ amount, B_ }) => `${amount}${B_}`).join('')
  const inputs: MintInput[] = []
  for (const [index, { amount, id, secret, C }] of proofs.entries()) {
    const opening = openingFor(lockOf(secret), ours, nowS)
    if (!opening.opens) throw tokenLocked(opening.reason)
    const bare = opening.keys.length === 0 || (sigAll && index > 0)
    const message = sigAll ? allMessage : secret
    const signed = () => opening.keys.flatMap((key) => signers.get(key)?.() ?? [])
    inputs.push({ amount, id, secret, C, ...(bare ? {} : { witness: witnessOf(signed(), message) }) })
    // A signature takes a good part of a millisecond: others may run in between.
    if (index % SIGNATURES_AT_ONCE === SIGNATURES_AT_ONCE - 1) await setImmediate()
  }
  return inputs
}

export const tokenLocked = (reason: string): PylonError =>
  new PylonError('token_locked', `The token can't be spent by this wallet: ${reason}.`)

const SIGNATURES_AT_ONCE = 8

function witnessOf(signers: readonly LocalSigner[], message: string): string {
  const digest = hash('sha256', message, 'buffer')
  return JSON.stringify({ signatures: signers.map((signer) => signer.signDigest(digest)) })
}

/** The plan again with outputs of another keyset; undefined where a signature over the outputs stands in the way. */
export async function replan(context: WalletContext, operation: OperationRow, keyset: KeysetRow): Promise<Plan | undefined> {
  const { owner, idempotencyKey } = operation
  const plan = operation.plan as Plan
  const inputs = plan.kind === 'mint' ? [] : (JSON.parse(plan.body) as { inputs: MintInput[] }).inputs
  if (inputs.some(({ secret }) => signsAll(secret)) || plan.path === '') return undefined
  const amountsOf = (purpose: OutputPurpose) => plan.outputs.filter((output) => output.purpose === purpose).map((output) => output.amount)
  const outputs = await makeOutputs(context, keyset, [
    { purpose: 'keep', amounts: amountsOf('keep'), owner },
    { purpose: 'peer', amounts: amountsOf('peer'), owner: plan.kind === 'transfer' ? plan.to : owner },
    {
      purpose: 'send',
      amounts: amountsOf('send'),
      owner,
      ...(plan.kind === 'send' ? lockOfSend(context, owner, idempotencyKey, plan) : {}),
    },
  ])
  const body =
    plan.kind === 'mint'
      ? mintBody(plan.quoteId, outputs, quoteSigner(context.keyring, owner, plan.lockedTo))
      : plan.kind === 'melt'
        ? meltBody(plan.quoteId, inputs, outputs)
        : swapBody(inputs, outputs)
  return { ...plan, outputs, body, replanned: true }
}

/** The lock of a token that is sent, as a part of an OutputGroup. @param name the idempotency key of the send */
export function lockOfSend(
  context: WalletContext,
  owner: WalletOwner,
  name: string,
  send: { readonly lockTo?: string; readonly refundAfter?: number },
): Pick<OutputGroup, 'lock'> {
  if (send.lockTo === undefined) return {}
  if (send.refundAfter === undefined) return { lock: { name, pubkey: send.lockTo } }
  const refundKey = `02${context.keyring.walletSigner(owner.pubkey).pubkey}`
  return { lock: { name, pubkey: send.lockTo, locktime: Math.ceil(send.refundAfter / 1000), refundKey } }
}
