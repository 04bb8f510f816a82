/**
 * Sats from one mint to another of the same wallet: an invoice of the one that the other pays, both under the id of a stored move.
 * Whatever ends the node in between, they are at the one, or at the other, or claimed there later.
 */
import { accountOf, accountOwner } from '../../base/accounts.ts'
import { sats } from '../../base/amounts.ts'
import { isPylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { PurseMoveState } from '../../base/states.ts'
import { all, type Command } from '../../store/commands.ts'
import { purseMoveKey, purseMoveLost } from '../../store/keys.ts'
import { postEntry } from '../../store/money/ledger.ts'
import { type OperationRow, operationByKey } from '../../store/money/operations.ts'
import {
  deferPurseMove,
  getPurseMove,
  insertPurseMove,
  type NewPurseMove,
  type PurseMove,
  purseMovesFor,
  stepPurseMove,
} from '../../store/money/purse-moves.ts'
import { moveQuote, quoteByKey } from '../../store/money/quotes.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import { lostAccount, msatsOf } from '../context.ts'
import type { Funds } from '../moves/funds.ts'
import type { Invoices } from '../moves/invoices.ts'
import type { Paying } from '../moves/paying.ts'
import type { Spend } from '../types.ts'

/** What is waited for wakes the wallet itself; this is for what nobody tells. */
const LOOK_AGAIN_MS = 60_000
const POLL_MS = 100
/** When what came with a foreign token is tried again; after that it stays at its mint until the owner moves it. */
const FOREIGN_TRIES_MS = [5_000, 60_000, 600_000, 3_600_000, 6 * 3_600_000]

export interface MovesParts {
  readonly funds: Funds
  readonly invoices: Invoices
  readonly paying: Paying
}

export class PurseMoves {
  readonly #parts: MovesParts
  readonly #queue = new KeyedQueue()
  /** Made by this process for a spend that is under way: its caller begins them. */
  readonly #begun = new Set<string>()

  constructor(parts: MovesParts) {
    this.#parts = parts
  }

  get #context() {
    return this.#parts.funds.context
  }

  /** Claims all of them in one commit, then takes each as far as it goes now. @param spend whose limits bind the fees */
  async begin(rows: readonly NewPurseMove[], spend: Spend | undefined): Promise<void> {
    for (const { id } of rows) this.#begun.add(id)
    try {
      await this.#context.store.write(all(...rows.map((row) => insertPurseMove(row))))
      await Promise.all(rows.map(({ id }) => this.#queue.run(id, () => this.#advance(id, { spend }))))
    } finally {
      for (const { id } of rows) this.#begun.delete(id)
    }
  }

  /** Takes a move as far as it goes now: at start, and whenever something of the wallet has ended. Asks no mint about what is under way. */
  async run(id: string): Promise<void> {
    if (!this.#begun.has(id)) await this.#queue.run(id, () => this.#advance(id))
  }

  /** Resolves what these are when all have ended, or after `ms`. */
  async ended(ids: readonly string[], ms: number): Promise<PurseMove[]> {
    const { clock, scope, store } = this.#context
    const until = clock.now() + ms
    for (;;) {
      const rows = ids.flatMap((id) => getPurseMove(store, id) ?? [])
      const leftMs = until - clock.now()
      if (rows.every(isOver) || leftMs <= 0) return rows
      await scope.sleep(Math.min(POLL_MS, leftMs))
      for (const row of rows) if (!isOver(row)) await this.run(row.id)
    }
  }

  /** @param caller of the spend that it is for, who alone begins it */
  async #advance(id: string, caller?: { readonly spend: Spend | undefined }): Promise<void> {
    const row = getPurseMove(this.#context.store, id)
    if (row === undefined || isOver(row) || this.#context.scope.isClosing) return
    if (row.state === 'receiving') return await this.#receive(row)
    if (row.state === 'paid') return await this.#arrive(row)
    const payment = operationByKey(this.#context.store, id)
    if (payment === undefined) {
      if (caller === undefined && row.purpose === 'spend') return await this.#fail(row, 'the node ended before it began')
      if ((row.nextTryAt ?? 0) > this.#context.clock.now()) return
      await this.#pay(row, caller?.spend)
      return await this.#afterPaying(id)
    }
    await this.#judge(row, payment)
  }

  /** The token of a foreign mint: ours there once its swap has ended. */
  async #receive(row: PurseMove): Promise<void> {
    const swap = operationByKey(this.#context.store, row.forKey)
    if (swap === undefined || swap.state === 'failed')
      return await this.#end(row, 'failed', swap?.error.message ?? 'the token was not taken')
    if (swap.state !== 'completed') return await this.#wait(row, 'its mint has not swapped the token yet')
    const at = this.#context.clock.now()
    const planned = stepPurseMove({ id: row.id, from: 'receiving', to: 'planned', reason: 'the token is swapped', nextTryAt: at, at })
    if (await persistIfUnmoved(this.#context, planned)) await this.#advance(row.id)
  }

  async #afterPaying(id: string): Promise<void> {
    const row = getPurseMove(this.#context.store, id)
    const payment = operationByKey(this.#context.store, id)
    if (row?.state === 'planned' && payment !== undefined) await this.#judge(row, payment)
  }

  /** The invoice of the one, paid by the other. What fails before anything was sent has surely spent nothing. */
  async #pay(row: PurseMove, spend: Spend | undefined): Promise<void> {
    const { funds, invoices, paying } = this.#parts
    const { id: idempotencyKey, owner, cause, fromUrl, toUrl: mintUrl, maxFeeSats, owedToo } = row
    const between = accountOf(accountOwner(owner), 'equity', 'moved')
    try {
      const order = { idempotencyKey, cause, amountSats: sats(row.amountSats), mintUrl, creditAccount: between }
      const { request } = await invoices.create(owner, { ...order, description: 'From mint to mint' })
      const payment = { idempotencyKey, cause, request, debitAccount: between, maxFeeSats: sats(maxFeeSats), includeOwed: owedToo }
      await paying.pay(payment, spend, fromUrl)
    } catch (error) {
      if (!isPylonError(error) || ['shutting_down', 'disk_full', 'database_busy'].includes(error.code)) throw error
      funds.context.logger.warn({ from: fromUrl, to: mintUrl, reason: error.message }, 'sats could not be moved between mints')
      if (operationByKey(funds.context.store, idempotencyKey) === undefined) await this.#fail(row, error.message)
    }
  }

  async #judge(row: PurseMove, payment: OperationRow): Promise<void> {
    if (payment.state === 'failed') return await this.#fail(row, payment.error.message)
    if (payment.state !== 'completed') return await this.#wait(row, payment.error?.message ?? 'the payment is under way')
    const { store, clock } = this.#context
    const at = clock.now()
    const { preimage } = payment.result as { readonly preimage: string }
    const quote = quoteByKey(store, row.id)
    // A preimage proves it: what the mint says of its invoice does not end the asking then.
    const proven: Command<unknown>[] =
      quote === undefined || preimage === '' || quote.state === 'paid' || quote.state === 'settled'
        ? []
        : [moveQuote({ id: quote.id, from: ['unpaid', 'expired', 'closed'], to: 'paid', nextCheckAt: at, at })]
    const step = stepPurseMove({ id: row.id, from: 'planned', to: 'paid', reason: 'the mint paid', nextTryAt: at + LOOK_AGAIN_MS, at })
    // Seen paid by the other mint meanwhile: the next look finds it so.
    if (!(await persistIfUnmoved(this.#context, step, ...proven))) return
    this.#parts.invoices.onAdded()
  }

  async #arrive(row: PurseMove): Promise<void> {
    const quote = quoteByKey(this.#context.store, row.id)
    if (quote?.state === 'settled') return await this.#end(row, 'arrived', 'the ecash is here')
    if (quote?.state !== 'closed') return await this.#wait(row, `${row.toUrl} has not issued the ecash yet`)
    const { clock, logger } = this.#context
    const at = clock.now()
    const between = accountOf(accountOwner(row.owner), 'equity', 'moved')
    const lost = msatsOf(row.amountSats)
    logger.error({ move: row.id, from: row.fromUrl, to: row.toUrl, sats: Number(row.amountSats) }, 'sats between two mints are lost')
    const reason = `${row.fromUrl} says that it paid, and ${row.toUrl} that nothing came${quote.reason === null ? '' : `: ${quote.reason}`}`
    await persistIfUnmoved(
      this.#context,
      stepPurseMove({ id: row.id, from: 'paid', to: 'lost', reason, nextTryAt: null, at }),
      postEntry({
        id: purseMoveLost.of(row.id),
        cause: row.cause,
        at,
        memo: 'lost between two mints',
        postings: [
          { account: between, amountMsats: -lost },
          { account: lostAccount(row.owner), amountMsats: lost },
        ],
      }),
    )
  }

  /** Nothing left the mint that was to pay. What came with a foreign token is tried again, each time as a move of its own, ever later. */
  async #fail(row: PurseMove, reason: string): Promise<void> {
    const { store, clock } = this.#context
    const at = clock.now()
    const failed = stepPurseMove({ id: row.id, from: row.state, to: 'failed', reason, nextTryAt: null, at })
    const tries = purseMovesFor(store, row.forKey).length
    const waitMs = row.purpose === 'foreign' ? FOREIGN_TRIES_MS[tries - 1] : undefined
    const { reason: _reason, tries: _tries, updatedAt: _updatedAt, ...rest } = row
    const again = {
      ...rest,
      id: purseMoveKey(row.forKey, tries + 1),
      state: 'planned' as const,
      createdAt: at,
      nextTryAt: at + (waitMs ?? 0),
    }
    await persistIfUnmoved(this.#context, failed, ...(waitMs === undefined ? [] : [insertPurseMove(again)]))
  }

  async #end({ id, state: from }: PurseMove, to: PurseMoveState, reason: string): Promise<void> {
    await persistIfUnmoved(this.#context, stepPurseMove({ id, from, to, reason, nextTryAt: null, at: this.#context.clock.now() }))
  }

  async #wait({ id, state, tries, nextTryAt }: PurseMove, reason: string): Promise<void> {
    const at = this.#context.clock.now()
    if ((nextTryAt ?? 0) > at) return
    await this.#context.store.write(deferPurseMove({ id, state, reason, tries, nextTryAt: at + LOOK_AGAIN_MS, at }))
  }
}

/** Nothing more is to be done about it. */
export const isOver = ({ nextTryAt }: Pick<PurseMove, 'nextTryAt'>): boolean => nextTryAt === null
