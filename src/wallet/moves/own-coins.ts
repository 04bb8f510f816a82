/** Swaps of own coins for others of ours, and the transfers that all of them are: many small ones into few, one that fits, out of an old keyset. */
import type { WalletOwner } from '../../base/accounts.ts'
import { PylonError } from '../../base/errors.ts'
import { breakKey, gatherKey } from '../../store/keys.ts'
import type { KeysetRow } from '../../store/money/keysets.ts'
import type { Cause } from '../../store/money/ledger.ts'
import type { OperationRow } from '../../store/money/operations.ts'
import { listProofs } from '../../store/money/proofs.ts'
import { newId, requestDigest } from '../context.ts'
import { coinsToMerge, coinsToMove, inputFee, selectCoins, sumOf } from '../ecash/coins.ts'
import type { TransferPlan } from '../operations/machine.ts'
import { storedError } from '../operations/outcomes.ts'
import { amountsFor, inputsOf, makeOutputs, swapBody } from '../operations/requests.ts'
import type { BoundSpend } from '../policy/spends.ts'
import { type Funds, type OwnCoin, plannedInput } from './funds.ts'

/** After that a request is sent as it is: the mint says whether it is too large. */
const MAX_ROUNDS = 100
/** So many swaps for one request may fail: its mint is not one to ask at once again. */
const MAX_FAILED = 3

type Choose = (own: readonly OwnCoin[]) => readonly OwnCoin[] | undefined

/** What own coins are swapped for: whose cost that is, and whether it may be. */
export interface SwapsFor {
  readonly idempotencyKey: string
  readonly cause: Cause
  readonly spend: BoundSpend
  /** Called before each, with its fee; throws where that must not leave. */
  readonly admit: (feeSats: bigint) => void
}

export class OwnCoins {
  readonly #funds: Funds

  constructor(funds: Funds) {
    this.#funds = funds
  }

  /**
   * Chooses coins for one request. Where it would take too many, as of a wallet that earned in small coins, they are made
   * into few large ones first, which costs what spending them costs. Inside the queue of choosing.
   * @throws insufficient_funds, and what `admit` throws
   */
  async gather(mintUrl: string, swaps: SwapsFor, choose: Choose): Promise<readonly OwnCoin[]> {
    for (let round = 0, failed = 0; ; round++) {
      const coins = await this.#funds.chooseCoins(mintUrl, choose)
      const max = this.#funds.context.mints.maxInputs(mintUrl)
      if (coins.length <= max || round === MAX_ROUNDS) return coins
      const keyset = await this.#funds.context.mints.activeKeyset(mintUrl)
      const some = coinsToMerge(coins, max, Object.keys(keyset.keys).map(BigInt))
      if (some === undefined) throw tooSmallCoins(mintUrl, max, sumOf(coins))
      const key = gatherKey(swaps.idempotencyKey, mintUrl, round)
      const swapped = await this.#swapOwn(mintUrl, key, sumOf(some) - inputFee(some), () => some, swaps)
      // Coins that were spent elsewhere are known to be by then, and so is how many the mint takes: chosen again it may go.
      if (swapped.state === 'failed' && ++failed === MAX_FAILED) throw storedError(swapped)
    }
  }

  /** Breaks our own coins at one mint so that `amountSats` of them fit exactly. Whether it worked shows when coins are chosen next. */
  async breakCoins(mintUrl: string, amountSats: bigint, swaps: SwapsFor): Promise<void> {
    const key = breakKey(swaps.idempotencyKey, mintUrl)
    await this.#swapOwn(mintUrl, key, amountSats, (own) => selectCoins(own, amountSats), swaps)
  }

