/** Gives ecash away as a token. */
import { sats } from '../../base/amounts.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import type { KeysetRow } from '../../store/money/keysets.ts'
import { operationByKey } from '../../store/money/operations.ts'
import { newId, requestDigest } from '../context.ts'
import { coverFee, inputFee, selectCoins, selectExact, splitAmount, sumOf } from '../ecash/coins.ts'
import type { SendPlan } from '../operations/machine.ts'
import { asSentToken, storedError, unknownOutcome } from '../operations/outcomes.ts'
import { amountsFor, inputsOf, lockOfSend, makeOutputs, swapBody } from '../operations/requests.ts'
import { forgetSpent } from '../operations/restore.ts'
import type { BoundSpend } from '../policy/spends.ts'
import type { SendRequest, SentToken, Spend } from '../types.ts'
import { assertPositive, type Funds, type OwnCoin, plannedInput } from './funds.ts'
import { type OwnCoins, type SwapsFor, tooDear } from './own-coins.ts'

export class Sending {
  readonly #funds: Funds
  readonly #ownCoins: OwnCoins

  constructor(funds: Funds, ownCoins: OwnCoins) {
    this.#funds = funds
    this.#ownCoins = ownCoins
  }

  sendToken(request: SendRequest, spend?: Spend): Promise<SentToken> {
    const { amountSats, mintUrl, lockTo, debitAccount, coverReceiverFee = false, cause } = request
    const digest = requestDigest('send', {
      owner: this.#funds.owner.pubkey,
      amountSats,
      mintUrl,
      lockTo,
      debitAccount,
      coverReceiverFee,
      cause,
    })
    return this.#funds.keys.run(request.idempotencyKey, async () => {
      const before = await this.#funds.existing(request, digest)
      const prepare = () =>
        this.#funds.choosing.run('', () => this.#prepareSend(request, digest, this.#funds.bind(request, 'ecash', spend)))
      const operation = await this.#funds.run(before?.id, prepare)
      if (operation.state === 'failed') throw storedError(operation, this.#funds.swapFeeSats(request.idempotencyKey))
      if (operation.state !== 'completed') throw unknownOutcome(operation, 'The token was asked of its mint')
      return asSentToken(operation)
    })
  }

  sentToken(idempotencyKey: string): SentToken | undefined {
    const operation = operationByKey(this.#funds.context.store, idempotencyKey)
    return operation?.kind === 'send' && operation.state === 'completed' ? asSentToken(operation) : undefined
  }

  async #prepareSend(request: SendRequest, digest: string, spend: BoundSpend): Promise<string> {
    const { lockTo, refundAfter, debitAccount } = request
    assertPositive(request.amountSats)
    if (lockTo !== undefined && !/^0[23][0-9a-f]{64}$/.test(lockTo)) {
      throw new PylonError('pubkey_invalid', 'The key to lock the token to must be 02 or 03 and 64 hex digits.')
    }
    const owedToo = this.#funds.maySpendOwed(request)
    const mintUrl = await this.#funds.mintToSpend(request.mintUrl, request.amountSats, owedToo)
    const keyset = await this.#funds.context.mints.activeKeyset(mintUrl)
    const sizes = Object.keys(keyset.keys).map(BigInt)
    const asked = request.coverReceiverFee === true ? coverFee(request.amountSats, sizes, keyset.inputFeePpk) : request.amountSats
    const lock = lockOfSend(this.#funds.context, this.#funds.owner, request.idempotencyKey, request)
    if (!owedToo) this.#funds.assertNotOwed(mintUrl, asked)
    const admit = (feeSats: bigint) => this.#admitFee(request, asked, feeSats, spend)
    const swaps: SwapsFor = { idempotencyKey: request.idempotencyKey, cause: request.cause, spend, admit }
    const choose = () => this.#coinsToSend(request, mintUrl, asked, swaps)
    const { coins, face } = await this.#soundCoins(lockTo === undefined, mintUrl, choose)
    const amountSats = face < request.amountSats ? sats(face) : request.amountSats
    const isExact = lockTo === undefined && sumOf(coins) === face
    const fee = isExact ? 0n : inputFee(coins)
    assertWorthSending(face, keyset)
    this.#admitFee(request, face, fee, spend)
    if (!owedToo) this.#funds.assertNotOwed(mintUrl, face + fee)
    const change = sumOf(coins) - fee - face
    const outputs = isExact
      ? []
      : await makeOutputs(this.#funds.context, keyset, [
          { purpose: 'send', amounts: amountsFor(face, keyset), owner: this.#funds.owner, ...lock },
          { purpose: 'keep', amounts: this.#funds.spread(change, keyset), owner: this.#funds.owner },
        ])
    const swapFeeSats = this.#funds.swapFeeSats(request.idempotencyKey)
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
      ...this.#funds.base(newId(this.#funds.context), request, digest, mintUrl),
      kind: 'send' as const,
      amountSats,
      heldSats: face + fee,
      plan,
    }
    await this.#funds.insertSpend(operation, spend, isExact ? coins : undefined, swapFeeSats)
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
      this.#funds.context.logger.warn({ mint: mintUrl, sats: Number(gone) }, 'coins that the books held are spent at their mint')
    }
  }

  /** Sats that the mint says are spent. Where it does not answer the coins are as good as the books say. @throws what is no word of the mint */
  async #forgetSpent(mintUrl: string, coins: readonly OwnCoin[]): Promise<bigint> {
    try {
      return await forgetSpent(this.#funds.context, mintUrl, coins)
    } catch (error) {
      if (isPylonError(error, 'mint_unreachable') || isPylonError(error, 'mint_rejected')) return 0n
      throw error
    }
  }

  /** Whether this fee may leave too: within what the caller allows beyond the amount, and within the budget. @throws payment_failed, budget_exceeded */
  #admitFee(request: SendRequest, face: bigint, feeSats: bigint, spend: BoundSpend): void {
    const { idempotencyKey, amountSats, maxFeeSats } = request
    const swapFeeSats = this.#funds.swapFeeSats(idempotencyKey)
    const extra = face > amountSats ? face - amountSats : 0n
    if (maxFeeSats !== undefined && extra + feeSats + swapFeeSats > maxFeeSats) throw tooDear(extra + feeSats + swapFeeSats, maxFeeSats)
    this.#funds.assertMaySpend(spend, face + feeSats, swapFeeSats)
  }

  /** Coins for a token worth `asked` sats, and what it will be worth: less than that only with `lessFeeIfShort`. Inside the queue of choosing. */
  async #coinsToSend(
    request: SendRequest,
    mintUrl: string,
    asked: bigint,
    swaps: SwapsFor,
  ): Promise<{ coins: readonly OwnCoin[]; face: bigint }> {
    let face = asked
    const coins = await this.#ownCoins.gather(mintUrl, swaps, (own) => {
      face = asked
      if (request.lessFee === true) {
        const less = lessFee(own, asked)
        face = less?.face ?? asked
        return less?.coins
      }
      const exact = request.lockTo === undefined ? selectExact(own, face) : undefined
      const fits =
        exact !== undefined &&
        exact.length <= this.#funds.context.mints.maxInputs(mintUrl) &&
        (request.coverReceiverFee !== true || face - inputFee(exact) >= request.amountSats)
      const chosen = fits ? exact : selectCoins(own, face)
      if (chosen !== undefined || request.lessFeeIfShort !== true || sumOf(own) < request.amountSats) return chosen
      face = sumOf(own) - inputFee(own)
      return selectCoins(own, face)
    })
    return { coins, face }
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
