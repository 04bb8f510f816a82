/**
 * Tokens of mints that are not on the owner's list: swapped there, so that they are ours, and moved to a mint that is. The fee is known
 * before; the token is claimed together with its move, which goes on until the sats are here or its mint does not let them go.
 */
import { PylonError } from '../../base/errors.ts'
import { purseMoveKey } from '../../store/keys.ts'
import { operationByKey } from '../../store/money/operations.ts'
import { insertPurseMove, type PurseMove, purseMovesFor } from '../../store/money/purse-moves.ts'
import { splitAmount } from '../ecash/coins.ts'
import { readTokenHead } from '../ecash/token.ts'
import { defaultMaxFee } from '../moves/paying.ts'
import type { Receiving } from '../moves/receiving.ts'
import { tokenLocked } from '../operations/requests.ts'
import type { ReceiveRequest } from '../types.ts'
import { isOver, type MovesParts } from './moves.ts'
import { free, mostMovable, type PlannedMove, type PurseMint } from './plan.ts'
import type { Purse } from './purse.ts'
import { Quoting } from './quoting.ts'

export interface ForeignRequest extends ReceiveRequest {
  /** The most that all of it may cost, of the face of the token. */
  readonly maxFeeSats?: bigint
}

export interface ForeignQuote {
  readonly faceSats: bigint
  /** What all of it costs at the most. */
  readonly feeSats: bigint
  /** What arrives, at the least what is told here. */
  readonly netSats: bigint
  readonly fromUrl: string
  readonly toUrl: string
}

export interface ForeignTokens {
  readonly faceSats: bigint
  /** The one that arrived, or else the newest. */
  readonly last: PurseMove
  readonly feeSats: bigint
}

/** How many mints of the owner's are asked what bringing it there costs. */
const MAX_TARGETS = 3
/** How long a caller waits. */
const ARRIVAL_MS = 20_000

export class Foreign {
  readonly #parts: MovesParts
  readonly #receiving: Receiving
  readonly #purse: Purse

  constructor(parts: MovesParts, receiving: Receiving, purse: Purse) {
    this.#parts = parts
    this.#receiving = receiving
    this.#purse = purse
  }

  /** What it would bring, with nothing done. @throws token_invalid, token_locked, token_amount, no_mint, price_too_high, mint_unreachable, mint_incompatible, address_refused */
  async quote(request: Pick<ForeignRequest, 'token' | 'maxFeeSats' | 'keys'>): Promise<ForeignQuote> {
    const { faceSats, move } = await this.#plan(request)
    return { faceSats, netSats: move.amountSats, feeSats: faceSats - move.amountSats, fromUrl: move.from, toUrl: move.to }
  }

