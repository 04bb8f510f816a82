/** Leases at work: names the price, takes invoice or token, gives the time, and settles or refunds at the end. */
import { createHash } from 'node:crypto'
import { msats, msatsToSatsDown, msatsToSatsUp } from '../../base/amounts.ts'
import { type Clock, rfc3339, unixSeconds } from '../../base/clock.ts'
import type { RuntimesConfig } from '../../base/config-runtimes.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import type { ControlStatus } from '../../nostr/control/envelopes.ts'
import { leasePriceMsats } from '../../nostr/control/offers.ts'
import type { Command } from '../../store/commands.ts'
import {
  countRefunds,
  getLease,
  insertLease,
  type LeaseRow,
  type LeaseStep,
  leasesIn,
  leasesOf,
  moveLease,
  patchLease,
} from '../../store/leases.ts'
import { accountBalance, postEntry } from '../../store/ledger.ts'
import { patchRuntime } from '../../store/runtimes.ts'
import type { Store } from '../../store/store.ts'
import type { Wallet, WalletEvent } from '../../wallet/types.ts'
import { persist, persistIfUnmoved } from '../jobs/context.ts'
import { createRefunds, type Refunds } from '../refunds.ts'
import type { RuntimeClass } from './classes.ts'
import { fail, toControlError } from './failures.ts'
import { depositAccount, type EndedBy, invoiceKey, refundKey, settleLease } from './settlement.ts'
import { canStepLease } from './states.ts'

/** A token may be worth this beyond twice the price: what is over has to go back, and fills the mint meanwhile. */
const MAX_OVER_SATS = 64n

export interface LeaseDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly config: () => RuntimesConfig
  /** The node's wallet. @throws locked */
  readonly wallet: () => Wallet
  readonly mints: () => readonly string[]
  /** Tells a tenant outside of any command of theirs. */
  readonly notify: (tenant: string, runtimeId: string, status: ControlStatus) => readonly Command<unknown>[]
  readonly nudge: () => void
}

export interface LeaseTerms {
  readonly id: string
  readonly runtimeId: string
  readonly tenant: string
  readonly entry: RuntimeClass
  readonly seconds: number
  readonly extendsId: string | null
}

type Emit = (status: ControlStatus) => void

export interface LeaseDesk {
  /** @throws ControlError invalid_command when the class does not rent for so long */
  terms(entry: RuntimeClass, seconds: number | undefined): number
  /** A lease in `quoted`, as part of the commit that makes what it is for. */
  open(terms: LeaseTerms): Command<unknown>
  /** Names the price, redeems a token if there is one, and waits until it is paid. @throws ControlError payment_failed, payment_required */
  awaitPayment(leaseId: string, options: { token: string | undefined; emit: Emit; signal: AbortSignal }): Promise<void>
  /** A token that came with a repeat of the command. @throws ControlError payment_failed */
  redeem(leaseId: string, token: string): Promise<void>
  /** Gives the time: from `at`, or from the end of the lease that it extends. @param notBefore (ms) the runtime is not ended */
  activate(runtimeId: string, at: number, notBefore?: number): readonly Command<unknown>[]
  /** Ends all leases of a runtime. */
  end(runtimeId: string, by: EndedBy, at: number): readonly Command<unknown>[]
  /** Ends one that was paid and brought nothing. */
  giveBack(leaseId: string, at: number): readonly Command<unknown>[]
  /** After a commit that ended leases: sends the refunds that are due, and tells who waits for payment. */
  wake(): void
  refundToken(lease: LeaseRow): string | undefined
  onWalletEvent(event: WalletEvent): Promise<void>
  /** Takes payments that were settled while nobody listened, and lets quotes expire. */
  tick(): Promise<void>
  close(): Promise<void>
}

/** A legal step as a command. @throws Error for an illegal one, which is a fault of ours */
function stepLease(p: LeaseStep): Command<void> {
  if (!canStepLease(p.from, p.to)) throw new Error(`A lease cannot go from ${p.from} to ${p.to}.`)
  return moveLease(p)
}

