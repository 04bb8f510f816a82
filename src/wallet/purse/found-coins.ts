/**
 * Coins that were found in a wallet elsewhere, as on relays (NIP-60): looked at where they are worth something, and taken by the ways
 * that tokens come in: swapped at a mint of the list, moved here from any other where the owner wants that. The mint says once for
 * each coin that it is ours; which request asks for it follows from the coins, so that a call that is made again goes on.
 */
import { hash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { accountOf, accountOwner } from '../../base/accounts.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { LocalSigner } from '../../nostr/types.ts'
import { foundCoinsKey } from '../../store/keys.ts'
import { operationByKey, ysUnderWay } from '../../store/money/operations.ts'
import { knownSecret } from '../../store/money/proofs.ts'
import { inputFee } from '../ecash/coins.ts'
import type { TokenProof } from '../ecash/crypto.ts'
import { encodeToken } from '../ecash/token.ts'
import { unwrap } from '../mint/client.ts'
import type { Receiving } from '../moves/receiving.ts'
import { oneRequestOf, openingOf } from '../operations/requests.ts'
import type { Foreign } from './foreign.ts'
import type { MovesParts } from './moves.ts'

export interface FoundCoin extends TokenProof {
  /** Normalised. */
  readonly mintUrl: string
}

/**
 * free: unspent, and ours to take. held: in the books of this home already, or given away by it. moving: the node goes on by itself.
 * left: unspent, and not taken. unknown: its mint did not say.
 */
export const COIN_FATES = ['free', 'taken', 'moving', 'held', 'spent', 'pending', 'locked', 'left', 'unknown'] as const
export type CoinFate = (typeof COIN_FATES)[number]

export interface CoinsAtMint {
  readonly mintUrl: string
  readonly isListed: boolean
  readonly coins: readonly FoundCoin[]
  /** By secret. */
  readonly fates: ReadonlyMap<string, CoinFate>
  /** What taking the free ones costs at the most; of taken ones what it cost. */
  readonly feeSats: bigint
  readonly receivedSats: bigint
  /** Why some are not taken, each as a sentence. */
  readonly reasons: readonly string[]
}

export interface TakeOptions {
  /** That open locks, beside those of the wallet. */
  readonly keys: readonly LocalSigner[]
  /** Whether coins of mints that are not on the list come to one that is. */
  readonly move: boolean
  /** The most that all of it may cost. */
  readonly maxFeeSats?: bigint
}

/** Mints that are asked. */
const MAX_MINTS = 30
/** Of what one request takes: a token has at most 64 KB. */
const MAX_PART_CHARS = 40_000
const PROOF_CHARS = 200
/** Ys in one task of the crypto worker. */
const YS_AT_ONCE = 200
/** Locks that are judged before others may run. */
const LOCKS_AT_ONCE = 100
/** One coin that its mint refuses is looked for by halves; a mint that refuses all is left alone after so many. */
const MAX_REFUSALS = 200
/** What may be the fault of a single coin. */
const OF_A_COIN = ['token_invalid', 'token_spent', 'token_locked', 'token_amount', 'mint_rejected', 'amount_invalid'] as const

/** The same with what changes. */
interface Work extends CoinsAtMint {
  readonly fates: Map<string, CoinFate>
  readonly reasons: string[]
  readonly parts: (readonly FoundCoin[])[]
  feeSats: bigint
  receivedSats: bigint
  refusals: number
}

export class FoundCoins {
  readonly #parts: MovesParts
  readonly #receiving: Receiving
  readonly #foreign: Foreign
  /** Two calls at once would ask for the same coins. */
  readonly #queue = new KeyedQueue()

  constructor(parts: MovesParts, receiving: Receiving, foreign: Foreign) {
    this.#parts = parts
    this.#receiving = receiving
    this.#foreign = foreign
  }

  /** What could be taken and for how much, with nothing done. */
  async look(coins: readonly FoundCoin[], options: TakeOptions): Promise<CoinsAtMint[]> {
    return await this.#look(coins, options)
  }

  /** @throws price_too_high with nothing done, where it would cost more than is allowed */
  take(coins: readonly FoundCoin[], options: TakeOptions): Promise<CoinsAtMint[]> {
    return this.#queue.run('take', async () => {
      const found = await this.#look(coins, options)
      const { maxFeeSats } = options
      const feeSats = found.reduce((sum, at) => sum + at.feeSats, 0n)
      if (maxFeeSats !== undefined && feeSats > maxFeeSats)
        throw new PylonError(
          'price_too_high',
          `Taking them would cost ${feeSats} sats, and at most ${maxFeeSats} are allowed: nothing was taken.`,
        )
      const budget = new Budget(maxFeeSats)
      await Promise.all(found.map((at) => this.#takeAt(at, options, budget)))
      return found
    })
  }

  async #look(coins: readonly FoundCoin[], options: TakeOptions): Promise<Work[]> {
    const { mints } = this.#parts.funds.context
    const byMint = new Map<string, Map<string, FoundCoin>>()
    for (const coin of coins) {
      const url = mints.has(coin.mintUrl) ? mints.get(coin.mintUrl).url : coin.mintUrl
      const here = byMint.get(url) ?? new Map<string, FoundCoin>()
      // A mint that has moved may be named by both addresses.
      if (!here.has(coin.secret)) here.set(coin.secret, coin)
      byMint.set(url, here)
    }
    const works = [...byMint].map(([mintUrl, bySecret]): Work => {
      const here = [...bySecret.values()]
      const fates = new Map(here.map(({ secret }) => [secret, 'unknown' as CoinFate]))
      const none = { feeSats: 0n, receivedSats: 0n, refusals: 0 }
      return { mintUrl, isListed: mints.has(mintUrl), coins: here, fates, reasons: [], parts: [], ...none }
    })
    for (const work of works.slice(MAX_MINTS)) work.reasons.push(`More than ${MAX_MINTS} mints are named: this one was not asked.`)
    await Promise.all(works.slice(0, MAX_MINTS).map((work) => orSaid(work, () => this.#lookAt(work, options))))
    return works
  }

  async #lookAt(work: Work, { keys, move }: TakeOptions): Promise<void> {
    const { funds } = this.#parts
    const { store, mints, keyring, clock } = funds.context
    const { mintUrl, fates, reasons } = work
    for (const { secret } of work.coins) if (knownSecret(store, secret)) fates.set(secret, 'held')
    const fresh = work.coins.filter(({ secret }) => fates.get(secret) !== 'held')
    if (fresh.length === 0) return
    if (work.isListed) await mints.refreshKeysets(mintUrl)
    else await mints.meet(mintUrl)
    const ys = await this.#ysOf(fresh)
    const states = unwrap(mintUrl, await mints.client(mintUrl).checkStates(ys))
    const fees = new Map(mints.keysets(mintUrl).map(({ id, inputFeePpk }) => [id, inputFeePpk]))
    const underWay = ysUnderWay(store)
    const free: FoundCoin[] = []
    for (const [i, coin] of fresh.entries()) {
      if (i % LOCKS_AT_ONCE === LOCKS_AT_ONCE - 1) await setImmediate()
      const fate = (name: CoinFate, reason?: string) => {
        fates.set(coin.secret, name)
        if (reason !== undefined && !reasons.includes(reason)) reasons.push(reason)
      }
      const feePpk = fees.get(coin.id)
      const opening = openingOf(keyring, funds.owner, [coin.secret], clock.now() / 1000, keys)
      if (underWay.has(ys[i] ?? '')) fate('moving', 'An earlier call has asked for some: the node goes on by itself.')
      else if (states[i] === 'SPENT') fate('spent')
      else if (states[i] === 'PENDING') fate('pending', 'Some are in a payment of another program that has not ended.')
      else if (feePpk === undefined) fate('left', `The keyset ${coin.id} is not one of this mint in sats.`)
      else if (!opening.opens) fate('locked', `Some can't be spent: ${opening.reason}.`)
      else if (BigInt(coin.amount) * 1000n <= BigInt(feePpk)) fate('left', 'Some are worth no more than the fee of taking them.')
      else free.push(coin)
    }
    if (!work.isListed && !move) {
      for (const { secret } of free) fates.set(secret, 'left')
      if (free.length > 0)
        reasons.push(
          `The mint is not on the list: take them to one that is with --move, for its fee, or accept it with pylon wallet mints add ${mintUrl}.`,
        )
      return
    }
    for (const part of partsOf(free, mints.maxInputs(mintUrl))) await this.#price(work, part, keys)
  }

  /** What a part would cost; where it can't be taken, why. */
  async #price(work: Work, part: readonly FoundCoin[], keys: readonly LocalSigner[]): Promise<void> {
    settle(work, part, 'left')
    const feeSats = await orSaid(work, () => this.#feeOf(work, part, keys))
    if (feeSats === undefined) return
    if (feeSats >= faceOf(part)) return void work.reasons.push('Some are worth no more than the fee of taking them.')
    work.feeSats += feeSats
    work.parts.push(part)
    settle(work, part, 'free')
  }

  /** @throws as Foreign.quote */
  async #feeOf({ mintUrl, isListed }: Work, part: readonly FoundCoin[], keys: readonly LocalSigner[]): Promise<bigint> {
    if (!isListed) return (await this.#foreign.quote({ token: tokenOf(mintUrl, part), keys })).feeSats
    const fees = new Map(this.#parts.funds.context.mints.keysets(mintUrl).map(({ id, inputFeePpk }) => [id, inputFeePpk]))
    return inputFee(part.map(({ id }) => ({ feePpk: fees.get(id) ?? 0 })))
  }

  async #takeAt(work: Work, options: TakeOptions, budget: Budget): Promise<void> {
    // From now on it is what was paid.
    work.feeSats = 0n
    for (const part of work.parts) {
      if (!(await this.#takePart(work, part, options, budget))) break
    }
    for (const [secret, fate] of work.fates) if (fate === 'free') work.fates.set(secret, 'left')
  }

  /** @returns whether the others are worth a try */
  async #takePart(work: Work, part: readonly FoundCoin[], options: TakeOptions, budget: Budget): Promise<boolean> {
    try {
      const { receivedSats, fate, reason } = await this.#bring(work, part, options, budget)
      settle(work, part, fate)
      work.receivedSats += receivedSats
      if (fate === 'taken') work.feeSats += faceOf(part) - receivedSats
      if (reason !== undefined) work.reasons.push(reason)
      return true
    } catch (error) {
      if (!isPylonError(error) || error.code === 'shutting_down') throw error
      if (error.code === 'payment_unknown') {
        settle(work, part, 'moving')
        work.reasons.push(messageOf(error))
        return true
      }
      const isOfACoin = OF_A_COIN.some((code) => code === error.code)
      work.refusals++
      if (isOfACoin && part.length > 1 && work.refusals < MAX_REFUSALS) {
        const half = Math.ceil(part.length / 2)
        for (const some of [part.slice(0, half), part.slice(half)]) if (!(await this.#takePart(work, some, options, budget))) return false
        return true
      }
      settle(work, part, error.code === 'token_spent' ? 'spent' : 'left')
      if (!work.reasons.includes(error.message)) work.reasons.push(error.message)
      return isOfACoin && work.refusals < MAX_REFUSALS
    }
  }

  async #bring(
    work: Work,
    part: readonly FoundCoin[],
    { keys }: TakeOptions,
    budget: Budget,
  ): Promise<{ readonly receivedSats: bigint; readonly fate: CoinFate; readonly reason?: string }> {
    const { funds } = this.#parts
    const { mintUrl } = work
    const token = tokenOf(mintUrl, part)
    const feeSats = await this.#feeOf(work, part, keys)
    if (feeSats >= faceOf(part)) throw new PylonError('token_amount', 'Some are worth no more than the fee of taking them.')
    budget.reserve(feeSats)
    const request = {
      ...{ idempotencyKey: this.#keyFor(mintUrl, part), cause: { type: 'owner', id: 'restore' } as const, token, keys },
      creditAccount: accountOf(accountOwner(funds.owner), 'equity', 'funding'),
    }
    if (work.isListed) {
      try {
        const { amountSats } = await this.#receiving.receiveToken(request)
        return { receivedSats: amountSats, fate: 'taken' }
      } catch (error) {
        // Nothing was paid, unless nobody can say yet.
        if (!isPylonError(error, 'payment_unknown')) budget.giveBack(feeSats)
        throw error
      }
    }
    const { last } = await this.#foreign.receive({ ...request, ...(budget.isOpen ? {} : { maxFeeSats: feeSats }) })
    if (last.state === 'arrived') return { receivedSats: last.amountSats, fate: 'taken' }
    const reason = `They are ours at ${mintUrl} now and on their way to ${last.toUrl}: ${last.reason ?? 'the node goes on'}.`
    return { receivedSats: 0n, fate: 'moving', reason }
  }

  /** The same coins are the same operation; where that has failed, which is for ever, the next. */
  #keyFor(mintUrl: string, part: readonly FoundCoin[]): string {
    const { store } = this.#parts.funds.context
    const digest = hash(
      'sha256',
      JSON.stringify([this.#parts.funds.owner.pubkey, mintUrl, ...sorted(part).map(({ secret, C }) => [secret, C])]),
    )
    for (let nth = 1; ; nth++) {
      const key = foundCoinsKey(digest, nth)
      if (operationByKey(store, key)?.state !== 'failed') return key
    }
  }

  async #ysOf(coins: readonly FoundCoin[]): Promise<string[]> {
    const ys: string[] = []
    for (let i = 0; i < coins.length; i += YS_AT_ONCE) {
      const secrets = coins.slice(i, i + YS_AT_ONCE).map(({ secret }) => secret)
      ys.push(...(await this.#parts.funds.context.crypto.run('ys', { secrets })))
    }
    return ys
  }
}

/** What may still be paid in fees, by all that is under way. */
class Budget {
  readonly isOpen: boolean
  #leftSats: bigint

  constructor(maxFeeSats: bigint | undefined) {
    this.isOpen = maxFeeSats === undefined
    this.#leftSats = maxFeeSats ?? 0n
  }

  /** @throws price_too_high */
  reserve(feeSats: bigint): void {
    if (this.isOpen) return
    if (feeSats > this.#leftSats) throw new PylonError('price_too_high', 'Taking the rest would cost more than is allowed (--max-fee).')
    this.#leftSats -= feeSats
  }

  giveBack(feeSats: bigint): void {
    this.#leftSats += feeSats
  }
}

function settle({ fates }: Work, coins: readonly FoundCoin[], fate: CoinFate): void {
  for (const { secret } of coins) fates.set(secret, fate)
}

/** What its mint or another cannot do is said of these coins, and stops no others. */
async function orSaid<T>(work: Work, run: () => Promise<T>): Promise<T | undefined> {
  try {
    return await run()
  } catch (error) {
    if (!isPylonError(error) || error.code === 'shutting_down') throw error
    if (!work.reasons.includes(error.message)) work.reasons.push(error.message)
    return undefined
  }
}

const faceOf = (coins: readonly FoundCoin[]): bigint => coins.reduce((sum, { amount }) => sum + BigInt(amount), 0n)
const sorted = (coins: readonly FoundCoin[]): FoundCoin[] => [...coins].sort((a, b) => (a.secret < b.secret ? -1 : 1))
const tokenOf = (mintUrl: string, coins: readonly FoundCoin[]): string => encodeToken(mintUrl, sorted(coins))

/** Coins that one request takes, the large ones first. */
function partsOf(coins: readonly FoundCoin[], maxInputs: number): FoundCoin[][] {
  const groups = new Map<string, FoundCoin[]>()
  for (const coin of coins) {
    const name = oneRequestOf(coin.secret)
    const group = groups.get(name) ?? []
    group.push(coin)
    groups.set(name, group)
  }
  const parts: FoundCoin[][] = []
  for (const group of groups.values()) {
    let part: FoundCoin[] = []
    let chars = 0
    for (const coin of [...group].sort((a, b) => b.amount - a.amount || (a.secret < b.secret ? -1 : 1))) {
      const size = Math.ceil((Buffer.byteLength(coin.secret) * 4) / 3) + PROOF_CHARS
      if (part.length > 0 && (part.length >= maxInputs || chars + size > MAX_PART_CHARS)) {
        parts.push(part)
        part = []
        chars = 0
      }
      part.push(coin)
      chars += size
    }
    parts.push(part)
  }
  return parts
}
