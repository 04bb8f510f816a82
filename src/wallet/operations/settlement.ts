/** How an operation ends: its proofs, postings, budget, token, invoice and event, as commands of one commit. */
import { type Account, accountOwner } from '../../base/accounts.ts'
import { sats } from '../../base/amounts.ts'
import type { ErrorCode } from '../../base/errors.ts'
import type { Command } from '../../store/commands.ts'
import { isPurseMove, operationDone, operationHeld, operationReleased, operationReturned } from '../../store/keys.ts'
import { settleSpend } from '../../store/money/budgets.ts'
import { type Posting, postEntry } from '../../store/money/ledger.ts'
import { moveOperation, type OperationRow, setTokenState } from '../../store/money/operations.ts'
import { dropProofs, restoreAccount } from '../../store/money/proof-books.ts'
import { insertProofs, moveProofs, type ProofRow } from '../../store/money/proofs.ts'
import { moveQuote } from '../../store/money/quotes.ts'
import { insertWalletEvent } from '../../store/money/wallet-events.ts'
import { feeAccount, heldAccount, lostAccount, msatsOf, walletAccount } from '../context.ts'
import type { FreshProof } from '../ecash/crypto.ts'
import { encodeToken } from '../ecash/token.ts'
import type { WalletEvent } from '../types.ts'
import type { MeltPlan, MintPlan, Plan, ReceivePlan, SendPlan, TransferPlan } from './machine.ts'
import { proofRow } from './unblinding.ts'

/** Fresh proofs with what they are for. */
export interface PurposedProof extends FreshProof {
  readonly purpose: 'keep' | 'send' | 'peer'
}

export interface Ending {
  readonly operation: OperationRow
  readonly proofs: readonly PurposedProof[]
  /** Sats that the mint signed for us in a way that can't be used: not in the wallet, but not spent either. */
  readonly owedSats?: bigint
  /** Of a paid melt; empty where the mint gave none, or a wrong one. */
  readonly preimage?: string
  /** A send that gives away proofs as they are. */
  readonly reused?: readonly ProofRow[]
  readonly reason: string
  readonly at: number
}

/** How long until a sent token is looked at for the first time. */
const FIRST_TOKEN_CHECK_MS = 2000

const worth = (proofs: readonly { amount: number }[]): bigint => proofs.reduce((sum, proof) => sum + BigInt(proof.amount), 0n)

/** Commands that complete an operation. Runs once: the move of the operation refuses a second time. */
export function completion(ending: Ending): Command<unknown>[] {
  const { operation, at, reason } = ending
  const plan = operation.plan as Plan
  const kinds = {
    mint: () => completeMint(ending, plan as MintPlan),
    receive: () => completeReceive(ending, plan as ReceivePlan),
    send: () => completeSend(ending, plan as SendPlan),
    melt: () => completeMelt(ending, plan as MeltPlan),
    transfer: () => completeTransfer(ending, plan as TransferPlan),
  }
  const { postings, result, token, commands } = kinds[plan.kind]()
  const spentInputs = plan.kind === 'receive' ? [] : plan.inputs.map((input) => input.y)
  return [
    moveOperation({
      id: operation.id,
      to: 'completed',
      reason,
      at,
      nextTryAt: token ? at + FIRST_TOKEN_CHECK_MS : null,
      result,
      ...(token ? { tokenState: 'pending' as const } : {}),
    }),
    moveProofs({
      ys: spentInputs,
      from: 'reserved',
      to: ending.reused === undefined ? 'spent' : 'sent',
      operationId: operation.id,
      at,
    }),
    insertProofs({ proofs: rowsOf(operation, plan, ending.proofs), at }),
    postEntry({ id: operationDone.of(operation.id), cause: operation.cause, at, memo: plan.kind, postings }),
    ...commands,
  ]
}

const asTokenProof = ({ id, amount, secret, C, dleq }: FreshProof) => ({ id, amount, secret, C, ...(dleq === null ? {} : { dleq }) })

interface KindEnding {
  readonly postings: readonly Posting[]
  readonly result: unknown
  readonly token?: boolean
  readonly commands: readonly Command<unknown>[]
}

