/** Leases at work: opened, paid, given time, told of their end, and settled or refunded then. */
import { msats, msatsToSatsUp } from '../../base/amounts.ts'
import { rfc3339, unixSeconds } from '../../base/clock.ts'
import type { RuntimesConfig } from '../../base/config-runtimes.ts'
import { isPylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import { News } from '../../base/news.ts'
import type { Scope } from '../../base/scope.ts'
import type { ControlStatus } from '../../nostr/control/envelopes.ts'
import { leasePriceMsats } from '../../nostr/control/offers.ts'
import { isUnheard } from '../../nostr/keys/away.ts'
import type { Command } from '../../store/commands.ts'
import { persist, persistIfUnmoved } from '../../store/persist.ts'
import { getLease, insertLease, isActive, type LeaseRow, leasesIn, leasesOf, patchLease } from '../../store/selling/leases.ts'
import { patchRuntime } from '../../store/selling/runtimes.ts'
import { hasPaid } from '../../store/selling/unpaid-jobs.ts'
import type { Store } from '../../store/store.ts'
import type { Wallet, WalletEvent } from '../../wallet/types.ts'
import { Sales } from '../sale/sales.ts'
import type { RuntimeClass } from './classes.ts'
import { fail, toControlError } from './failures.ts'
import type { EndedBy } from './lease-end.ts'
import { LeaseProduct, type LeaseSale } from './lease-product.ts'
import type { Emit } from './machines.ts'

/** A token may be worth this beyond twice the price: what is over has to go back, and fills the mint meanwhile. */
const MAX_OVER_SATS = 64n
/** Who waits for payment looks again, whatever it hears. */
const LOOK_MS = 60_000
/** Those who wait for payment look at their own lease whenever one has moved: there are few of them. */
const MOVED = 'leases'

export interface LeaseDeps {
  readonly store: Store
  readonly scope: Scope
  readonly logger: Logger
  readonly config: () => RuntimesConfig
  /** The node's wallet. @throws locked */
  readonly wallet: () => Wallet
  readonly mints: () => readonly string[]
  /** Tells a tenant outside of any command of theirs. */
  /** What is told again until it is: a notice before the end, what goes back. @throws bunker_unreachable */
  readonly notify: (tenant: string, runtimeId: string, status: ControlStatus) => Promise<readonly Command<unknown>[]>
  readonly nudge: () => void
}

export interface LeaseTerms {
  readonly id: string
  readonly runtimeId: string
  readonly tenant: string
  readonly entry: RuntimeClass
  readonly seconds: number
  readonly extendsId: string | null
  /** A token came with the command. */
  readonly byToken: boolean
}

export class LeaseDesk {
  readonly #deps: LeaseDeps
  readonly #product: LeaseProduct
  readonly #sales: Sales<LeaseSale>
  readonly #news: News
  /** Whose token is being redeemed by a call, which says itself how that ended. */
  readonly #redeeming = new Set<string>()

  constructor(deps: LeaseDeps) {
    this.#deps = deps
    this.#news = new News(deps.scope)
    this.#product = new LeaseProduct(deps, {
      onTurn: () => this.#news.tell(MOVED),
      tokenFailed: (leaseId, reason) => this.#tokenFailed(leaseId, reason),
    })
    this.#sales = new Sales(deps, this.#product)
  }

  /** @throws ControlError invalid_command when the class does not rent for so long */
  terms(entry: RuntimeClass, seconds = entry.min_lease_s): number {
    if (seconds >= entry.min_lease_s && seconds <= entry.max_lease_s) return seconds
    throw fail('invalid_command', `lease_seconds: the class ${entry.name} rents for ${entry.min_lease_s} to ${entry.max_lease_s} s`)
  }

  /** A lease in `quoted`, as part of the commit that makes what it is for. */
  open({ tenant, entry, ...terms }: LeaseTerms): Command<unknown> {
    const priceMsatsPerHour = msats(entry.price_msats_per_hour)
    const priceMsats = msats(leasePriceMsats(priceMsatsPerHour, terms.seconds))
    return insertLease({ ...terms, tenantPubkey: tenant, priceMsatsPerHour, priceMsats, at: this.#now() })
  }

  /** Names the price, or redeems a token if there is one, and waits until it is paid. @throws ControlError payment_failed, payment_required */
  async awaitPayment(
    leaseId: string,
    { token, emit, signal }: { token: string | undefined; emit: Emit; signal: AbortSignal },
  ): Promise<void> {
    const { store, scope } = this.#deps
    const lease = getLease(store, leaseId)
    if (lease !== undefined && isWaiting(lease)) {
      if (token !== undefined) await this.redeem(leaseId, token)
      // The token came before a restart: the wallet says what became of it, or the repeat of the command brings it again.
      else if (!lease.byToken) emit(await this.#bill(lease))
    }
    while (isWaiting(getLease(store, leaseId))) {
      signal.throwIfAborted()
      if (scope.isClosing) throw fail('shutting_down', 'the node is shutting down')
      await this.#news.next(MOVED, LOOK_MS, signal)
    }
  }

  /** A token that came with the command, or with a repeat of it. @throws ControlError payment_failed */
  async redeem(leaseId: string, token: string): Promise<void> {
    const lease = getLease(this.#deps.store, leaseId)
    if (lease?.state !== 'quoted') return
    // From here on nobody is shown a bill for it, also after a restart that knows nothing of the token.
    if (!lease.byToken) await this.#note(leaseId, { byToken: true })
    this.#redeeming.add(leaseId)
    try {
      await this.#sales.redeem(lease, token, {
        requireLock: false,
        admit: async (inspect) => {
          const needed = msatsToSatsUp(lease.priceMsats)
          const { netSats } = await inspect()
          if (netSats > needed * 2n + MAX_OVER_SATS)
            throw fail('payment_failed', `the token is worth ${netSats} sats and ${needed} are asked`, 'send one of about the amount')
        },
      })
    } catch (error) {
      // Whether it came is for the wallet to find out: then its event says.
      if (isPylonError(error, 'payment_unknown')) return
      if (!lease.byToken) await this.#note(leaseId, { byToken: false })
      throw toControlError(error, 'payment_failed')
    } finally {
      this.#redeeming.delete(leaseId)
    }
  }

  /** Whether an invoice of this lease is still to be paid. */
  isDue(leaseId: string): boolean {
    const lease = getLease(this.#deps.store, leaseId)
    return lease?.state === 'quoted' && !lease.byToken
  }

  /** Gives the time: from `at`, or from the end of the lease that it extends. @param notBefore (ms) the runtime is not ended */
  activate(runtimeId: string, at: number, notBefore = 0): readonly Command<unknown>[] {
    const leases = leasesOf(this.#deps.store, runtimeId)
    let endsAt = Math.max(at, ...leases.filter(isActive).map(({ time }) => time.endsAt))
    const commands = leases
      .filter((lease) => lease.state === 'paid')
      .map((lease) => {
        const startsAt = endsAt
        endsAt = startsAt + lease.seconds * 1000
        return this.#product.step(lease, 'active', `until ${rfc3339(endsAt)}`, at, { time: { startsAt, endsAt } })
      })
    if (commands.length === 0) return []
    return [...commands, patchRuntime({ id: runtimeId, patch: { expiresAt: Math.max(endsAt, notBefore) }, at })]
  }

  /** Ends all leases of a runtime. */
  end(runtimeId: string, by: EndedBy, at: number): readonly Command<unknown>[] {
    return leasesOf(this.#deps.store, runtimeId).flatMap((lease) => this.#product.end(lease, by, at))
  }

  /** Ends one that was paid and brought nothing. */
  giveBack(leaseId: string, at: number): readonly Command<unknown>[] {
    const lease = getLease(this.#deps.store, leaseId)
    return lease?.state === 'paid' ? this.#product.end(lease, 'node', at) : []
  }

  /** After a commit that ended leases: sends the refunds that are due, and tells who waits for payment. */
  wake(): void {
    this.#news.tell(MOVED)
    this.#deps.scope.spawn('refunds', () => this.#sales.refunds.run())
  }

  refundToken({ id, state }: LeaseRow): string | undefined {
    return state === 'refunding' ? this.#sales.refunds.token(id) : undefined
  }

  onWalletEvent = (event: WalletEvent): Promise<void> => this.#sales.onWalletEvent(event)

  /** What only time brings about: payments that nobody told of, quotes that run out, notices, refunds. */
  async tick(): Promise<void> {
    await this.#sales.expire()
    await this.#sales.reconcile()
    // While the node's key is away: at the next tick.
    await this.#giveNotice().catch((error: unknown) => {
      if (!isUnheard(error)) throw error
    })
    await this.#sales.refunds.run()
  }

  async #giveNotice(): Promise<void> {
    const { store, config, notify } = this.#deps
    const noticeMs = config().lease_notice_s * 1000
    const active = leasesIn(store, ['active']).filter(isActive)
    for (const { id, runtimeId, tenantPubkey, noticeSent, time } of active) {
      const isLast = active.every((other) => other.runtimeId !== runtimeId || other.time.endsAt <= time.endsAt)
      if (!isLast || noticeSent || time.endsAt - noticeMs > this.#now()) continue
      const endsAtS = Math.floor(time.endsAt / 1000)
      const progress = { lease_id: id, ends_at: endsAtS, seconds_left: Math.max(0, endsAtS - unixSeconds(this.#deps.scope.clock)) }
      const message = 'the lease ends soon; extend_lease prolongs it'
      const notice = await notify(tenantPubkey, runtimeId, { phase: 'ready', runtime_id: runtimeId, message, progress })
      await persist(this.#deps, patchLease({ id, patch: { noticeSent: true }, at: this.#now() }), ...notice)
      this.#deps.nudge()
    }
  }

  /** An invoice over the price, made once, as the tenant is told of it. @throws ControlError payment_failed */
  async #bill(lease: LeaseRow): Promise<ControlStatus> {
    const { store, config, mints, wallet } = this.#deps
    let { bill } = lease
    try {
      if (bill === null) {
        const invoice = await this.#sales.bill({
          id: lease.id,
          priceMsats: lease.priceMsats,
          description: `Lease of a runtime, ${lease.seconds} s`,
          expiresAt: this.#now() + config().payment_expiry_s * 1000,
          ofStranger: !hasPaid(store, lease.tenantPubkey),
        })
        bill = { request: invoice.request, expiresAt: invoice.expiresAt }
        await this.#note(lease.id, { bill, mintUrl: invoice.mintUrl })
      }
      const progress = {
        payment_required: true,
        lease_id: lease.id,
        lease_seconds: lease.seconds,
        price_msats_per_hour: Number(lease.priceMsatsPerHour),
        amount_msats: Number(msatsToSatsUp(lease.priceMsats)) * 1000,
        invoice: bill.request,
        mints: [...mints()],
        lock_pubkey: wallet().lockPubkey,
        expires_at: Math.floor(bill.expiresAt / 1000),
      }
      return { phase: 'queued', runtime_id: lease.runtimeId, message: 'waiting for payment', progress }
    } catch (error) {
      throw toControlError(error, 'payment_failed')
    }
  }

  async #tokenFailed(id: string, why: string): Promise<void> {
    const lease = getLease(this.#deps.store, id)
    // While the call is under way it says so itself; with an invoice there is another way to pay.
    if (lease?.state !== 'quoted' || !lease.byToken || lease.bill !== null || this.#redeeming.has(id)) return
    const reason = `the token could not be redeemed: ${why}`.slice(0, 300)
    if (await persistIfUnmoved(this.#deps, this.#product.step(lease, 'expired', reason, this.#now()))) this.#news.tell(MOVED)
  }

  async #note(id: string, patch: Parameters<typeof patchLease>[0]['patch']): Promise<void> {
    await persist(this.#deps, patchLease({ id, patch, at: this.#now() }))
  }

  #now(): number {
    return this.#deps.scope.clock.now()
  }
}

/** Whether it is still to be paid; false when it was. @throws ControlError payment_required when it will not be any more */
function isWaiting(lease: LeaseRow | undefined): boolean {
  if (lease?.state === 'quoted') return true
  if (lease?.state === 'paid' || lease?.state === 'active') return false
  throw fail(
    'payment_required',
    lease?.reason ?? 'the lease is over',
    'send the command again with a new idempotency key for a new invoice',
  )
}
