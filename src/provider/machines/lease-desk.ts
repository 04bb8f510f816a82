/** Leases at work: opened, paid, given time, told of their end, and settled or refunded then. */
import { msats, msatsToSatsDown } from '../../base/amounts.ts'
import { rfc3339, unixSeconds } from '../../base/clock.ts'
import type { ControlStatus } from '../../nostr/control/envelopes.ts'
import { leasePriceMsats } from '../../nostr/control/offers.ts'
import type { Command } from '../../store/commands.ts'
import { saleRefundKey } from '../../store/keys.ts'
import { postEntry } from '../../store/money/ledger.ts'
import { persist, persistIfUnmoved } from '../../store/persist.ts'
import { countRefunds, getLease, insertLease, type LeaseRow, leasesIn, leasesOf, patchLease } from '../../store/selling/leases.ts'
import { patchRuntime } from '../../store/selling/runtimes.ts'
import type { WalletEvent } from '../../wallet/types.ts'
import { createRefunds, type Refunds } from '../refunds.ts'
import type { RuntimeClass } from './classes.ts'
import { fail } from './failures.ts'
import { createLeasePayments, type LeasePaymentDeps, type LeasePayments, stepLease } from './lease-payments.ts'
import { depositAccount, type EndedBy, NODE_ENDED, settleLease } from './settlement.ts'

export interface LeaseDeps extends LeasePaymentDeps {
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
  /** A token came with the command. */
  readonly byToken: boolean
}

export interface LeaseDesk extends Pick<LeasePayments, 'awaitPayment' | 'redeem' | 'isDue' | 'tick'> {
  /** @throws ControlError invalid_command when the class does not rent for so long */
  terms(entry: RuntimeClass, seconds: number | undefined): number
  /** A lease in `quoted`, as part of the commit that makes what it is for. */
  open(terms: LeaseTerms): Command<unknown>
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
  close(): Promise<void>
}

export function createLeaseDesk(deps: LeaseDeps): LeaseDesk {
  const { store, clock } = deps
  const payments = createLeasePayments(deps, () => void refunds.run())
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
        causedByPayer: lease.reason !== NODE_ENDED,
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
    // The end of the lease was told already.
    deferred: () => [],
    note: ({ id, sends, nextAt, at }) => patchLease({ id, patch: { refundSends: sends, refundNextAt: nextAt }, at }),
    forgo(id, reason) {
      const end = stepLease({ id, from: 'refunding', to: 'refunded', reason, at: clock.now(), patch: { refundNextAt: null } })
      const lease = getLease(store, id)
      if (lease === undefined) return [end]
      const { tenantPubkey, runtimeId } = lease
      return [end, ...deps.notify(tenantPubkey, runtimeId, { phase: 'teardown', runtime_id: runtimeId, message: reason })]
    },
    onClaimed,
  })

  async function onClaimed(id: string): Promise<void> {
    const at = clock.now()
    // Told of twice, it must not end the refund that came after it.
    if (deps.wallet().sentToken(currentRefundKey(id))?.state !== 'claimed') return
    const step = { id, from: 'refunding', to: 'refunded', reason: 'the tenant spent the refund', at } as const
    await persistIfUnmoved(deps, stepLease({ ...step, patch: { refundNextAt: null } }))
    // What was paid meanwhile goes back next.
    await payments.take(id)
  }

  const currentRefundKey = (id: string) => saleRefundKey({ type: 'lease', id }, countRefunds(store, id))

  function ending(lease: LeaseRow, by: EndedBy, at: number): readonly Command<unknown>[] {
    const { id } = lease
    if (lease.state === 'quoted') return [stepLease({ id, from: 'quoted', to: 'expired', reason: 'nobody wants it any more', at })]
    if (lease.state !== 'paid' && lease.state !== 'active') return []
    const reason = { tenant: 'the tenant left', time: 'the time is up', completed: 'the run is over', node: NODE_ENDED }[by]
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

    open({ id, runtimeId, tenant, entry, seconds, extendsId, byToken }) {
      const perHour = msats(entry.price_msats_per_hour)
      const price = msats(leasePriceMsats(perHour, seconds))
      const at = clock.now()
      return insertLease({
        id,
        runtimeId,
        tenantPubkey: tenant,
        priceMsatsPerHour: perHour,
        seconds,
        priceMsats: price,
        extendsId,
        byToken,
        at,
      })
    },

    awaitPayment: payments.awaitPayment,
    redeem: payments.redeem,
    isDue: payments.isDue,

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
      payments.wake()
      void refunds.run()
    },

    refundToken: (lease) => (lease.state === 'refunding' ? deps.wallet().sentToken(currentRefundKey(lease.id))?.token : undefined),

    async onWalletEvent(event) {
      const { id } = event.cause
      if (event.type === 'invoice_settled' || event.type === 'token_received') await payments.take(id)
      else if (event.type === 'receive_failed') await payments.fail(id, event.reason)
      else if (event.type === 'sent_claimed' && event.idempotencyKey === currentRefundKey(id)) await onClaimed(id)
    },

    async tick() {
      await payments.tick()
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
