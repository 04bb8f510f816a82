/**
 * Standing payouts: what a wallet holds above its owner's limit leaves by itself, to a Lightning address or as a locked token.
 *
 *   rule -> begun (a row with its key) -> address checked against its pin, invoice stored -> paid by the wallet under that key -> ended
 *
 * A payout is one row and one operation of the wallet, whatever ends the node in between; what nobody can say yet is waited for, and
 * while it is, no other of that wallet begins.
 */
import { accountOf, accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { sats } from '../../base/amounts.ts'
import { doublingMs } from '../../base/backoff.ts'
import type { Clock } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import type { Dialer } from '../../base/dialer.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { Logger } from '../../base/logger.ts'
import { randomUuid } from '../../base/random.ts'
import type { Scope } from '../../base/scope.ts'
import { payoutKey } from '../../store/keys.ts'
import { operationByKey } from '../../store/money/operations.ts'
import {
  beginPayout,
  dropPayoutRule,
  endPayout,
  getPayout,
  getPayoutRule,
  listPayoutRules,
  openPayouts,
  type PayoutEnd,
  type PayoutRow,
  type PayoutRule,
  type PayoutTarget,
  setPayoutRule,
  setSweeping,
} from '../../store/money/payouts.ts'
import { inputFeesOf } from '../../store/money/proofs.ts'
import type { Store } from '../../store/store.ts'
import { invoiceOfAddress } from '../lightning/addresses.ts'
import { parseDestination } from '../lightning/destination.ts'
import { fetchPayParameters } from '../lightning/lnurl.ts'
import { asSentToken } from '../operations/outcomes.ts'
import type { Wallets } from '../types.ts'
import { assertSamePin, pinOf } from './pin.ts'
import { lessFees, type PayoutAsk, type PayoutPlan, type PayoutView, planPayout } from './plan.ts'

export interface PayoutsDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly config: () => Config
  readonly dialer: Pick<Dialer, 'fetch'>
  readonly wallets: Pick<Wallets, 'of'>
  /** Puts a token where its owner finds it; the same name again replaces it. @returns the path */
  readonly writeToken: (name: string, token: string) => string
}

export interface PayoutOrder {
  readonly owner: WalletOwner
  /** An address, or the compressed key that tokens are locked to. */
  readonly target: { readonly address: string } | { readonly lockTo: string }
  readonly aboveSats: bigint
  readonly keepSats: bigint
}

const LOOK_MS = 30_000
/** After failures in a row. */
const AGAIN = { minMs: 60_000, maxMs: 6 * 3_600_000 }
/** Of one sweep; more go on at the next look. */
const MOST_AT_ONCE = 20

export class Payouts {
  readonly #deps: PayoutsDeps
  /** Of one wallet one thing at a time. */
  readonly #turns = new KeyedQueue()

  constructor(deps: PayoutsDeps) {
    this.#deps = deps
  }

  start(): void {
    const { scope } = this.#deps
    scope.spawn('look', () => this.look())
    scope.every('look', LOOK_MS, () => this.look())
  }