  /** Resolves when it has arrived, or after a while. @throws as quote; token_spent, payment_unknown, idempotency_conflict */
  async receive(request: ForeignRequest): Promise<ForeignTokens> {
    const { store, clock } = this.#parts.funds.context
    const { idempotencyKey, cause, minNetSats = 1n } = request
    if (purseMovesFor(store, idempotencyKey).length === 0) {
      const { move } = await this.#plan(request)
      if (move.amountSats < minNetSats)
        throw new PylonError('token_amount', `The token brings ${move.amountSats} sats, ${minNetSats} are needed.`)
      const claim = insertPurseMove({
        ...{ id: purseMoveKey(idempotencyKey, 1), forKey: idempotencyKey, purpose: 'foreign', owner: this.#parts.funds.owner, cause },
        ...{ fromUrl: move.from, toUrl: move.to, amountSats: move.amountSats, maxFeeSats: move.feeSats, owedToo: false },
        ...{ state: 'receiving', createdAt: clock.now() },
      })
      await this.#receiving.receiveToken(request, { claim })
    } else await this.#receiving.receiveToken(request, {})
    return await this.#arrival(request)
  }

  /** Until it has arrived, or one try has failed. */
  async #arrival({ idempotencyKey, token }: ForeignRequest): Promise<ForeignTokens> {
    const { store } = this.#parts.funds.context
    const first = purseMovesFor(store, idempotencyKey)
    const open = first.filter((move) => !isOver(move)).map(({ id }) => id)
    for (const id of open) await this.#purse.moves.run(id)
    await this.#purse.moves.ended(open, ARRIVAL_MS)
    const moves = purseMovesFor(store, idempotencyKey)
    const last = moves.find(({ state }) => state === 'arrived') ?? moves.at(-1)
    if (last === undefined) throw new PylonError('internal', 'A token was taken without its move.')
    const { faceSats } = readTokenHead(token)
    const swapFeeSats = faceSats - this.#swappedSats(idempotencyKey)
    return { faceSats, last, feeSats: swapFeeSats + this.#purse.costSats(idempotencyKey) }
  }

  /** What the swap made ours. */
  #swappedSats(idempotencyKey: string): bigint {
    const swap = operationByKey(this.#parts.funds.context.store, idempotencyKey)
    return BigInt((swap?.result as { readonly amount_sats: number } | null | undefined)?.amount_sats ?? 0)
  }

  async #plan({
    token,
    maxFeeSats,
    keys,
  }: Pick<ForeignRequest, 'token' | 'maxFeeSats' | 'keys'>): Promise<{ readonly faceSats: bigint; readonly move: PlannedMove }> {
    const { mints, config } = this.#parts.funds.context
    const { mintUrl: fromUrl } = readTokenHead(token)
    if (!mints.has(fromUrl)) await mints.meet(fromUrl)
    const { faceSats, netSats, lock, lockReason } = await this.#receiving.inspectToken(token, true, keys)
    if (lock === 'other') throw tokenLocked(lockReason ?? 'it is locked to another key')
    const source = await this.#withToken(fromUrl, netSats)
    const limit = maxFeeSats ?? defaultMaxFee(faceSats, config().wallet.max_fee_percent)
    const why: string[] = []
    for (const target of await this.#targets(fromUrl)) {
      const found = await this.#into(source, target)
      if (typeof found === 'string') why.push(`${target.url}: ${found}`)
      else if (faceSats - found.amountSats <= limit) return { faceSats, move: found }
      else why.push(`it would cost ${faceSats - found.amountSats} of ${faceSats} sats, and at most ${limit} are allowed (--max-fee)`)
    }
    if (why.length === 0) throw new PylonError('no_mint', 'There is no mint of yours to move it to: pylon wallet mints add URL.')
    throw new PylonError('token_amount', `The token stays where it is: ${why.join('; ')}.`)
  }

  /** What this wallet would have there. */
  async #withToken(url: string, netSats: bigint): Promise<PurseMint> {
    const view = await this.#purse.view(url, { owedToo: false })
    // What lies there already goes along; of a mint of the list only the token goes.
    const coins = this.#parts.funds.context.mints.has(url) ? [] : view.coins
    const fresh = (splitAmount(netSats, view.sizes) ?? []).map((amountSats) => ({ amountSats, feePpk: view.feePpk }))
    return { ...view, coins: [...coins, ...fresh], keptSats: 0n }
  }

  async #targets(fromUrl: string): Promise<PurseMint[]> {
    const { mints } = this.#parts.funds.context
    const listed = mints.list().filter((mint) => mint.url !== fromUrl)
    const views = await Promise.all(listed.map((mint) => this.#purse.view(mint.url, { owedToo: false })))
    return views
      .filter(({ isUp }) => isUp)
      .sort((a, b) => (a.roomSats > b.roomSats ? -1 : 1))
      .slice(0, MAX_TARGETS)
  }

  /** All that can be moved; why not, where it can't. */
  async #into(source: PurseMint, target: PurseMint): Promise<PlannedMove | string> {
    const plan = await new Quoting(this.#parts.funds.context, this.#parts.funds.owner).settle([source, target], ([from, to], reserveOf) => {
      if (from?.isUp !== true || to?.isUp !== true) return { isPossible: false, why: 'a mint gives no quote' }
      const move = mostMovable(from, to.url, free(from), reserveOf)
      if (move === undefined) return { isPossible: false, why: 'it is worth less than moving it costs' }
      if (move.amountSats > to.roomSats) return { isPossible: false, why: `${move.amountSats} sats more would be above its cap` }
      return { isPossible: true, target: to.url, moves: [move], feeSats: move.feeSats }
    })
    return plan.isPossible ? (plan.moves[0] ?? 'nothing is left') : plan.why
  }
}