export function createLeaseDesk(deps: LeaseDeps): LeaseDesk {
  const { store, clock, logger } = deps
  /** Woken when a lease leaves `quoted`. */
  const waiters = new Map<string, Set<() => void>>()
  const refunds: Refunds = createRefunds(deps, {
    due: (now) =>
      leasesIn(store, ['refunding'])
        .filter((lease) => (lease.refundNextAt ?? 0) <= now)
        .map((lease) => lease.id),
    owed(id) {
      const lease = getLease(store, id)
      if (lease?.state !== 'refunding') return undefined
      return {
        idempotencyKey: currentRefundKey(id),
        cause: { type: 'lease', id },
        amountSats: msatsToSatsDown(lease.refundMsats),
        mintUrl: lease.mintUrl,
        pubkey: lease.tenantPubkey,
        debitAccount: depositAccount(id),
        sends: lease.refundSends,
      }
    },
    deliver(id, token) {
      const lease = getLease(store, id)
      if (lease === undefined) return []
      const refund = { lease_id: id, amount_msats: Number(lease.refundMsats), token }
      const message = `what was not used of the lease goes back: ${lease.reason}`
      return deps.notify(lease.tenantPubkey, lease.runtimeId, {
        phase: 'teardown',
        runtime_id: lease.runtimeId,
        message,
        progress: { refund },
      })
    },
    note: ({ id, sends, nextAt, at }) => patchLease({ id, patch: { refundSends: sends, refundNextAt: nextAt }, at }),
    onClaimed,
  })

  async function onClaimed(id: string): Promise<void> {
    const at = clock.now()
    const step = { id, from: 'refunding', to: 'refunded', reason: 'the tenant spent the refund', at } as const
    await persistIfUnmoved(deps, stepLease({ ...step, patch: { refundNextAt: null } }))
    // What was paid meanwhile goes back next.
    await takePayment(id)
  }

  const currentRefundKey = (id: string) => refundKey(id, countRefunds(store, id))

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

  /** Looks at the books: what the deposit holds is what was paid, however often we are told. */
  async function takePayment(id: string, mintUrl?: string): Promise<void> {
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
    void refunds.run()
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
    try {
      const needed = msatsToSatsUp(lease.priceMsats)
      const { netSats } = await deps.wallet().inspectToken(token)
      if (netSats > needed * 2n + MAX_OVER_SATS)
        throw fail('payment_failed', `the token is worth ${netSats} sats and ${needed} are asked`, 'send one of about the amount')
      const received = await deps.wallet().receiveToken({
        idempotencyKey: `lease:${leaseId}:token:${createHash('sha256').update(token).digest('hex').slice(0, 16)}`,
        cause: { type: 'lease', id: leaseId },
        token,
        creditAccount: depositAccount(leaseId),
        minNetSats: needed,
      })
      await takePayment(leaseId, received.mintUrl)
      // The wallet's event may have been first: what goes back goes to the mint that it came from.
      if (getLease(store, leaseId)?.mintUrl !== received.mintUrl)
        await persist(deps, patchLease({ id: leaseId, patch: { mintUrl: received.mintUrl }, at: clock.now() }))
    } catch (error) {
      // Whether it came is for the wallet to find out: then its event says.
      if (isPylonError(error, 'payment_unknown')) return
      throw toControlError(error, 'payment_failed')
    }
  }

  async function lapse(lease: LeaseRow): Promise<void> {
    const invoice = lease.paymentRequest === null ? undefined : deps.wallet().invoice(invoiceKey(lease.id))
    if (invoice?.state === 'settled') return await takePayment(lease.id, invoice.mintUrl)
    // Paid, and on its way into the wallet.
    if (invoice?.state === 'paid') return
    const until = lease.paymentExpiresAt ?? lease.createdAt + deps.config().payment_expiry_s * 1000
    if (until > clock.now()) return
    const step = { id: lease.id, from: 'quoted', to: 'expired', reason: 'the invoice ran out', at: clock.now() } as const
    if (await persistIfUnmoved(deps, stepLease(step))) wakeWaiters(lease.id)
  }

  function ending(lease: LeaseRow, by: EndedBy, at: number): readonly Command<unknown>[] {
    const { id } = lease
    if (lease.state === 'quoted') return [stepLease({ id, from: 'quoted', to: 'expired', reason: 'nobody wants it any more', at })]
    if (lease.state !== 'paid' && lease.state !== 'active') return []
    const reason = { tenant: 'the tenant left', time: 'the time is up', completed: 'the run is over', node: 'the node could not keep it' }[
      by
    ]
    // Money for time that never began goes back, whoever ended it.
    const { refundMsats, entry } = settleLease(lease, lease.state === 'paid' ? 'node' : by, at)
    const post = entry === undefined ? [] : [postEntry(entry)]
    if (refundMsats === 0n) return [...post, stepLease({ id, from: lease.state, to: 'ended', reason, at })]
    return [...post, stepLease({ id, from: lease.state, to: 'refunding', reason, at, patch: { refundMsats, refundNextAt: at } })]
  }

  return {
    terms(entry, seconds = entry.min_lease_s) {
      if (seconds >= entry.min_lease_s && seconds <= entry.max_lease_s) return seconds
      throw fail('invalid_command', `lease_seconds: the class ${entry.name} rents for ${entry.min_lease_s} to ${entry.max_lease_s} s`)
    },

    open({ id, runtimeId, tenant, entry, seconds, extendsId }) {
      const perHour = msats(entry.price_msats_per_hour)
      const price = msats(leasePriceMsats(perHour, seconds))
      const at = clock.now()
      return insertLease({ id, runtimeId, tenantPubkey: tenant, priceMsatsPerHour: perHour, seconds, priceMsats: price, extendsId, at })
    },

    async awaitPayment(leaseId, { token, emit, signal }) {
      const lease = getLease(store, leaseId)
      if (lease !== undefined && outcome(lease) === 'waiting') {
        if (token !== undefined) await redeem(leaseId, token)
        else {
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
    },

    redeem,

    activate(runtimeId, at, notBefore = 0) {
      const leases = leasesOf(store, runtimeId)
      let endsAt = Math.max(at, ...leases.filter((lease) => lease.state === 'active').map((lease) => lease.endsAt ?? 0))
      const commands = leases
        .filter((lease) => lease.state === 'paid')
        .map((lease) => {
          const startsAt = endsAt
          endsAt = startsAt + lease.seconds * 1000
          return stepLease({
            id: lease.id,
            from: 'paid',
            to: 'active',
            reason: `until ${rfc3339(endsAt)}`,
            at,
            patch: { startsAt, endsAt },
          })
        })
      return commands.length === 0
        ? []
        : [...commands, patchRuntime({ id: runtimeId, patch: { expiresAt: Math.max(endsAt, notBefore) }, at })]
    },

    end(runtimeId, by, at) {
      return leasesOf(store, runtimeId).flatMap((lease) => ending(lease, by, at))
    },

    giveBack(leaseId, at) {
      const lease = getLease(store, leaseId)
      return lease?.state === 'paid' ? ending(lease, 'node', at) : []
    },

    wake() {
      for (const id of [...waiters.keys()]) if (getLease(store, id)?.state !== 'quoted') wakeWaiters(id)
      void refunds.run()
    },

    refundToken: (lease) => (lease.state === 'refunding' ? deps.wallet().sentToken(currentRefundKey(lease.id))?.token : undefined),

    async onWalletEvent(event) {
      const { id } = event.cause
      if (event.type === 'invoice_settled' || event.type === 'token_received') await takePayment(id)
      else if (event.type === 'sent_claimed' && event.idempotencyKey === currentRefundKey(id)) await onClaimed(id)
    },

    async tick() {
      for (const lease of leasesIn(store, ['quoted'])) {
        await lapse(lease).catch((error: unknown) =>
          logger.warn({ lease_id: lease.id, error: messageOf(error) }, 'a quote could not be looked at'),
        )
      }
      const noticeMs = deps.config().lease_notice_s * 1000
      const active = leasesIn(store, ['active'])
      for (const lease of active) {
        const last = active.every((other) => other.runtimeId !== lease.runtimeId || (other.endsAt ?? 0) <= (lease.endsAt ?? 0))
        if (!last || lease.noticeSent || (lease.endsAt ?? 0) - noticeMs > clock.now()) continue
        const progress = {
          lease_id: lease.id,
          ends_at: Math.floor((lease.endsAt ?? 0) / 1000),
          seconds_left: Math.max(0, Math.floor((lease.endsAt ?? 0) / 1000) - unixSeconds(clock)),
        }
        const status: ControlStatus = {
          phase: 'ready',
          runtime_id: lease.runtimeId,
          message: 'the lease ends soon; extend_lease prolongs it',
          progress,
        }
        await persist(
          deps,
          patchLease({ id: lease.id, patch: { noticeSent: true }, at: clock.now() }),
          ...deps.notify(lease.tenantPubkey, lease.runtimeId, status),
        )
        deps.nudge()
      }
      await refunds.run()
    },

    async close() {
      await refunds.close()
    },
  }
}