function completeMint({ operation, proofs, at, owedSats = 0n }: Ending, plan: MintPlan): KindEnding {
  // It was paid in full, whatever the mint made of it.
  const amount = worth(proofs) + owedSats
  return {
    postings: [...credited(operation, amount, plan.creditAccount), ...owing(operation, owedSats)],
    result: { amount_sats: Number(amount) },
    commands: [
      moveQuote({ id: plan.quoteRow, from: ['unpaid', 'paid', 'expired'], to: 'settled', nextCheckAt: null, at }),
      ...tellOf(
        plan.invoiceKey,
        { type: 'invoice_settled', ...eventBase(operation), amountSats: sats(amount), idempotencyKey: plan.invoiceKey },
        at,
      ),
    ],
  }
}

function completeReceive({ operation, proofs, at, owedSats = 0n }: Ending, plan: ReceivePlan): KindEnding {
  const amount = worth(proofs) + owedSats
  const result = { amount_sats: Number(amount) }
  if (plan.reclaims === undefined) {
    const event = {
      type: 'token_received' as const,
      ...eventBase(operation),
      amountSats: sats(amount),
      idempotencyKey: operation.idempotencyKey,
    }
    // Ours already, as after restoring a backup that is older than the token: the books give them up before they get them.
    const ys = plan.inputs.map((input) => input.y)
    const returned = { entryId: operationReturned.of(operation.id), cause: operation.cause, memo: 'came back as a token', at, ys }
    const postings = [...credited(operation, amount, plan.creditAccount), ...owing(operation, owedSats)]
    return { postings, result, commands: [dropProofs(returned), tell(event, at)] }
  }
  const fee = BigInt(plan.faceSats) - amount
  return {
    postings: [
      ...credited(operation, amount, plan.creditAccount),
      ...owing(operation, owedSats),
      { account: feeAccount(operation.owner), amountMsats: msatsOf(fee) },
      { account: plan.creditAccount, amountMsats: -msatsOf(fee) },
    ],
    result,
    commands: [
      moveProofs({ ys: plan.inputs.map((input) => input.y), from: 'sent', to: 'spent', operationId: plan.reclaims, at }),
      setTokenState({ id: plan.reclaims, to: 'reclaimed', nextTryAt: null, at }),
    ],
  }
}

function completeSend({ operation, proofs, reused, owedSats = 0n }: Ending, plan: SendPlan): KindEnding {
  const given =
    reused?.map(({ keysetId, amountSats, secret, c, dleq }) => ({
      id: keysetId,
      amount: Number(amountSats),
      secret,
      C: c,
      ...(dleq === null ? {} : { dleq }),
    })) ?? proofs.filter((proof) => proof.purpose === 'send').map(asTokenProof)
  const extra = plan.faceSats - plan.amountSats + plan.inputFeeSats
  return {
    postings: [
      { account: heldAccount(operation.owner, operation.id), amountMsats: -msatsOf(operation.heldSats) },
      { account: plan.debitAccount, amountMsats: msatsOf(plan.amountSats) },
      { account: feeAccount(operation.owner), amountMsats: msatsOf(extra) },
      ...owing(operation, owedSats),
    ],
    result: { token: encodeToken(operation.mintUrl, given), fee_sats: extra + (plan.swapFeeSats ?? 0) },
    token: true,
    commands: [settleSpend({ operationId: operation.id, state: 'spent', amountSats: operation.heldSats })],
  }
}

function completeMelt({ operation, proofs, preimage, at, owedSats = 0n }: Ending, plan: MeltPlan): KindEnding {
  const spent = worth(plan.inputs) - worth(proofs)
  const left = operation.heldSats - spent
  const over = spent - BigInt(plan.amountSats)
  // A mint may claim any change, and give more than was due: what is neither fee nor change is as if found.
  const owed = over < 0n ? over : owedSats < over ? owedSats : over
  const fee = over - owed
  const costSats = fee + BigInt(plan.swapFeeSats ?? 0)
  const key = operation.idempotencyKey
  // Between own mints only the fee leaves.
  const leaves = isPurseMove(key) ? over : spent
  return {
    postings: [
      { account: heldAccount(operation.owner, operation.id), amountMsats: -msatsOf(operation.heldSats) },
      { account: plan.debitAccount, amountMsats: msatsOf(plan.amountSats) },
      { account: feeAccount(operation.owner), amountMsats: msatsOf(fee) },
      { account: restoreAccount(accountOwner(operation.owner)), amountMsats: msatsOf(owed) },
      { account: walletAccount(operation.owner, operation.mintUrl), amountMsats: msatsOf(left) },
    ],
    result: { preimage: preimage ?? '', fee_sats: Number(costSats) },
    commands: [
      settleSpend({ operationId: operation.id, state: 'spent', amountSats: leaves < 0n ? 0n : leaves }),
      ...tellOf(key, { type: 'payment_settled', ...eventBase(operation), idempotencyKey: key, feeSats: sats(costSats) }, at),
    ],
  }
}

