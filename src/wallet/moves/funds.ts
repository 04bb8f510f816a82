/** What all moves of one wallet share: its keys in use, the choice of proofs, and the one commit that begins a spend. */
import { type Account, accountOwner, isNwcDetail, type WalletOwner } from '../../base/accounts.ts'
import { howToFund } from '../../base/advice.ts'
import { sats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { all, type Command } from '../../store/commands.ts'
import { isPurseMove } from '../../store/keys.ts'
import type { KeysetRow } from '../../store/money/keysets.ts'
import { balancesOf, type Cause, depositsByMint } from '../../store/money/ledger.ts'
import { mintHealths } from '../../store/money/mints.ts'
import {
  atRiskSats,
  freeFailedKey,
  insertOperation,
  type NewOperation,
  type OperationRow,
  operationByKey,
} from '../../store/money/operations.ts'
import { listProofs, moveProofs, type ProofRow } from '../../store/money/proofs.ts'
import { betweenMintsSats } from '../../store/money/purse-moves.ts'
import { paidUnissuedSats } from '../../store/money/quotes.ts'
import { swapFeesOf } from '../../store/money/swap-fees.ts'
import type { WalletContext } from '../context.ts'
import type { Executor } from '../operations/executor.ts'
import type { Plan } from '../operations/machine.ts'
import { spreadFor } from '../operations/requests.ts'
import type { Restores } from '../operations/restores.ts'
import { completion, holding } from '../operations/settlement.ts'
import type { Rail } from '../policy/judge.ts'
import { assertMaySpend, type BoundSpend, bindSpend, holdsFor, isDepositOf } from '../policy/spends.ts'
import type { Balance, Spend } from '../types.ts'

/** A proof with the fee of spending it. */
export type OwnCoin = ProofRow & { readonly feePpk: number }

/** How often an operation is made smaller. */
const MAX_SMALLER = 8
/** How long a spend waits for change that is on its way back. */
const CHANGE_WAIT_MS = 5000

export class Funds {
  readonly owner: WalletOwner
  readonly context: WalletContext
  readonly executor: Executor
  /** Proofs are chosen by one request at a time. */
  readonly choosing = new KeyedQueue()
  /** An idempotency key is used by one call at a time. */
  readonly keys = new KeyedQueue()

  readonly #restores: Restores

  constructor(owner: WalletOwner, parts: { readonly context: WalletContext; readonly executor: Executor; readonly restores: Restores }) {
    this.owner = owner
    this.context = parts.context
    this.executor = parts.executor
    this.#restores = parts.restores
  }

  balance(): Balance {
    const { store } = this.context
    const sums = balancesOf(store, accountOwner(this.owner), 'wallet')
    const owedAt = this.#owed()
    const mintsOut = mintHealths(store).map(({ url, state, reason }) => ({
      url,
      balanceSats: sats((sums.get(url) ?? 0n) / 1000n),
      owedSats: sats(owedAt.get(url) ?? 0n),
      state,
      ...(reason === null ? {} : { reason }),
    }))
    const total = [...sums].reduce((sum, [detail, value]) => (isNwcDetail(detail) ? sum : sum + value), 0n)
    const owed = [...owedAt.values()].reduce((sum, value) => sum + value, 0n)
    return {
      balanceSats: sats(total / 1000n),
      owedSats: sats(owed),
      atRiskSats: sats(
        atRiskSats(store, this.owner.pubkey) + paidUnissuedSats(store, this.owner.pubkey) + betweenMintsSats(store, this.owner.pubkey),
      ),
      mints: mintsOut,
    }
  }

  /** Sats that may have to go back to customers, by the mint that holds them. */
  #owed(): Map<string, bigint> {
    const deposits = depositsByMint(this.context.store, accountOwner(this.owner))
    // What lies in the owner's Lightning wallet is not ours to keep back.
    deposits.delete('')
    return new Map([...deposits].map(([mintUrl, owedMsats]) => [mintUrl, (owedMsats + 999n) / 1000n]))
  }

  /** Refunds may spend what is owed; others only where that was asked for. */
  maySpendOwed(move: { readonly debitAccount: Account; readonly includeOwed?: boolean }): boolean {
    return move.includeOwed === true || isDepositOf(this.owner, move.debitAccount)
  }

  /** That enough stays for refunds. @throws funds_owed */
  assertNotOwed(mintUrl: string, amountSats: bigint): void {
    const mint = this.balance().mints.find(({ url }) => url === mintUrl)
    if (mint === undefined || mint.owedSats === 0n) return
    if (mint.balanceSats - amountSats < mint.owedSats) throw this.#tooMuchOwed(amountSats, mint)
  }

  #tooMuchOwed(amountSats: bigint, { url: mintUrl, balanceSats: held, owedSats: owed }: Balance['mints'][number]): PylonError {
    const free = held > owed ? held - owed : 0n
    return new PylonError(
      'funds_owed',
      `${amountSats} sats with fees are more than the ${free} that are free at ${mintUrl}: ${owed} of ${held} were paid by customers whose jobs and leases are not settled. Wait for that, or take them all the same with --include-owed (pylon wallet send, pay).`,
      { details: { owed_sats: Number(owed), free_sats: Number(free) } },
    )
  }

  /**
   * The operation under this key, when it is the same request. With `retryFailed` the key alone says what it is: one that is under
   * way or done stays as it was, and one that failed frees its key, whatever is asked now. A refund may be of another mint, a
   * nutzap of fewer coins than when it was tried first. @throws idempotency_conflict
   */
  async existing(
    request: { readonly idempotencyKey: string; readonly retryFailed?: boolean },
    digest: string,
  ): Promise<OperationRow | undefined> {
    const operation = operationByKey(this.context.store, request.idempotencyKey)
    if (request.retryFailed === true) {
      if (operation?.state !== 'failed') return operation
      await this.context.store.write(freeFailedKey({ id: operation.id }))
      return undefined
    }
    if (operation !== undefined && operation.requestDigest !== digest) {
      throw new PylonError('idempotency_conflict', 'This idempotency key was used for another request: use a new one.')
    }
    return operation
  }

  /** Runs an operation; one that its mint refused for the number of its inputs is prepared again with fewer. */
  async run(known: string | undefined, prepare: () => Promise<string>): Promise<OperationRow> {
    let operation = await this.executor.run(known ?? (await prepare()))
    for (let again = 0; again < MAX_SMALLER && this.hadTooManyInputs(operation); again++) {
      await this.context.store.write(freeFailedKey({ id: operation.id }))
      operation = await this.executor.run(await prepare())
    }
    return operation
  }

  /** Whether its mint takes fewer at once, as is known by now. */
  hadTooManyInputs({ state, plan, mintUrl }: OperationRow): boolean {
    return state === 'failed' && ((plan as Partial<Plan>).inputs?.length ?? 0) > this.context.mints.maxInputs(mintUrl)
  }

  base(
    id: string,
    request: { idempotencyKey: string; cause: NewOperation['cause'] },
    digest: string,
    mintUrl: string,
  ): Pick<NewOperation, 'id' | 'owner' | 'mintUrl' | 'idempotencyKey' | 'requestDigest' | 'cause'> {
    return { id, owner: this.owner, mintUrl, idempotencyKey: request.idempotencyKey, requestDigest: digest, cause: request.cause }
  }

  /** Whose limits a move is bound by. @throws internal where nobody says */
  bind(move: { readonly cause: Cause; readonly debitAccount?: Account }, rail: Rail, spend?: Spend): BoundSpend {
    return bindSpend(this.context, { ...move, owner: this.owner, rail }, spend)
  }

  /** Before anything that costs a fee is done for a spend. @param besidesSats what swaps for it have cost, which the books have already @throws budget_exceeded, spend_refused */
  assertMaySpend(spend: BoundSpend, amountSats: bigint, besidesSats = 0n): void {
    assertMaySpend(this.context, spend, { amountSats, besidesSats })
  }

  /** Operation, reserved inputs, held value and held budget in one commit; where proofs go as they are, the end of it too. */
  async insertSpend(
    operation: Omit<NewOperation, 'at'>,
    spend: BoundSpend,
    reused: readonly ProofRow[] | undefined,
    besidesSats = 0n,
  ): Promise<void> {
    const { store, clock } = this.context
    const at = clock.now()
    const plan = operation.plan as Plan
    const commands: Command<unknown>[] = [
      insertOperation({ ...operation, at }),
      moveProofs({ ys: plan.inputs.map((input) => input.y), from: 'unspent', to: 'reserved', operationId: operation.id, at }),
      holding(operation, at),
      ...holdsFor(ofPlan(spend, plan), { operationId: operation.id, amountSats: costOf(operation, plan), besidesSats, at }),
    ]
    if (reused !== undefined) {
      const fresh: OperationRow = {
        ...operation,
        state: 'prepared',
        result: null,
        error: null,
        tokenState: null,
        paymentHash: operation.paymentHash ?? null,
        attempts: 0,
        tries: 0,
        nextTryAt: null,
        createdAt: at,
        updatedAt: at,
      }
      commands.push(...completion({ operation: fresh, proofs: [], reused, reason: 'proofs fit as they are', at }))
    }
    await store.write(all(...commands))
  }

  /** Chooses among free proofs; where change is on its way back, waits for it. @throws insufficient_funds, mint_unreachable */
  async chooseCoins(mintUrl: string, choose: (coins: readonly OwnCoin[]) => readonly OwnCoin[] | undefined): Promise<readonly OwnCoin[]> {
    const { clock } = this.context
    await this.#restores.ensureChecked(this.owner, mintUrl)
    const until = clock.now() + CHANGE_WAIT_MS
    for (;;) {
      const own = this.withFees(mintUrl, listProofs(this.context.store, { pubkey: this.owner.pubkey, mintUrl, state: 'unspent' }))
      const chosen = choose(own)
      if (chosen !== undefined) return chosen
      const leftMs = until - clock.now()
      if (leftMs <= 0 || !(await this.executor.nextEnd(this.owner, mintUrl, leftMs))) throw this.insufficient()
    }
  }

  /** Sats that swaps of own coins for the move under this key have cost by now. */
  swapFeeSats(idempotencyKey: string): bigint {
    return swapFeesOf(this.context.store, accountOwner(this.owner), idempotencyKey) / 1000n
  }

  /** Amounts of coins that a wallet of this home is to have, with the small ones that it lacks at this mint. */
  spread(total: bigint, keyset: KeysetRow, pubkey = this.owner.pubkey): number[] {
    if (total <= 0n) return []
    return spreadFor(total, keyset, listProofs(this.context.store, { pubkey, mintUrl: keyset.mintUrl, state: 'unspent' }))
  }

  withFees(mintUrl: string, rows: readonly ProofRow[]): OwnCoin[] {
    const fees = new Map(this.context.mints.keysets(mintUrl).map((keyset) => [keyset.id, keyset.inputFeePpk]))
    return rows.map((row) => ({ ...row, feePpk: fees.get(row.keysetId) ?? 0 }))
  }

  /**
   * Mints where the books say that this wallet has at least `amount`, healthy ones first, then the fullest.
   * @param owedToo whether what is owed to customers counts.
   * @throws funds_owed when only that would do
   */
  mintsHolding(amount: bigint, owedToo: boolean): string[] {
    const free = (mint: Balance['mints'][number]) => mint.balanceSats - (owedToo ? 0n : mint.owedSats)
    const { mints } = this.balance()
    const found = mints
      .filter((mint) => free(mint) >= amount)
      .sort((a, b) => (a.state === b.state ? Number(free(b) - free(a)) : a.state === 'ok' ? -1 : 1))
    const owing = found.length > 0 ? undefined : mints.find((mint) => mint.balanceSats >= amount)
    if (owing !== undefined) throw this.#tooMuchOwed(amount, owing)
    return found.map((mint) => mint.url)
  }

  /** @throws insufficient_funds, funds_owed, mint_not_allowed */
  async mintToSpend(wanted: string | undefined, amount: bigint, owedToo: boolean): Promise<string> {
    if (wanted !== undefined) return this.context.mints.get(wanted).url
    const found = this.mintsHolding(amount, owedToo)[0]
    if (found === undefined) throw this.insufficient(amount)
    return found
  }

  insufficient(amount?: bigint): PylonError {
    const { balanceSats } = this.balance()
    const heldSats = atRiskSats(this.context.store, this.owner.pubkey)
    const needed = amount === undefined ? 'the amount and its fees' : `${amount} sats at one mint`
    const held = heldSats > 0n ? ` (${heldSats} more are held by payments under way)` : ''
    return new PylonError(
      'insufficient_funds',
      `The wallet holds ${balanceSats} sats${held}, not ${needed}: fund it with ${howToFund(this.context.invoiceNetwork === 'bcrt' ? 'sandbox' : 'live')}`,
    )
  }
}

/** What leaves the owner: of a swap of own coins, and of a move to another mint, only the fee. */
function costOf(operation: Pick<NewOperation, 'owner' | 'heldSats' | 'amountSats' | 'idempotencyKey'>, plan: Plan): bigint {
  if (isPurseMove(operation.idempotencyKey)) return operation.heldSats - operation.amountSats
  return plan.kind === 'transfer' && plan.to.pubkey === operation.owner.pubkey ? BigInt(plan.inputFeeSats) : operation.heldSats
}

/** A swap for a payment goes nowhere itself. */
const ofPlan = (spend: BoundSpend, plan: Plan): BoundSpend => (plan.kind === 'transfer' ? { ...spend, rail: 'own' } : spend)

export const plannedInput = (proof: ProofRow) => ({ y: proof.y, amount: Number(proof.amountSats) })

/** @throws amount_invalid */
export function assertPositive(amount: bigint): void {
  if (amount <= 0n) throw new PylonError('amount_invalid', 'The amount must be at least 1 sat.')
}