  /** Goes on with what is open, and begins what is due; each wallet by itself. */
  look(): void {
    const { store, scope } = this.#deps
    const owners = new Map([...openPayouts(store), ...listPayoutRules(store)].map(({ owner }) => [owner.pubkey, owner]))
    for (const owner of owners.values())
      scope.spawnOnce(`payout of ${owner.pubkey}`, () => this.#turns.run(owner.pubkey, () => this.#sweep(owner)))
  }

  /**
   * @returns the rule, which holds from now on in place of another
   * @throws destination_invalid, lnurl_invalid, fetch_failed, address_refused, amount_invalid
   */
  async set({ owner, target, aboveSats, keepSats }: PayoutOrder): Promise<PayoutRule> {
    const { store, clock } = this.#deps
    if (keepSats < 0n || aboveSats <= keepSats)
      throw new PylonError('amount_invalid', `--above (${aboveSats}) must be more than --keep (${keepSats}).`)
    const found = 'lockTo' in target ? tokenTarget(target.lockTo) : await this.#addressTarget(target.address, aboveSats - keepSats)
    await store.write(setPayoutRule({ owner, target: found, aboveSats, keepSats, at: clock.now() }))
    this.look()
    return this.rule(owner)
  }

  async #addressTarget(address: string, spareSats: bigint): Promise<PayoutTarget> {
    const destination = parseDestination(address)
    if (destination.type !== 'lnurl')
      throw new PylonError('destination_invalid', 'A payout goes out again and again: name a Lightning address or an LNURL.')
    const { url } = destination
    const parameters = await fetchPayParameters(this.#deps.dialer, url)
    const first = lessFees(spareSats + 1n, 0n, this.#deps.config().wallet.max_fee_percent)
    if (first * 1000n < parameters.minMsats)
      throw new PylonError(
        'amount_invalid',
        `The address takes at least ${parameters.minMsats} msats, and a payout could be ${first} sats, less fees: put --above further from --keep.`,
      )
    return { type: 'address', name: address.trim(), url, pin: pinOf(url, parameters) }
  }

  /** Nothing leaves by itself any more; what is under way ends as it does. @throws payout_missing */
  async off(owner: WalletOwner): Promise<void> {
    const { store, clock } = this.#deps
    if (!(await store.write(dropPayoutRule({ owner, at: clock.now() })))) throw missing()
  }

  /** @throws payout_missing */
  rule(owner: WalletOwner): PayoutRule {
    const rule = getPayoutRule(this.#deps.store, owner)
    if (rule === undefined) throw missing()
    return rule
  }

  /** What would leave next, or why nothing does, in words. @throws payout_missing */
  plan(owner: WalletOwner, because: PayoutAsk['because']): PayoutPlan | string {
    return this.#planOf(this.rule(owner), because)
  }

  /**
   * Down to what stays, whatever the upper limit; in turn with what goes by itself.
   * @returns the payouts of it in order, and why no more @throws payout_missing, payout_address_changed
   */
  now(owner: WalletOwner): Promise<{ readonly payouts: readonly PayoutRow[]; readonly reason: string }> {
    return this.#turns.run(owner.pubkey, async () => {
      const { state, failure } = this.rule(owner)
      if (state === 'stopped') throw new PylonError('payout_address_changed', failure?.message ?? 'The payout is stopped.')
      return await this.#sweep(owner, 'now')
    })
  }

  async #sweep(owner: WalletOwner, asked?: 'now'): Promise<{ payouts: PayoutRow[]; reason: string }> {
    const { store, clock } = this.#deps
    const payouts: PayoutRow[] = []
    for (const open of openPayouts(store).filter((row) => row.owner.pubkey === owner.pubkey)) await this.#goOn(open)
    while (payouts.length < MOST_AT_ONCE) {
      const rule = getPayoutRule(store, owner)
      if (openPayouts(store).some((row) => row.owner.pubkey === owner.pubkey))
        return { payouts, reason: 'what became of a payout is not known yet' }
      if (rule === undefined || rule.state === 'stopped') return { payouts, reason: 'there is no payout, or it is stopped' }
      if (asked === undefined && (rule.nextTryAt ?? 0) > clock.now()) return { payouts, reason: 'it failed and is tried again later' }
      const plan = this.#planOf(rule, payouts.length > 0 || rule.sweeping ? 'sweep' : (asked ?? 'above'))
      if (typeof plan === 'string') {
        if (rule.sweeping) await store.write(setSweeping({ owner, sweeping: false }))
        if (asked === undefined || payouts.length > 0 || !rule.sweeping) return { payouts, reason: plan }
        continue
      }
      const row = await this.#begin(rule, plan)
      if (row === undefined) continue
      await this.#work(row, rule)
      const ended = this.#row(row.id)
      payouts.push(ended)
      if (ended.state !== 'paid') return { payouts, reason: ended.failure?.message ?? 'what became of it is not known yet' }
    }
    return { payouts, reason: 'that is enough at once' }
  }

