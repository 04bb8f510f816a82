/** Several mints of one wallet as one purse: what no mint can spend alone is brought to one that then can. */
import type { Account } from '../../base/accounts.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { purseMoveKey } from '../../store/keys.ts'
import type { Cause } from '../../store/money/ledger.ts'
import { heldSats, listProofs } from '../../store/money/proofs.ts'
import { type NewPurseMove, openPurseMoves, type PurseMove, purseMovesFor } from '../../store/money/purse-moves.ts'
import { coverFee } from '../ecash/coins.ts'
import { decodeInvoice } from '../lightning/bolt11.ts'
import { assertUnderCap } from '../mint/mints.ts'
import { assertPositive } from '../moves/funds.ts'
import { defaultMaxFee } from '../moves/paying.ts'
import type { Rail } from '../policy/judge.ts'
import type { Spend } from '../types.ts'
import { isOver, type MovesParts, PurseMoves } from './moves.ts'
import { mostMovable, type PlannedMove, type PurseMint, type PursePlan, planMoves, type WantedThere } from './plan.ts'
import { Quoting } from './quoting.ts'

/** A spend that no mint can make alone. */
export interface Shortage {
  readonly idempotencyKey: string
  readonly cause: Cause
  readonly debitAccount: Account
  readonly spend?: Spend | undefined
  /** Of a transfer within the home; else it follows from what is wanted. */
  readonly rail?: Rail
  readonly includeOwed?: boolean
  readonly maxFeeSats?: bigint
  /** Of the invoice, or of the token. */
  readonly amountSats: bigint
  /** To be paid, else a token is to be made. */
  readonly invoice?: string
  readonly coverReceiverFee?: boolean
  /** Where it must be; else anywhere. */
  readonly mintUrl?: string
}

/** What the owner asks to be moved. */
export interface MoveOrder {
  readonly idempotencyKey: string
  readonly cause: Cause
  readonly fromUrl: string
  readonly toUrl: string
  /** What is to arrive. */
  readonly amountSats: bigint
  /** The most that it may cost. */
  readonly maxFeeSats?: bigint
}

/** How long a spend waits for its moves. */
const ARRIVAL_MS = 20_000

export class Purse {
  readonly #parts: MovesParts
  readonly #keys = new KeyedQueue()
  readonly moves: PurseMoves

  constructor(parts: MovesParts) {
    this.#parts = parts
    this.moves = new PurseMoves(parts)
  }