function completeTransfer({ operation, owedSats = 0n }: Ending, plan: TransferPlan): KindEnding {
  // Between own coins only the fee leaves.
  const costSats = plan.to.pubkey === operation.owner.pubkey ? BigInt(plan.inputFeeSats) : operation.heldSats
  return {
    postings: [
      { account: heldAccount(operation.owner, operation.id), amountMsats: -msatsOf(operation.heldSats) },
      { account: walletAccount(plan.to, operation.mintUrl), amountMsats: msatsOf(plan.amountSats) },
      { account: feeAccount(operation.owner), amountMsats: msatsOf(plan.inputFeeSats) },
      ...owing(operation, owedSats),
    ],
    result: { amount_sats: plan.amountSats, fee_sats: plan.inputFeeSats + (plan.swapFeeSats ?? 0) },
    commands: [settleSpend({ operationId: operation.id, state: 'spent', amountSats: costSats })],
  }
}

/**
 * Commands that complete a send with the token that was made before, in a database that is lost. What it cost left the
 * wallet then: a restore found it missing and posted it so. Now nothing leaves, and the inputs stay.
 */
export function adoption(operation: OperationRow, plan: SendPlan, proofs: readonly FreshProof[], at: number): Command<unknown>[] {
  const { id, owner, mintUrl, cause, heldSats } = operation
  const given = worth(proofs)
  return [
    moveOperation({
      id,
      to: 'completed',
      reason: 'the token was made before',
      at,
      nextTryAt: at + FIRST_TOKEN_CHECK_MS,
      result: { token: encodeToken(mintUrl, proofs.map(asTokenProof)), fee_sats: Number(given) - plan.amountSats },
      tokenState: 'pending',
    }),
    moveProofs({ ys: plan.inputs.map((input) => input.y), from: 'reserved', to: 'unspent', operationId: null, at }),
    insertProofs({
      proofs: rowsOf(
        operation,
        plan,
        proofs.map((proof) => ({ ...proof, purpose: 'send' })),
      ),
      at,
    }),
    postEntry({
      id: operationDone.of(id),
      cause,
      at,
      memo: 'send, made before',
      postings: [
        { account: heldAccount(owner, id), amountMsats: -msatsOf(heldSats) },
        { account: walletAccount(owner, mintUrl), amountMsats: msatsOf(heldSats) },
        { account: plan.debitAccount, amountMsats: msatsOf(plan.amountSats) },
        { account: feeAccount(owner), amountMsats: msatsOf(given) - msatsOf(plan.amountSats) },
        { account: restoreAccount(accountOwner(owner)), amountMsats: -msatsOf(given) },
      ],
    }),
    settleSpend({ operationId: id, state: 'released', amountSats: 0n }),
  ]
}

