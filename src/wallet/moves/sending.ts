/** Gives ecash away: as a token, or to another wallet of this home. */
import type { WalletOwner } from '../../base/accounts.ts'
import { type Sats, sats } from '../../base/amounts.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { breakKey, gatherKey } from '../../store/keys.ts'
import type { KeysetRow } from '../../store/money/keysets.ts'
import type { Cause } from '../../store/money/ledger.ts'
import { operationByKey } from '../../store/money/operations.ts'
import { listProofs } from '../../store/money/proofs.ts'
import { newId, requestDigest } from '../context.ts'
import { coinsToMerge, coinsToMove, coverFee, inputFee, selectCoins, selectExact, splitAmount, sumOf } from '../ecash/coins.ts'
import type { SendPlan, TransferPlan } from '../operations/machine.ts'
import { asSentToken, storedError, unknownOutcome } from '../operations/outcomes.ts'
import { amountsFor, inputsOf, lockOfSend, makeOutputs, swapBody } from '../operations/requests.ts'
import { forgetSpent } from '../operations/restore.ts'
import type { SendRequest, SentToken, Spend, TransferOptions } from '../types.ts'
import { assertPositive, type OwnCoin, plannedInput, type WalletDesk } from './desk.ts'

/** After that a request is sent as it is: the mint says whether it is too large. */
const MAX_ROUNDS = 100

type Choose = (own: readonly OwnCoin[]) => readonly OwnCoin[] | undefined

/** What own coins are swapped for: whose cost that is, and whether it may be. */
export interface SwapsFor {
  readonly idempotencyKey: string
  readonly cause: Cause
  readonly spend?: Spend | undefined
  /** Called before each, with its fee; throws where that must not leave. */
  readonly admit: (feeSats: bigint) => void
}

export class Sending {
  readonly #desk: WalletDesk

  constructor(desk: WalletDesk) {
    this.#desk = desk
  }