  /** Swaps coins of keysets that sign no more, or soon will not, for coins of the active one. True when there may be more to move. */
  moveCoins(
    mintUrl: string,
    oldKeysets: ReadonlySet<string>,
    idempotencyKey: string,
    how: { endsSoon: boolean; mayCost: bigint },
  ): Promise<boolean> {
    return this.#funds.choosing.run('', async () => {
      const { store, mints } = this.#funds.context
      const active = await mints.activeKeyset(mintUrl)
      // There is none that lasts longer.
      if (oldKeysets.has(active.id)) return false
      const free = listProofs(store, { pubkey: this.#funds.owner.pubkey, mintUrl, state: 'unspent' })
      const old = this.#funds.withFees(mintUrl, free).filter((coin) => oldKeysets.has(coin.keysetId))
      const coins = coinsToMove(old, { ...how, max: mints.maxInputs(mintUrl) })
      if (coins.length === 0) return false
      // Bounded by the choice above.
      const cause = { type: 'transfer' as const, id: idempotencyKey }
      const swaps = { idempotencyKey, cause, spend: this.#funds.bind({ cause }, 'own'), admit: () => {} }
      const { state } = await this.#swapOwn(mintUrl, idempotencyKey, sumOf(coins) - inputFee(coins), () => coins, swaps)
      return state === 'completed'
    })
  }

  /** Swaps coins of ours for others of ours; one that failed under this key is tried again. Inside the queue of choosing. */
  async #swapOwn(mintUrl: string, idempotencyKey: string, amountSats: bigint, choose: Choose, swaps: SwapsFor): Promise<OperationRow> {
    const digest = requestDigest('break', { owner: this.#funds.owner.pubkey, mintUrl })
    const known = await this.#funds.existing({ idempotencyKey, retryFailed: true }, digest)
    const insert = async () => {
      const coins = await this.#funds.chooseCoins(mintUrl, choose)
      swaps.admit(inputFee(coins))
      const keyset = await this.#funds.context.mints.activeKeyset(mintUrl)
      const { cause, spend } = swaps
      const peers = amountsFor(amountSats, keyset)
      return await this.insertTransfer({ to: this.#funds.owner, peers, mintUrl, keyset, coins, idempotencyKey, digest, cause, spend })
    }
    return this.#funds.executor.run(known?.id ?? (await insert()))
  }

  /** Inside the queue of choosing. */
  async insertTransfer(transfer: {
    readonly to: WalletOwner
    /** What the other wallet gets, coin by coin. */
    readonly peers: readonly number[]
    readonly mintUrl: string
    readonly keyset: KeysetRow
    readonly coins: readonly OwnCoin[]
    readonly idempotencyKey: string
    readonly digest: string
    readonly cause: Cause
    readonly spend: BoundSpend
  }): Promise<string> {
    const { to, peers, mintUrl, keyset, coins, idempotencyKey, digest, cause, spend } = transfer
    const fee = inputFee(coins)
    const amountSats = peers.reduce((sum, amount) => sum + BigInt(amount), 0n)
    const outputs = await makeOutputs(this.#funds.context, keyset, [
      { purpose: 'peer', amounts: peers, owner: to },
      { purpose: 'keep', amounts: this.#funds.spread(sumOf(coins) - fee - amountSats, keyset), owner: this.#funds.owner },
    ])
    const swapFeeSats = this.#funds.swapFeeSats(idempotencyKey)
    const plan: TransferPlan = {
      kind: 'transfer',
      path: '/v1/swap',
      body: swapBody(inputsOf(coins), outputs),
      inputs: coins.map(plannedInput),
      outputs,
      to,
      amountSats: Number(amountSats),
      inputFeeSats: Number(fee),
      ...(swapFeeSats === 0n ? {} : { swapFeeSats: Number(swapFeeSats) }),
    }
    const operation = {
      ...this.#funds.base(newId(this.#funds.context), { idempotencyKey, cause }, digest, mintUrl),
      kind: 'transfer' as const,
      amountSats,
      heldSats: amountSats + fee,
      plan,
    }
    await this.#funds.insertSpend(operation, spend, undefined)
    return operation.id
  }
}

/** What it would cost beyond the amount, and what was allowed. */
export function tooDear(feeSats: bigint, maxFeeSats: bigint): PylonError {
  return new PylonError(
    'payment_failed',
    `With all fees of the mint it would cost ${feeSats} sats beyond the amount, and at most ${maxFeeSats} are allowed.`,
    { details: { fee_sats_needed: Number(feeSats), max_fee_sats: Number(maxFeeSats) } },
  )
}

function tooSmallCoins(mintUrl: string, max: number, sum: bigint): PylonError {
  return new PylonError(
    'mint_rejected',
    `${mintUrl} takes ${max} coins at once, and the ${sum} sats that this needs are in more, too small to be made into larger ones: send or pay less at a time.`,
  )
}
