/** Leases as what is sold: what their steps note, when they are earned, and how their tenant hears of a refund. */
import { type Msats, msats } from '../../base/amounts.ts'
import type { LeaseState } from '../../base/states.ts'
import type { ControlStatus } from '../../nostr/control/envelopes.ts'
import type { Command } from '../../store/commands.ts'
import { saleSettled } from '../../store/keys.ts'
import { depositNow, depositOf, postEntry } from '../../store/money/ledger.ts'
import { countRefunds, getLease, type LeasePatch, type LeaseRow, leasesIn, moveLease, patchLease } from '../../store/selling/leases.ts'
import { type BackReason, type SaleState, settle } from '../sale/machine.ts'
import type { Product, RefundWord, Sale, SalePatch, SaleStep } from '../sale/product.ts'
import type { LeaseDeps } from './lease-desk.ts'
import { type EndedBy, NODE_ENDED, priceOfEnding } from './lease-end.ts'

/** A lease as a sale: `paid` until its time is over. */
export const SALE_OF_LEASE: Readonly<Record<LeaseState, SaleState>> = {
  quoted: 'quoted',
  expired: 'expired',
  paid: 'paid',
  active: 'paid',
  ended: 'earned',
  refunding: 'refunding',
  refunded: 'refunded',
}

export type LeaseProductDeps = Pick<LeaseDeps, 'store' | 'config' | 'notify'>

export interface LeaseHooks {
  /** It does not wait for payment any more, or not as it did. */
  onTurn(leaseId: string): void
  tokenFailed(leaseId: string, reason: string): Promise<void>
}

/** The sale of a lease, with the row that shows it. */
export interface LeaseSale extends Sale {
  readonly lease: LeaseRow
}

const BACK_REASONS: Readonly<Record<BackReason, string>> = {
  late: 'paid too late',
  little: 'paid less than the price',
  withdrawn: 'nobody wants it any more',
  again: 'paid after its end',
}

const END_REASONS: Readonly<Record<EndedBy, string>> = {
  tenant: 'the tenant left',
  time: 'the time is up',
  completed: 'the run is over',
  node: NODE_ENDED,
}

export class LeaseProduct implements Product<LeaseSale> {
  readonly type = 'lease'
  readonly #deps: LeaseProductDeps
  readonly #hooks: LeaseHooks

  constructor(deps: LeaseProductDeps, hooks: LeaseHooks) {
    this.#deps = deps
    this.#hooks = hooks
  }

  get(id: string): LeaseSale | undefined {
    const lease = getLease(this.#deps.store, id)
    if (lease === undefined) return undefined
    return {
      id,
      transport: 'control',
      state: SALE_OF_LEASE[lease.state],
      priceMsats: lease.priceMsats,
      paidMsats: lease.paidMsats,
      // Whoever is late has to ask again: the place may be another's.
      wantedUntil: lease.state === 'quoted' ? Number.MAX_SAFE_INTEGER : 0,
      payerPubkey: lease.tenantPubkey,
      mintUrl: lease.mintUrl,
      refundSends: lease.refundSends,
      isPayersDoing: lease.reason !== NODE_ENDED,
      lease,
    }
  }

  overdue(nowMs: number): readonly string[] {
    const expiryMs = this.#deps.config().payment_expiry_s * 1000
    const isOver = (lease: LeaseRow) => (lease.bill?.expiresAt ?? lease.createdAt + expiryMs) <= nowMs
    return leasesIn(this.#deps.store, ['quoted'])
      .filter(isOver)
      .map((lease) => lease.id)
  }

  refundsDue(nowMs: number): readonly string[] {
    return leasesIn(this.#deps.store, ['refunding'])
      .filter((lease) => (lease.refundNextAt ?? 0) <= nowMs)
      .map((lease) => lease.id)
  }

  refundsBegun = (id: string) => countRefunds(this.#deps.store, id)

  paid = (sale: LeaseSale, patch: SalePatch, at: number) => this.#turning(sale, [this.step(sale.lease, 'paid', 'paid', at, patch)])

  expired = (sale: LeaseSale, at: number) => this.#turning(sale, [this.step(sale.lease, 'expired', 'the invoice ran out', at)])

  back(sale: LeaseSale, why: BackReason, patch: SalePatch, at: number): SaleStep {
    const { lease } = sale
    const reason = BACK_REASONS[why]
    if (why === 'again') return { commands: [this.step(lease, 'refunding', reason, at, patch)] }
    const paid = this.step(lease, 'paid', reason, at, patch)
    return this.#turning(sale, [paid, this.step({ ...lease, state: 'paid' }, 'refunding', reason, at, patch)])
  }

  refunded = ({ lease }: LeaseSale, reason: string, at: number) => this.step(lease, 'refunded', reason, at, { refundNextAt: null })

  note = ({ id }: LeaseSale, patch: SalePatch, at: number) => patchLease({ id, patch, at })

  async tell({ id, lease }: LeaseSale, word: RefundWord): Promise<readonly Command<unknown>[]> {
    const say = (message: string, more: Pick<ControlStatus, 'progress'> = {}) =>
      this.#deps.notify(lease.tenantPubkey, lease.runtimeId, { phase: 'teardown', runtime_id: lease.runtimeId, message, ...more })
    switch (word.type) {
      case 'token': {
        const refund = { lease_id: id, amount_msats: Number(lease.refundMsats), token: word.token }
        return await say(`what was not used of the lease goes back: ${lease.reason}`, { progress: { refund } })
      }
      // The end of the lease was told already.
      case 'deferred':
        return []
      case 'forgone':
        return await say(word.reason)
    }
  }

  tokenFailed = (id: string, reason: string) => this.#hooks.tokenFailed(id, reason)

  /** A step as a command. */
  step({ id, state }: Pick<LeaseRow, 'id' | 'state'>, to: LeaseState, reason: string, at: number, patch?: LeasePatch): Command<void> {
    return moveLease({ id, from: state, to, reason, at, ...(patch === undefined ? {} : { patch }) })
  }

  /** Ends one: what was had of it is earned, and what was paid beyond goes back. */
  end(lease: LeaseRow, by: EndedBy, at: number): readonly Command<unknown>[] {
    if (lease.state === 'quoted') return [this.step(lease, 'expired', 'nobody wants it any more', at)]
    if (lease.state !== 'paid' && lease.state !== 'active') return []
    const cause = { type: 'lease', id: lease.id } as const
    const { paidMsats, heldMsats } = depositNow(this.#deps.store, cause)
    const dueMsats: Msats = msats(priceOfEnding(lease, by, at))
    const { refundMsats, postings } = settle(depositOf(cause), heldMsats, { dueMsats, income: 'lease', over: 'back', internal: false })
    const post = postings.length === 0 ? [] : [postEntry({ id: saleSettled(cause), cause, at, postings })]
    if (refundMsats === 0n) return [...post, this.step(lease, 'ended', END_REASONS[by], at, { paidMsats })]
    return [...post, this.step(lease, 'refunding', END_REASONS[by], at, { paidMsats, refundMsats, refundNextAt: at })]
  }

  #turning({ id }: LeaseSale, commands: readonly Command<unknown>[]): SaleStep {
    return { commands, done: () => this.#hooks.onTurn(id) }
  }
}