  get #context() {
    return this.#parts.funds.context
  }

  /**
   * Resolves when sats of other mints have come to one that can now make the spend.
   * @param because what the spend was refused with @throws that, with what was tried; budget_exceeded, spend_refused
   */
  fill(shortage: Shortage, because: PylonError): Promise<void> {
    return this.#keys.run(shortage.idempotencyKey, () => this.#fill(shortage, because))
  }

  async #fill(shortage: Shortage, because: PylonError): Promise<void> {
    const { store, mints } = this.#context
    if (mints.list().length < 2) throw because
    const before = purseMovesFor(store, shortage.idempotencyKey)
    const open = before.filter((move) => !isOver(move))
    if (open.length > 0) return await this.#awaitArrival(open, because)
    const plan = await this.#plan(shortage)
    if (!plan.isPossible) throw alsoTried(because, `together with the other mints neither: ${plan.why}`)
    const rows = plan.moves.map((move, i) => this.#rowOf(move, shortage, before.length + i + 1))
    if (rows.length === 0) return
    await this.moves.begin(rows, shortage.spend)
    await this.#awaitArrival(rows, because)
  }

  /** What a move would cost at the most, with nothing done. @throws insufficient_funds, mint_cap_exceeded, price_too_high, mint_not_allowed, mint_unreachable */
  async quote({ fromUrl, toUrl, amountSats, maxFeeSats }: MoveOrder): Promise<PlannedMove> {
    const { mints, config } = this.#context
    assertPositive(amountSats)
    const target = mints.get(toUrl)
    const from = mints.has(fromUrl) ? mints.get(fromUrl).url : fromUrl
    if (from === target.url) throw new PylonError('invalid_request', 'A move needs two different mints.')
    const views = [await this.view(from, { owedToo: false }), await this.view(target.url, { owedToo: false })]
    assertUnderCap(target, target.capSats - (views[1]?.roomSats ?? 0n), amountSats)
    const plan = await new Quoting(this.#context, this.#parts.funds.owner).settle(views, ([source], reserveOf) => {
      if (source?.isUp !== true) return { isPossible: false, why: `${from} does not answer` }
      const move = mostMovable(source, target.url, amountSats, reserveOf)
      if (move?.amountSats === amountSats) return { isPossible: true, target: target.url, moves: [move], feeSats: move.feeSats }
      return { isPossible: false, why: `${from} can send ${move?.amountSats ?? 0n} sats at the most, with what that costs` }
    })
    const move = plan.isPossible ? plan.moves[0] : undefined
    if (move === undefined) throw new PylonError('insufficient_funds', `Nothing was moved: ${plan.isPossible ? 'no way' : plan.why}.`)
    const limit = maxFeeSats ?? defaultMaxFee(amountSats, config().wallet.max_fee_percent)
    if (move.feeSats > limit)
      throw new PylonError('price_too_high', `The move may cost ${move.feeSats} sats, and at most ${limit} are allowed: raise --max-fee.`, {
        details: { fee_sats_needed: Number(move.feeSats), max_fee_sats: Number(limit) },
      })
    return move
  }

  /** Moves sats between two mints; resolves when they have arrived, or after a while. @throws as quote; idempotency_conflict */
  move(order: MoveOrder): Promise<PurseMove> {
    return this.#keys.run(order.idempotencyKey, async () => {
      const { store } = this.#context
      const [known] = purseMovesFor(store, order.idempotencyKey)
      const toUrl = this.#context.mints.get(order.toUrl).url
      if (known !== undefined && (known.toUrl !== toUrl || known.amountSats !== order.amountSats))
        throw new PylonError('idempotency_conflict', 'This idempotency key was used for another move: use a new one.')
      const id = known?.id ?? purseMoveKey(order.idempotencyKey, 1)
      if (known === undefined) {
        const { owner } = this.#parts.funds
        const { from: fromUrl, to, amountSats, feeSats } = await this.quote(order)
        const row = {
          id,
          forKey: order.idempotencyKey,
          purpose: 'owner',
          owner,
          fromUrl,
          toUrl: to,
          amountSats,
          maxFeeSats: feeSats,
        } as const
        await this.moves.begin(
          [{ ...row, owedToo: false, cause: order.cause, state: 'planned', createdAt: this.#context.clock.now() }],
          undefined,
        )
      }
      const [moved] = await this.moves.ended([id], ARRIVAL_MS)
      if (moved === undefined) throw new PylonError('internal', `There is no move ${id}.`)
      return moved
    })
  }

  /** What the moves under a key have cost by now. */
  costSats(idempotencyKey: string): bigint {
    return this.#parts.funds.swapFeeSats(idempotencyKey)
  }

  #rowOf({ from, to, amountSats, feeSats }: PlannedMove, shortage: Shortage, nth: number): NewPurseMove {
    const { idempotencyKey, cause } = shortage
    return {
      ...{ id: purseMoveKey(idempotencyKey, nth), forKey: idempotencyKey, purpose: 'spend', owner: this.#parts.funds.owner, cause },
      ...{ fromUrl: from, toUrl: to, amountSats, maxFeeSats: feeSats, owedToo: this.#parts.funds.maySpendOwed(shortage) },
      ...{ state: 'planned', createdAt: this.#context.clock.now() },
    }
  }

  /** @throws insufficient_funds where they are still on their way, or none has come */
  async #awaitArrival(rows: readonly Pick<PurseMove, 'id'>[], because: PylonError): Promise<void> {
    const ids = rows.map(({ id }) => id)
    const now = await this.moves.ended(ids, ARRIVAL_MS)
    const open = now.filter((move) => !isOver(move))
    if (open.length > 0) throw alsoTried(because, `${routes(open)}, try again when they are there`)
    if (now.some(({ state }) => state === 'arrived')) return
    throw alsoTried(because, now.map(({ fromUrl, toUrl, reason }) => `from ${fromUrl} to ${toUrl}: ${reason}`).join('; '))
  }

  /** With every fee as quoted. @throws budget_exceeded, spend_refused where the spend would be refused anyway */
  async #plan(shortage: Shortage): Promise<PursePlan> {
    const { amountSats, invoice } = shortage
    const { funds } = this.#parts
    const views = await Promise.all(
      this.#context.mints.list().map((mint) => this.view(mint.url, { owedToo: funds.maySpendOwed(shortage) })),
    )
    const targets = shortage.mintUrl === undefined ? views : views.filter(({ url }) => url === shortage.mintUrl)
    const limit = shortage.maxFeeSats ?? defaultMaxFee(amountSats, this.#context.config().wallet.max_fee_percent)
    const netAt = ({ sizes, feePpk }: PurseMint) => (shortage.coverReceiverFee === true ? coverFee(amountSats, sizes, feePpk) : amountSats)
    const first = new Map<string, WantedThere>(targets.map((mint) => [mint.url, { netSats: netAt(mint), maxFeeSats: limit }]))
    const guess = planMoves(views, first, () => 0n)
    if (!guess.isPossible) return guess
    const bound = funds.bind(shortage, shortage.rail ?? (invoice === undefined ? 'ecash' : 'mint'), shortage.spend)
    funds.assertMaySpend(bound, amountSats + guess.feeSats)
    const quoting = new Quoting(this.#context, funds.owner)
    const wanted = invoice === undefined ? first : await this.#wantedForPayment(quoting, targets, { invoice, amountSats, limit })
    const plan = await quoting.settle(views, (mints, reserveOf) => planMoves(mints, wanted, reserveOf))
    if (plan.isPossible) funds.assertMaySpend(bound, (wanted.get(plan.target)?.netSats ?? amountSats) + plan.feeSats)
    return plan
  }

  /** What each mint would need to pay this invoice. */
  async #wantedForPayment(
    quoting: Quoting,
    targets: readonly PurseMint[],
    payment: { readonly invoice: string; readonly amountSats: bigint; readonly limit: bigint },
  ): Promise<Map<string, WantedThere>> {
    const wanted = new Map<string, WantedThere>()
    const { request } = decodeInvoice(payment.invoice)
    for (const { url } of targets.filter(({ isUp }) => isUp)) {
      const reserve = await quoting.reserveFor(url, request, payment.amountSats)
      if (reserve === undefined || reserve > payment.limit) continue
      wanted.set(url, { netSats: payment.amountSats + reserve, maxFeeSats: payment.limit - reserve })
    }
    return wanted
  }

  /** What this wallet has at a mint, as plans see it. */
  async view(url: string, { owedToo }: { readonly owedToo: boolean }): Promise<PurseMint> {
    const { funds } = this.#parts
    const { store, mints } = this.#context
    const { pubkey } = funds.owner
    const listed = funds.balance().mints.find((mint) => mint.url === url)
    const capSats = mints.list().find((mint) => mint.url === url)?.capSats ?? 0n
    const coming = openPurseMoves(store)
      .filter((move) => move.owner.pubkey === pubkey && move.toUrl === url)
      .reduce((sum, move) => sum + move.amountSats, 0n)
    const room = capSats - heldSats(store, pubkey, url) - coming
    const rest = {
      url,
      coins: funds.withFees(url, listProofs(store, { pubkey, mintUrl: url, state: 'unspent' })),
      keptSats: owedToo ? 0n : (listed?.owedSats ?? 0n),
      roomSats: room > 0n ? room : 0n,
      maxInputs: mints.maxInputs(url),
    }
    try {
      const keyset = await mints.activeKeyset(url)
      return { ...rest, isUp: listed?.state !== 'down', sizes: Object.keys(keyset.keys).map(BigInt), feePpk: keyset.inputFeePpk }
    } catch (error) {
      if (!isPylonError(error)) throw error
      return { ...rest, isUp: false, sizes: [], feePpk: 0 }
    }
  }
}

const routes = (moves: readonly PurseMove[]): string =>
  moves.map(({ amountSats, fromUrl, toUrl }) => `${amountSats} sats are on their way from ${fromUrl} to ${toUrl}`).join(', ')

function alsoTried(because: PylonError, what: string): PylonError {
  return new PylonError(because.code, `${because.message.replace(/\.$/, '')}; ${what}.`, { details: because.details })
}
