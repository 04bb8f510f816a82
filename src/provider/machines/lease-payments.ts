/** The payments of leases: names the price, takes invoice or token, and tells who waits. */
import { msats, msatsToSatsUp } from '../../base/amounts.ts'
import type { Clock } from '../../base/clock.ts'
import type { RuntimesConfig } from '../../base/config-runtimes.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import type { ControlStatus } from '../../nostr/control/envelopes.ts'
import type { Command } from '../../store/commands.ts'
import { saleTokenKey } from '../../store/keys.ts'
import { accountBalance, depositsFor } from '../../store/money/ledger.ts'
import { persist, persistIfUnmoved } from '../../store/persist.ts'
import { getLease, type LeaseRow, type LeaseStep, leasesIn, moveLease, patchLease } from '../../store/selling/leases.ts'
import { hasPaid } from '../../store/selling/unpaid-jobs.ts'
import type { Store } from '../../store/store.ts'
import type { Wallet } from '../../wallet/types.ts'
import { fail, toControlError } from './failures.ts'
import { depositAccount, invoiceKey } from './settlement.ts'
import { canStepLease } from './states.ts'

/** A token may be worth this beyond twice the price: what is over has to go back, and fills the mint meanwhile. */
const MAX_OVER_SATS = 64n

export interface LeasePaymentDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly config: () => RuntimesConfig
  /** The node's wallet. @throws locked */
  readonly wallet: () => Wallet
  readonly mints: () => readonly string[]
}

type Emit = (status: ControlStatus) => void

/** A legal step as a command. @throws Error for an illegal one, which is a fault of ours */
export function stepLease(p: LeaseStep): Command<void> {
  if (!canStepLease(p.from, p.to)) throw new Error(`A lease cannot go from ${p.from} to ${p.to}.`)
  return moveLease(p)
}

export interface LeasePayments {
  /** Names the price, or redeems a token if there is one, and waits until it is paid. @throws ControlError payment_failed, payment_required */
  awaitPayment(leaseId: string, options: { token: string | undefined; emit: Emit; signal: AbortSignal }): Promise<void>
  /** A token that came with a repeat of the command. @throws ControlError payment_failed */
  redeem(leaseId: string, token: string): Promise<void>
  /** Whether an invoice of this lease is still to be paid. */
  isDue(leaseId: string): boolean
  /** The wallet's word that a token whose outcome was open did not come. */
  fail(leaseId: string, reason: string): Promise<void>
  /** Looks at the books: what the deposit holds is what was paid, however often we are told. */
  take(leaseId: string): Promise<void>
  /** Tells those whose lease does not wait for payment any more. */
  wake(): void
  /** Takes payments that were settled while nobody listened, and lets quotes expire. */
  tick(): Promise<void>
}