/** Commands that fail an operation. @param spentYs inputs of ours that the mint says are spent: gone, and posted as lost. */
export function failure(
  operation: OperationRow,
  options: { code: ErrorCode; reason: string; spentYs: ReadonlySet<string>; at: number },
): Command<unknown>[] {
  const { code, reason, spentYs, at } = options
  const plan = operation.plan as Plan
  const ours = plan.kind === 'receive' || plan.kind === 'mint' ? [] : plan.inputs
  const lost = ours.filter((input) => spentYs.has(input.y))
  const back = ours.filter((input) => !spentYs.has(input.y)).map((input) => input.y)
  const base = { id: operation.id, at }
  const event = { ...eventBase(operation), idempotencyKey: operation.idempotencyKey, reason }
  const memo = 'spent elsewhere, as the mint says'
  const elsewhere = { entryId: operationReturned.of(operation.id), cause: operation.cause, memo, at, ys: [...spentYs] }
  return [
    moveOperation({ ...base, to: 'failed', reason, nextTryAt: null, error: { code, message: reason } }),
    moveProofs({ ys: back, from: 'reserved', to: 'unspent', operationId: null, at }),
    moveProofs({ ys: lost.map((input) => input.y), from: 'reserved', to: 'spent', operationId: operation.id, at }),
    postEntry({
      id: operationReleased.of(operation.id),
      cause: operation.cause,
      at,
      memo: `${plan.kind} failed`,
      postings: [
        { account: heldAccount(operation.owner, operation.id), amountMsats: -msatsOf(operation.heldSats) },
        { account: walletAccount(operation.owner, operation.mintUrl), amountMsats: msatsOf(operation.heldSats) - msatsOf(worth(lost)) },
        { account: lostAccount(operation.owner), amountMsats: msatsOf(worth(lost)) },
      ],
    }),
    settleSpend({ operationId: operation.id, state: 'released', amountSats: 0n }),
    ...(plan.kind === 'receive' && spentYs.size > 0 ? [dropProofs(elsewhere)] : []),
    ...(plan.kind === 'melt' ? tellOf(operation.idempotencyKey, { type: 'payment_failed', ...event }, at) : []),
    ...(plan.kind === 'receive' && plan.reclaims === undefined ? [tell({ type: 'receive_failed', ...event }, at)] : []),
    ...(plan.kind === 'mint'
      ? [moveQuote({ id: plan.quoteRow, from: ['unpaid', 'paid', 'expired'], to: 'closed', reason, nextCheckAt: null, at })]
      : []),
  ]
}

/** Value of a spend goes into held when it is prepared. */
export function holding(operation: Pick<OperationRow, 'id' | 'owner' | 'mintUrl' | 'heldSats' | 'cause'>, at: number): Command<unknown> {
  return postEntry({
    id: operationHeld.of(operation.id),
    cause: operation.cause,
    at,
    postings: [
      { account: walletAccount(operation.owner, operation.mintUrl), amountMsats: -msatsOf(operation.heldSats) },
      { account: heldAccount(operation.owner, operation.id), amountMsats: msatsOf(operation.heldSats) },
    ],
  })
}

function credited(operation: OperationRow, amountSats: bigint, creditAccount: Account): Posting[] {
  return [
    { account: walletAccount(operation.owner, operation.mintUrl), amountMsats: msatsOf(amountSats) },
    { account: creditAccount, amountMsats: -msatsOf(amountSats) },
  ]
}

/** What a mint owes is out of the wallet until it is collected, which finds it as a restore does. */
function owing(operation: OperationRow, owedSats: bigint): Posting[] {
  return [
    { account: walletAccount(operation.owner, operation.mintUrl), amountMsats: -msatsOf(owedSats) },
    { account: restoreAccount(accountOwner(operation.owner)), amountMsats: msatsOf(owedSats) },
  ]
}

/** What came, each coin in the wallet of its owner; what is given away is known by the operation that gave it. */
const rowsOf = ({ id, owner, mintUrl }: OperationRow, plan: Plan, proofs: readonly PurposedProof[]): ProofRow[] =>
  proofs.map((proof) => {
    const ownerPubkey = proof.purpose === 'peer' && plan.kind === 'transfer' ? plan.to.pubkey : owner.pubkey
    return proofRow(proof, { ownerPubkey, mintUrl }, proof.purpose === 'send' ? id : undefined)
  })

function eventBase(operation: OperationRow): Pick<WalletEvent, 'cause' | 'owner'> {
  return { cause: operation.cause, owner: operation.owner }
}

/** What moves between own mints concerns nobody but the purse. @param key of what ended */
const tellOf = (key: string, event: WalletEvent, at: number): Command<void>[] => (isPurseMove(key) ? [] : [tell(event, at)])

/** An event as it is stored: bigint amounts become JSON integers, and bigint again when it is told. */
function tell(event: WalletEvent, at: number): Command<void> {
  return insertWalletEvent({ causeType: event.cause.type, event, at })
}