  sendToken(request: SendRequest, spend?: Spend): Promise<SentToken> {
    const { amountSats, mintUrl, lockTo, debitAccount, coverReceiverFee = false, cause } = request
    const digest = requestDigest('send', {
      owner: this.#desk.owner.pubkey,
      amountSats,
      mintUrl,
      lockTo,
      debitAccount,
      coverReceiverFee,
      cause,
    })
    return this.#desk.keys.run(request.idempotencyKey, async () => {
      const known = this.#desk.existing(request.idempotencyKey, digest)
      const before = request.retryFailed === true ? await this.#desk.unlessFailed(known) : known
      const prepare = () => this.#desk.choosing.run('', () => this.#prepareSend(request, digest, spend))
      const operation = await this.#desk.run(before?.id, prepare)
      if (operation.state === 'failed') throw storedError(operation, this.#desk.swapFeeSats(request.idempotencyKey))
      if (operation.state !== 'completed') throw unknownOutcome(operation, 'The token was asked of its mint')
      return asSentToken(operation)
    })
  }

  sentToken(idempotencyKey: string): SentToken | undefined {
    const operation = operationByKey(this.#desk.context.store, idempotencyKey)
    return operation?.kind === 'send' && operation.state === 'completed' ? asSentToken(operation) : undefined
  }

  async #prepareSend(request: SendRequest, digest: string, spend: Spend | undefined): Promise<string> {
    const { lockTo, refundAfter, debitAccount } = request
    assertPositive(request.amountSats)
    if (lockTo !== undefined && !/^0[23][0-9a-f]{64}$/.test(lockTo)) {
      throw new PylonError('pubkey_invalid', 'The key to lock the token to must be 02 or 03 and 64 hex digits.')
    }
    const owedToo = this.#desk.maySpendOwed(request)
    const mintUrl = await this.#desk.mintToSpend(request.mintUrl, request.amountSats, owedToo)
    const keyset = await this.#desk.context.mints.activeKeyset(mintUrl)
    const sizes = Object.keys(keyset.keys).map(BigInt)
    const asked = request.coverReceiverFee === true ? coverFee(request.amountSats, sizes, keyset.inputFeePpk) : request.amountSats
    const lock = lockOfSend(this.#desk.context, this.#desk.owner, request.idempotencyKey, request)
    if (!owedToo) this.#desk.assertNotOwed(mintUrl, asked)
    const admit = (feeSats: bigint) => this.#admitFee(request, asked, feeSats, spend)
    const swaps: SwapsFor = { idempotencyKey: request.idempotencyKey, cause: request.cause, spend, admit }
    const choose = () => this.#coinsToSend(request, mintUrl, asked, swaps)
    const { coins, face } = await this.#soundCoins(lockTo === undefined, mintUrl, choose)
    const amountSats = face < request.amountSats ? sats(face) : request.amountSats
    const isExact = lockTo === undefined && sumOf(coins) === face
    const fee = isExact ? 0n : inputFee(coins)
    assertWorthSending(face, keyset)
    this.#admitFee(request, face, fee, spend)
    if (!owedToo) this.#desk.assertNotOwed(mintUrl, face + fee)
    const change = sumOf(coins) - fee - face
    const outputs = isExact
      ? []
      : await makeOutputs(this.#desk.context, keyset, [
          { purpose: 'send', amounts: amountsFor(face, keyset), owner: this.#desk.owner, ...lock },
          { purpose: 'keep', amounts: this.#desk.spread(change, keyset), owner: this.#desk.owner },
        ])
    const swapFeeSats = this.#desk.swapFeeSats(request.idempotencyKey)
    const plan: SendPlan = {
      kind: 'send',
      path: isExact ? '' : '/v1/swap',
      body: isExact ? '' : swapBody(inputsOf(coins), outputs),
      inputs: coins.map(plannedInput),
      outputs,
      debitAccount,
      amountSats: Number(amountSats),
      faceSats: Number(face),
      inputFeeSats: Number(fee),
      ...(swapFeeSats === 0n ? {} : { swapFeeSats: Number(swapFeeSats) }),
      ...(lockTo === undefined ? {} : { lockTo }),
      ...(refundAfter === undefined ? {} : { refundAfter }),
    }
    const operation = {
      ...this.#desk.base(newId(this.#desk.context), request, digest, mintUrl),
      kind: 'send' as const,
      amountSats,
      heldSats: face + fee,
      plan,
    }
    await this.#desk.insertSpend(operation, spend, isExact ? coins : undefined, swapFeeSats)
    return operation.id
  }

  /** Coins that go out as they are meet no mint on their way: it is asked first, so that no token is made of what was spent elsewhere. */
  async #soundCoins(
    mayBeExact: boolean,
    mintUrl: string,
    choose: () => Promise<{ coins: readonly OwnCoin[]; face: bigint }>,
  ): Promise<{ coins: readonly OwnCoin[]; face: bigint }> {
    for (;;) {
      const chosen = await choose()
      if (!mayBeExact || sumOf(chosen.coins) !== chosen.face) return chosen
      const gone = await this.#forgetSpent(mintUrl, chosen.coins)
      if (gone === 0n) return chosen
      this.#desk.context.logger.warn({ mint: mintUrl, sats: Number(gone) }, 'coins that the books held are spent at their mint')
    }
  }

  /** Sats that the mint says are spent. Where it does not answer the coins are as good as the books say. @throws what is no word of the mint */
  async #forgetSpent(mintUrl: string, coins: readonly OwnCoin[]): Promise<bigint> {
    try {
      return await forgetSpent(this.#desk.context, mintUrl, coins)
    } catch (error) {
      if (isPylonError(error, 'mint_unreachable') || isPylonError(error, 'mint_rejected')) return 0n
      throw error
    }
  }

  /** Whether this fee may leave too: within what the caller allows beyond the amount, and within the budget. @throws payment_failed, budget_exceeded */
  #admitFee(request: SendRequest, face: bigint, feeSats: bigint, spend: Spend | undefined): void {
    const { idempotencyKey, amountSats, maxFeeSats } = request
    const swapFeeSats = this.#desk.swapFeeSats(idempotencyKey)
    const extra = face > amountSats ? face - amountSats : 0n
    if (maxFeeSats !== undefined && extra + feeSats + swapFeeSats > maxFeeSats) throw tooDear(extra + feeSats + swapFeeSats, maxFeeSats)
    if (spend !== undefined) this.#desk.assertInBudget(spend, face + feeSats, swapFeeSats)
  }

  /** Coins for a token worth `asked` sats, and what it will be worth: less than that only with `lessFeeIfShort`. Inside the queue of choosing. */
  async #coinsToSend(
    request: SendRequest,
    mintUrl: string,
    asked: bigint,
    swaps: SwapsFor,
  ): Promise<{ coins: readonly OwnCoin[]; face: bigint }> {
    let face = asked
    const coins = await this.gather(mintUrl, swaps, (own) => {
      face = asked
      if (request.lessFee === true) {
        const less = lessFee(own, asked)
        face = less?.face ?? asked
        return less?.coins
      }
      const exact = request.lockTo === undefined ? selectExact(own, face) : undefined
      const fits =
        exact !== undefined &&
        exact.length <= this.#desk.context.mints.maxInputs(mintUrl) &&
        (request.coverReceiverFee !== true || face - inputFee(exact) >= request.amountSats)
      const chosen = fits ? exact : selectCoins(own, face)
      if (chosen !== undefined || request.lessFeeIfShort !== true || sumOf(own) < request.amountSats) return chosen
      face = sumOf(own) - inputFee(own)
      return selectCoins(own, face)
    })
    return { coins, face }
  }

  /**
   * Chooses coins for one request. Where it would take too many, as of a wallet that earned in small coins, they are made
   * into few large ones first, which costs what spending them costs. Inside the queue of choosing.
   * @throws insufficient_funds, and what `admit` throws
   */
  async gather(mintUrl: string, swaps: SwapsFor, choose: Choose): Promise<readonly OwnCoin[]> {
    for (let round = 0; ; round++) {
      const coins = await this.#desk.chooseCoins(mintUrl, choose)
      const max = this.#desk.context.mints.maxInputs(mintUrl)
      if (coins.length <= max || round === MAX_ROUNDS) return coins
      const keyset = await this.#desk.context.mints.activeKeyset(mintUrl)
      const some = coinsToMerge(coins, max, Object.keys(keyset.keys).map(BigInt))
      if (some === undefined) throw tooSmallCoins(mintUrl, max, sumOf(coins))
      await this.#swapOwn(mintUrl, gatherKey(swaps.idempotencyKey, round), sumOf(some) - inputFee(some), () => some, swaps)
    }
  }

  /** What it cost in fees. @throws insufficient_funds, funds_owed, payment_failed, payment_unknown, mint_rejected */
  transferTo(to: WalletOwner, amountSats: Sats, idempotencyKey: string, options: TransferOptions): Promise<Sats> {
    const { mintUrl } = options
    const digest = requestDigest('transfer', { from: this.#desk.owner.pubkey, to: to.pubkey, amountSats, mintUrl })
    return this.#desk.keys.run(idempotencyKey, async () => {
      const before = this.#desk.existing(idempotencyKey, digest)
      const prepare = () => this.#desk.choosing.run('', () => this.#prepareTransfer(to, amountSats, idempotencyKey, digest, options))
      const operation = await this.#desk.run(before?.id, prepare)
      if (operation.state === 'failed') throw storedError(operation, this.#desk.swapFeeSats(idempotencyKey))
      if (operation.state !== 'completed') throw unknownOutcome(operation, 'The transfer was sent to the mint')
      const { fee_sats = 0 } = operation.result as { fee_sats?: number }
      return sats(fee_sats)
    })
  }

  async #prepareTransfer(
    to: WalletOwner,
    amountSats: Sats,
    idempotencyKey: string,
    digest: string,
    { mintUrl: wanted, maxFeeSats, cause = { type: 'transfer', id: idempotencyKey } }: TransferOptions,
  ): Promise<string> {
    assertPositive(amountSats)
    if (to.pubkey === this.#desk.owner.pubkey) throw new PylonError('invalid_request', 'A transfer needs two different wallets.')
    const mintUrl = await this.#desk.mintToSpend(wanted, amountSats, false)
    this.#desk.assertNotOwed(mintUrl, amountSats)
    const admit = (feeSats: bigint) => {
      const total = feeSats + this.#desk.swapFeeSats(idempotencyKey)
      if (maxFeeSats !== undefined && total > maxFeeSats) throw tooDear(total, maxFeeSats)
    }
    const coins = await this.gather(mintUrl, { idempotencyKey, cause, admit }, (own) => selectCoins(own, amountSats))
    admit(inputFee(coins))
    this.#desk.assertNotOwed(mintUrl, amountSats + inputFee(coins))
    const keyset = await this.#desk.context.mints.activeKeyset(mintUrl)
    const peers = this.#desk.spread(amountSats, keyset, to.pubkey)
    return this.#insertTransfer({ to, peers, mintUrl, keyset, coins, idempotencyKey, digest, cause })
  }

  /** Breaks our own coins at one mint so that `amountSats` of them fit exactly. Whether it worked shows when coins are chosen next. */
  breakCoins(mintUrl: string, amountSats: bigint, swaps: SwapsFor): Promise<void> {
    return this.#swapOwn(mintUrl, breakKey.of(swaps.idempotencyKey), amountSats, (own) => selectCoins(own, amountSats), swaps)
  }

  /** Swaps coins of keysets that sign no more, or soon will not, for coins of the active one. True when there may be more to move. */
  moveCoins(
    mintUrl: string,
    oldKeysets: ReadonlySet<string>,
    idempotencyKey: string,
    how: { endsSoon: boolean; mayCost: bigint },
  ): Promise<boolean> {
    return this.#desk.choosing.run('', async () => {
      const { store, mints } = this.#desk.context
      const active = await mints.activeKeyset(mintUrl)
      // There is none that lasts longer.
      if (oldKeysets.has(active.id)) return false
      const free = listProofs(store, { pubkey: this.#desk.owner.pubkey, mintUrl, state: 'unspent' })
      const old = this.#desk.withFees(mintUrl, free).filter((coin) => oldKeysets.has(coin.keysetId))
      const coins = coinsToMove(old, { ...how, max: mints.maxInputs(mintUrl) })
      if (coins.length === 0) return false
      // Bounded by the choice above.
      const swaps = { idempotencyKey, cause: { type: 'transfer' as const, id: idempotencyKey }, admit: () => {} }
      await this.#swapOwn(mintUrl, idempotencyKey, sumOf(coins) - inputFee(coins), () => coins, swaps)
      return operationByKey(store, idempotencyKey)?.state === 'completed'
    })
  }

  /** Swaps coins of ours for others of ours. Inside the queue of choosing. */
  async #swapOwn(mintUrl: string, idempotencyKey: string, amountSats: bigint, choose: Choose, swaps: SwapsFor): Promise<void> {
    const digest = requestDigest('break', { owner: this.#desk.owner.pubkey, mintUrl })
    const known = this.#desk.existing(idempotencyKey, digest)?.id
    const insert = async () => {
      const coins = await this.#desk.chooseCoins(mintUrl, choose)
      swaps.admit(inputFee(coins))
      const keyset = await this.#desk.context.mints.activeKeyset(mintUrl)
      const { cause, spend } = swaps
      const peers = amountsFor(amountSats, keyset)
      return await this.#insertTransfer({ to: this.#desk.owner, peers, mintUrl, keyset, coins, idempotencyKey, digest, cause, spend })
    }
    await this.#desk.executor.run(known ?? (await insert()))
  }

  /** Inside the queue of choosing. */
  async #insertTransfer(transfer: {
    readonly to: WalletOwner
    /** What the other wallet gets, coin by coin. */
    readonly peers: readonly number[]
    readonly mintUrl: string
    readonly keyset: KeysetRow
    readonly coins: readonly OwnCoin[]
    readonly idempotencyKey: string
    readonly digest: string
    readonly cause: Cause
    readonly spend?: Spend | undefined
  }): Promise<string> {
    const { to, peers, mintUrl, keyset, coins, idempotencyKey, digest, cause, spend } = transfer
    const fee = inputFee(coins)
    const amountSats = peers.reduce((sum, amount) => sum + BigInt(amount), 0n)
    const outputs = await makeOutputs(this.#desk.context, keyset, [
      { purpose: 'peer', amounts: peers, owner: to },
      { purpose: 'keep', amounts: this.#desk.spread(sumOf(coins) - fee - amountSats, keyset), owner: this.#desk.owner },
    ])
    const swapFeeSats = this.#desk.swapFeeSats(idempotencyKey)
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
      ...this.#desk.base(newId(this.#desk.context), { idempotencyKey, cause }, digest, mintUrl),
      kind: 'transfer' as const,
      amountSats,
      heldSats: amountSats + fee,
      plan,
    }
    await this.#desk.insertSpend(operation, spend, undefined)
    return operation.id
  }
}