  #planOf(rule: PayoutRule, because: PayoutAsk['because']): PayoutPlan | string {
    const { aboveSats, keepSats, targetType: type, pin } = rule
    const ask = { type, because, aboveSats, keepSats, maxFeePercent: this.#deps.config().wallet.max_fee_percent }
    return planPayout(this.#view(rule.owner), { ...ask, ...(pin === null ? {} : { mostSats: BigInt(pin.mostSats) }) })
  }

  #view(owner: WalletOwner): PayoutView {
    const { store, wallets } = this.#deps
    const { balanceSats, owedSats, mints } = wallets.of(owner).balance()
    const fees = inputFeesOf(store, owner.pubkey)
    return { balanceSats, owedSats, mints: mints.map((mint) => ({ ...mint, inputFeeSats: fees.get(mint.url) ?? 0n })) }
  }

  /** Stored before anything is asked or spent. @returns undefined where the rule is another by now */
  async #begin(rule: PayoutRule, { limitSats, amountSats }: PayoutPlan): Promise<PayoutRow | undefined> {
    const { store, clock, scope } = this.#deps
    const id = randomUuid(scope.random)
    const { owner, targetType, target, setAt: ruleSetAt } = rule
    const row = { id, owner, idempotencyKey: payoutKey.of(id), ruleSetAt, targetType, target, amountSats, limitSats }
    return (await store.write(beginPayout({ ...row, at: clock.now() }))) ? this.#row(id) : undefined
  }

  /** After a restart, or while its outcome was not known: what has no operation yet is begun only where it would be begun now. */
  async #goOn(row: PayoutRow): Promise<void> {
    const { store } = this.#deps
    if (row.state === 'unknown' || this.#wordOf(row) !== undefined) return await this.#settle(row)
    const rule = getPayoutRule(store, row.owner)
    const isSame = rule?.setAt === row.ruleSetAt && rule.state === 'on'
    const plan = isSame ? this.#planOf(rule, 'now') : 'the payout was set anew or turned off'
    if (rule !== undefined && typeof plan !== 'string' && plan.limitSats >= row.limitSats) return await this.#work(row, rule)
    const why = typeof plan === 'string' ? plan : `only ${plan.limitSats} sats are above what stays`
    await this.#settle(row, new PylonError('conflict', `The payout was not made: ${why}.`))
  }

  async #work(row: PayoutRow, rule: PayoutRule): Promise<void> {
    try {
      if (rule.url === null) await this.#send(row, rule)
      else await this.#pay(row, rule, rule.url)
    } catch (error) {
      // What ends because the node does is gone on with after its next start; a fault of ours is not an outcome.
      if (!isPylonError(error) || isPylonError(error, 'shutting_down')) throw error
      return await this.#settle(row, error)
    }
    await this.#settle(row)
  }

  async #pay(row: PayoutRow, { target, pin }: PayoutRule, url: string): Promise<void> {
    const { wallets } = this.#deps
    const { owner, idempotencyKey, amountSats, limitSats } = row
    const invoice = await invoiceOfAddress(this.#deps, {
      ...{ idempotencyKey, url, amountSats, comment: '' },
      check: (parameters) => {
        if (pin !== null) assertSamePin(pin, pinOf(url, parameters))
      },
    })
    const move = { idempotencyKey, cause: { type: 'owner', id: idempotencyKey }, debitAccount: withdrawal(owner) } as const
    await wallets
      .of(owner)
      .pay(
        { ...move, request: invoice, amountMsats: amountSats * 1000n, maxFeeSats: sats(limitSats - amountSats) },
        { subject: 'payout', counterparty: target, names: [new URL(url).hostname] },
      )
  }

  async #send(row: PayoutRow, { lockTo }: PayoutRule): Promise<void> {
    const { owner, idempotencyKey, limitSats } = row
    const move = { idempotencyKey, cause: { type: 'owner', id: idempotencyKey }, debitAccount: withdrawal(owner) } as const
    const spend = { subject: 'payout', counterparty: lockTo?.slice(2) }
    await this.#deps.wallets
      .of(owner)
      .sendToken({ ...move, amountSats: sats(limitSats), lessFee: true, ...(lockTo === null ? {} : { lockTo }) }, spend)
  }

  /** Ends it by what the wallet says of its key, which is all that counts. @param error why it went no further */
  async #settle(row: PayoutRow, error?: PylonError): Promise<void> {
    const { store, clock, logger } = this.#deps
    const end = this.#endOf(row, error)
    if (end.to === row.state) return
    await store.write(endPayout({ id: row.id, end, at: clock.now() }))
    const told = { payout: row.id, to: row.target, sats: Number(row.amountSats) }
    if (end.to === 'failed') logger.warn({ ...told, code: end.code, reason: end.message }, 'a payout failed')
    else logger.info({ ...told, state: end.to }, 'a payout')
  }

  #endOf(row: PayoutRow, error?: PylonError): PayoutEnd {
    const { store, clock } = this.#deps
    const said = this.#wordOf(row)
    if (said !== undefined && 'to' in said) return said
    const code = error?.code ?? said?.code ?? 'internal'
    const message = error?.message ?? said?.message ?? 'Nothing was sent.'
    if (code === 'payout_address_changed') return { to: 'failed', code, message, tryAt: null }
    const failures = getPayoutRule(store, row.owner)?.failures ?? 0
    return { to: 'failed', code, message, tryAt: clock.now() + doublingMs(AGAIN, failures + 1) }
  }

  /** What the wallet says of the key of a payout: that it went through, is not known yet, or failed; undefined where it has done nothing for it. */
  #wordOf(row: PayoutRow): Exclude<PayoutEnd, { to: 'failed' }> | { readonly code: string; readonly message: string } | undefined {
    const { store, wallets, writeToken } = this.#deps
    if (row.targetType === 'address') {
      const payment = wallets.of(row.owner).payment(row.idempotencyKey)
      if (payment?.state === 'failed') return { code: 'payment_failed', message: payment.reason }
      if (payment?.state === 'unknown') return { to: 'unknown' }
      return payment === undefined ? undefined : { to: 'paid', amountSats: row.amountSats, feeSats: payment.feeSats, file: null }
    }
    const operation = operationByKey(store, row.idempotencyKey)
    if (operation === undefined || operation.state === 'failed') return operation?.error
    if (operation.state !== 'completed') return { to: 'unknown' }
    const { token, amountSats, feeSats } = asSentToken(operation)
    const day = new Date(row.createdAt).toISOString().slice(0, 10)
    return { to: 'paid', amountSats, feeSats, file: writeToken(`${day}-${row.id.slice(0, 8)}.token`, token) }
  }

  #row(id: string): PayoutRow {
    const row = getPayout(this.#deps.store, id)
    if (row === undefined) throw new PylonError('internal', `There is no payout ${id}.`)
    return row
  }
}

const withdrawal = (owner: WalletOwner) => accountOf(accountOwner(owner), 'equity', 'withdrawal')

const tokenTarget = (lockTo: string): PayoutTarget => {
  if (!/^0[23][0-9a-f]{64}$/.test(lockTo))
    throw new PylonError('pubkey_invalid', 'The key to lock tokens to must be 02 or 03 and 64 hex digits, or an npub.')
  return { type: 'token', name: lockTo, lockTo }
}

const missing = () =>
  new PylonError('payout_missing', 'This wallet has no payout: pylon wallet payout set ADDRESS --above SATS --keep SATS')