/** @param onTaken after a payment was written: it may have to go back */
export function createLeasePayments(deps: LeasePaymentDeps, onTaken: () => void): LeasePayments {
  const { store, clock, logger } = deps
  /** Woken when a lease leaves `quoted`. */
  const waiters = new Map<string, Set<() => void>>()
  const redeeming = new Set<string>()

  function wakeWaiters(id: string): void {
    for (const wake of waiters.get(id) ?? []) wake()
  }

  async function quote(lease: LeaseRow): Promise<LeaseRow> {
    if (lease.paymentRequest !== null) return lease
    const expiresAt = clock.now() + deps.config().payment_expiry_s * 1000
    const invoice = await deps.wallet().createInvoice({
      idempotencyKey: invoiceKey(lease.id),
      cause: { type: 'lease', id: lease.id },
      amountSats: msatsToSatsUp(lease.priceMsats),
      description: `Lease of a runtime, ${lease.seconds} s`,
      creditAccount: depositAccount(lease.id),
      expiresAt,
      ofStranger: !hasPaid(store, lease.tenantPubkey),
    })
    const paymentExpiresAt = Math.min(expiresAt, invoice.expiresAt)
    const patch = { paymentRequest: invoice.request, paymentExpiresAt, mintUrl: invoice.mintUrl }
    await persist(deps, patchLease({ id: lease.id, patch, at: clock.now() }))
    return { ...lease, ...patch }
  }

  function paymentStatus(lease: LeaseRow): ControlStatus {
    const progress: Json = {
      payment_required: true,
      lease_id: lease.id,
      lease_seconds: lease.seconds,
      price_msats_per_hour: Number(lease.priceMsatsPerHour),
      amount_msats: Number(msatsToSatsUp(lease.priceMsats)) * 1000,
      invoice: lease.paymentRequest ?? '',
      mints: [...deps.mints()],
      lock_pubkey: deps.wallet().lockPubkey,
      expires_at: Math.floor((lease.paymentExpiresAt ?? 0) / 1000),
    }
    return { phase: 'queued', runtime_id: lease.runtimeId, message: 'waiting for payment', progress }
  }

  async function take(id: string, mintUrl?: string): Promise<void> {
    for (let attempt = 0; attempt < 5; attempt++) {
      const lease = getLease(store, id)
      if (lease === undefined) {
        logger.error({ lease_id: id }, 'a payment came for a lease that is not known')
        return
      }
      const paidMsats = msats(-accountBalance(store, depositAccount(id)))
      const isOver = lease.state === 'ended' || lease.state === 'refunded'
      if (paidMsats <= 0n || (!isOver && paidMsats <= lease.paidMsats)) return
      const at = clock.now()
      // Of one that is over the deposit holds what came since.
      const total = msats(isOver ? lease.paidMsats + paidMsats : paidMsats)
      const paid = { paidMsats: total, ...(mintUrl === undefined ? {} : { mintUrl }) }
      const back = { refundMsats: paidMsats, refundSends: 0, refundNextAt: at }
      if (lease.state === 'quoted' && paidMsats >= lease.priceMsats) {
        if (await persistIfUnmoved(deps, stepLease({ id, from: 'quoted', to: 'paid', reason: 'paid', at, patch: paid }))) break
      } else if (lease.state === 'quoted' || lease.state === 'expired') {
        const reason = lease.state === 'quoted' ? 'paid less than the price' : 'paid too late'
        const toPaid = stepLease({ id, from: lease.state, to: 'paid', reason, at, patch: paid })
        if (await persistIfUnmoved(deps, toPaid, stepLease({ id, from: 'paid', to: 'refunding', reason, at, patch: back }))) break
      } else if (lease.state === 'ended' || lease.state === 'refunded') {
        const patch = { ...paid, ...back }
        if (await persistIfUnmoved(deps, stepLease({ id, from: lease.state, to: 'refunding', reason: 'paid after its end', at, patch })))
          break
      } else if (lease.state === 'paid' || lease.state === 'active') {
        // Paid twice: what is over the price goes back at the end.
        await persist(deps, patchLease({ id, patch: paid, at }))
        break
      } else return
    }
    wakeWaiters(id)
    onTaken()
  }

  /** The end of `awaitPayment`, when there is one. */
  function outcome(lease: LeaseRow | undefined): 'paid' | 'waiting' {
    if (lease?.state === 'quoted') return 'waiting'
    if (lease?.state === 'paid' || lease?.state === 'active') return 'paid'
    throw fail(
      'payment_required',
      lease?.reason ?? 'the lease is over',
      'send the command again with a new idempotency key for a new invoice',
    )
  }

  async function redeem(leaseId: string, token: string): Promise<void> {
    const lease = getLease(store, leaseId)
    if (lease?.state !== 'quoted') return
    // From here on nobody is shown a bill for it, also after a restart that knows nothing of the token.
    if (!lease.byToken) await persist(deps, patchLease({ id: leaseId, patch: { byToken: true }, at: clock.now() }))
    redeeming.add(leaseId)
    try {
      const needed = msatsToSatsUp(lease.priceMsats)
      const { netSats } = await deps.wallet().inspectToken(token)
      if (netSats > needed * 2n + MAX_OVER_SATS)
        throw fail('payment_failed', `the token is worth ${netSats} sats and ${needed} are asked`, 'send one of about the amount')
      const received = await deps.wallet().receiveToken({
        idempotencyKey: saleTokenKey({ type: 'lease', id: leaseId }, token),
        cause: { type: 'lease', id: leaseId },
        token,
        creditAccount: depositAccount(leaseId),
        minNetSats: needed,
      })
      await take(leaseId, received.mintUrl)
      // The wallet's event may have been first: what goes back goes to the mint that it came from.
      if (getLease(store, leaseId)?.mintUrl !== received.mintUrl)
        await persist(deps, patchLease({ id: leaseId, patch: { mintUrl: received.mintUrl }, at: clock.now() }))
    } catch (error) {
      // Whether it came is for the wallet to find out: then its event says.
      if (isPylonError(error, 'payment_unknown')) return
      if (!lease.byToken) await persist(deps, patchLease({ id: leaseId, patch: { byToken: false }, at: clock.now() }))
      throw toControlError(error, 'payment_failed')
    } finally {
      redeeming.delete(leaseId)
    }
  }

  async function lapse(lease: LeaseRow): Promise<void> {
    const invoice = lease.paymentRequest === null ? undefined : deps.wallet().invoice(invoiceKey(lease.id))
    if (invoice?.state === 'settled') return await take(lease.id, invoice.mintUrl)
    // Paid, and on its way into the wallet.
    if (invoice?.state === 'paid') return
    const until = lease.paymentExpiresAt ?? lease.createdAt + deps.config().payment_expiry_s * 1000
    if (until > clock.now()) return
    const step = { id: lease.id, from: 'quoted', to: 'expired', reason: 'the invoice ran out', at: clock.now() } as const
    if (await persistIfUnmoved(deps, stepLease(step))) wakeWaiters(lease.id)
  }

  async function awaitPayment(
    leaseId: string,
    { token, emit, signal }: { token: string | undefined; emit: Emit; signal: AbortSignal },
  ): Promise<void> {
    const lease = getLease(store, leaseId)
    if (lease !== undefined && outcome(lease) === 'waiting') {
      if (token !== undefined) await redeem(leaseId, token)
      // The token came before a restart: the wallet says what became of it, or the repeat of the command brings it again.
      else if (!lease.byToken) {
        try {
          emit(paymentStatus(await quote(lease)))
        } catch (error) {
          throw toControlError(error, 'payment_failed')
        }
      }
    }
    while (outcome(getLease(store, leaseId)) === 'waiting') {
      await new Promise<void>((resolve, reject) => {
        const wake = () => done(resolve)
        const stop = () => done(() => reject(signal.reason))
        const done = (then: () => void) => {
          const others = waiters.get(leaseId)
          others?.delete(wake)
          if (others?.size === 0) waiters.delete(leaseId)
          signal.removeEventListener('abort', stop)
          then()
        }
        if (signal.aborted) return reject(signal.reason)
        signal.addEventListener('abort', stop, { once: true })
        waiters.set(leaseId, (waiters.get(leaseId) ?? new Set()).add(wake))
      })
    }
  }

  async function failToken(id: string, reason: string): Promise<void> {
    const lease = getLease(store, id)
    // While the call is under way it says so itself; with an invoice there is another way to pay.
    if (lease?.state !== 'quoted' || !lease.byToken || lease.paymentRequest !== null || redeeming.has(id)) return
    const step = {
      id,
      from: 'quoted',
      to: 'expired',
      reason: `the token could not be redeemed: ${reason}`.slice(0, 300),
      at: clock.now(),
    } as const
    if (await persistIfUnmoved(deps, stepLease(step))) wakeWaiters(id)
  }

  return {
    awaitPayment,
    redeem,
    fail: failToken,
    isDue(id) {
      const lease = getLease(store, id)
      return lease?.state === 'quoted' && !lease.byToken
    },
    take,

    wake() {
      for (const id of [...waiters.keys()]) if (getLease(store, id)?.state !== 'quoted') wakeWaiters(id)
    },

    async tick() {
      for (const lease of leasesIn(store, ['quoted'])) {
        await lapse(lease).catch((error: unknown) =>
          logger.warn({ lease_id: lease.id, error: messageOf(error) }, 'a quote could not be looked at'),
        )
      }
      // A payment may have come while its lease was being ended, or its event may be lost: the books know it.
      for (const id of depositsFor(store, 'lease').keys()) if (getLease(store, id) !== undefined) await take(id)
    },
  }
}