/** Coins for a token of `asked` sats less the fee of spending them; undefined where they are not enough. */
function lessFee(own: readonly OwnCoin[], asked: bigint): { readonly coins: readonly OwnCoin[]; readonly face: bigint } | undefined {
  if (sumOf(own) < asked) return undefined
  for (let fee = 0n; fee < asked; ) {
    const coins = selectCoins(own, asked - fee)
    // Where all that is held is just what is asked, too little is left after the fee: it is less by one, and again.
    const needed = coins === undefined ? fee + 1n : inputFee(coins)
    if (coins !== undefined && needed <= fee) return { coins, face: asked - fee }
    fee = needed
  }
  throw worthless(asked)
}

/** What it would cost beyond the amount, and what was allowed. */
export function tooDear(feeSats: bigint, maxFeeSats: bigint): PylonError {
  return new PylonError(
    'payment_failed',
    `With all fees of the mint it would cost ${feeSats} sats beyond the amount, and at most ${maxFeeSats} are allowed.`,
    { details: { fee_sats_needed: Number(feeSats), max_fee_sats: Number(maxFeeSats) } },
  )
}

/** That the receiver is left with something: redeeming costs the fee of the inputs. @throws amount_invalid */
function assertWorthSending(face: bigint, keyset: KeysetRow): void {
  const sizes = Object.keys(keyset.keys).map(BigInt)
  const parts = splitAmount(face, sizes) ?? []
  if (inputFee(parts.map(() => ({ feePpk: keyset.inputFeePpk }))) < face) return
  throw worthless(face, coverFee(1n, sizes, keyset.inputFeePpk))
}

function worthless(face: bigint, least?: bigint): PylonError {
  const instead = least === undefined ? '' : ` Send at least ${least} sats.`
  return new PylonError(
    'amount_invalid',
    `A token of ${face} sats is worth nothing: its mint takes as much from whoever redeems it, you too.${instead}`,
    { details: { worthless: true, ...(least === undefined ? {} : { least_sats: Number(least) }) } },
  )
}

function tooSmallCoins(mintUrl: string, max: number, sum: bigint): PylonError {
  return new PylonError(
    'mint_rejected',
    `${mintUrl} takes ${max} coins at once, and the ${sum} sats that this needs are in more, too small to be made into larger ones: send or pay less at a time.`,
  )
}
