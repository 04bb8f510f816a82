/** Looks after what may come back of leases that we paid: hears what nodes say unasked, asks them now and then, redeems refunds. */
import { isPylonError, messageOf } from '../../base/errors.ts'
import { asRecord, type Json, parseJson } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import type { ControlCommandInput } from '../../nostr/control/commands.ts'
import type { RuntimeDescriptor } from '../../nostr/control/descriptor.ts'
import { CONTROL_STATUS_KIND, type ControlResult } from '../../nostr/control/envelopes.ts'
import type { Nostr, NostrEvent } from '../../nostr/types.ts'
import { causesWithRefund } from '../../store/buying/refund-tokens.ts'
import {
  noteLease,
  noteRentalRefund,
  paidRentals,
  type RentalRow,
  rentalsInPayment,
  rentalsOf,
  rentalsToTakeBack,
  sweepRentals,
  unwatchRental,
  watchedRentals,
} from '../../store/buying/rentals.ts'
import { rentalKey } from '../../store/keys.ts'
import { customerWallet } from '../funding.ts'
import { RefundTokens } from '../refund-tokens.ts'
import { LEASE_EXPENSE_ACCOUNT, type LeasePaymentDeps, learnPayment } from './lease-payment.ts'

const KEEP_MS = 90 * 24 * 3600_000
const LOOK_EVERY_MS = 5 * 60_000
/** After the end of a lease a refund is waited for so long. */
const REFUND_WAIT_MS = 3600_000
const NOTICE_BACKFILL_S = 3600
/** How long a refund is looked for that no lease's end limits: a node sends them for a month. */
const WATCH_MS = 31 * 24 * 3600_000

export interface RentalWatchDeps extends LeasePaymentDeps {
  readonly scope: Scope
  readonly logger: Logger
  readonly nostr: Pick<Nostr, 'keyring' | 'subscribe'>
}

export class RentalWatch {
  readonly #deps: RentalWatchDeps
  readonly #ask: (server: string, command: ControlCommandInput) => Promise<ControlResult>
  readonly #refunds: RefundTokens
  readonly #scope: Scope

  /** @param ask sends a command that only looks */
  constructor(deps: RentalWatchDeps, ask: (server: string, command: ControlCommandInput) => Promise<ControlResult>) {
    this.#deps = deps
    this.#ask = ask
    this.#refunds = new RefundTokens(deps)
    this.#scope = deps.scope.child('rentals', { onFailure: ({ error }) => this.#warn(error, 'leases could not be looked at') })
  }

  start(): void {
    this.#scope.every('look', LOOK_EVERY_MS, () => this.#lookAtAll())
    const { nostr } = this.#deps
    // What a node says unasked: a lease that ends soon, a refund.
    const notices = nostr.subscribe({
      name: 'rental-notices',
      filters: [{ kinds: [CONTROL_STATUS_KIND], '#p': [nostr.keyring.customer().pubkey] }],
      backfillS: NOTICE_BACKFILL_S,
      onEvent: (event) => this.#hear(event),
    })
    this.#scope.atEnd('notices', () => notices.close())
  }

  /** What a descriptor says of a lease that we paid: its end, and a refund that is waiting. */
  async look(server: string, runtime: RuntimeDescriptor): Promise<void> {
    const { store, clock } = this.#deps
    const lease = leaseOf(runtime)
    const [first] = rentalsOf(store, server, runtime.runtime_id).filter((row) => row.paidMsats > 0n)
    if (lease === undefined || first === undefined) return
    const isLate = lease.endsAt !== undefined && clock.now() > lease.endsAt + REFUND_WAIT_MS
    const isDone = lease.state === 'ended' || lease.state === 'refunded' || isLate
    const isOver = isDone && lease.state !== 'refunding' && lease.refundToken === undefined
    const leaseEndsAt = lease.endsAt ?? null
    await store.write(noteLease({ server, runtimeId: runtime.runtime_id, leaseEndsAt, isOver, at: clock.now() }))
    if (lease.refundToken === undefined) return
    await this.#refunds.keep(causeOf(first.id), lease.refundToken, server)
    await this.#redeem(first)
  }

  async #redeem({ id }: Pick<RentalRow, 'id'>): Promise<void> {
    const { store, clock } = this.#deps
    await this.#refunds.redeem(causeOf(id), causeOf(id), LEASE_EXPENSE_ACCOUNT)
    await store.write(noteRentalRefund({ id, account: LEASE_EXPENSE_ACCOUNT, at: clock.now() }))
  }

  /** Anybody can send such an event: it counts only from a node that we paid, about what we paid for. */
  async #hear(event: NostrEvent): Promise<void> {
    const rented = paidRentals(this.#deps.store, event.pubkey)
    const notice = rented.length === 0 ? undefined : this.#readNotice(event)
    const row =
      rented.find(({ runtimeId }) => runtimeId !== null && runtimeId === notice?.runtimeId) ??
      rented.find(({ requestId }) => requestId === notice?.requestId)
    if (row === undefined || notice?.refundToken === undefined) return
    await this.#refunds.keep(causeOf(row.id), notice.refundToken, event.pubkey)
    await this.#redeem(row)
  }

  /** Of a status what a refund needs, whatever else in it can't be read. */
  #readNotice(event: NostrEvent): { runtimeId: unknown; requestId: unknown; refundToken: string | undefined } | undefined {
    try {
      const text = this.#deps.nostr.keyring.customer().nip44Decrypt(event.pubkey, event.content)
      const { runtime_id, request_id, progress } = asRecord(parseJson(text) as Json)
      const token = asRecord(asRecord(progress)['refund'])['token']
      return { runtimeId: runtime_id, requestId: request_id, refundToken: typeof token === 'string' ? token : undefined }
    } catch (error) {
      if (isPylonError(error, 'locked')) throw error
      this.#deps.logger.debug({ event: event.id, err: messageOf(error) }, 'a notice of a node could not be read')
      return undefined
    }
  }

  async #lookAtAll(): Promise<void> {
    const { store, clock } = this.#deps
    for (const { id } of rentalsInPayment(store, clock.now() - WATCH_MS)) await learnPayment(this.#deps, id)
    for (const row of rentalsToTakeBack(store, clock.now())) await this.#takeBack(row)
    for (const row of watchedRentals(store)) {
      const { id, server, runtimeId, createdAt } = row
      // A token that its owner took back came back, too.
      await store.write(noteRentalRefund({ id, account: LEASE_EXPENSE_ACCOUNT, at: row.updatedAt }))
      if (clock.now() > createdAt + WATCH_MS && clock.now() > (row.leaseEndsAt ?? 0) + WATCH_MS) await store.write(unwatchRental({ id }))
      if (this.#scope.isClosing || runtimeId === null) continue
      const command = { command: 'get_runtime', runtime_id: runtimeId } as const
      try {
        await this.look(server, (await this.#ask(server, command)).runtime)
      } catch (error) {
        this.#warn(error, 'a node does not tell about a lease')
        if (isPylonError(error, 'runtime_not_found')) await store.write(unwatchRental({ id }))
      }
    }
    for (const cause of causesWithRefund(store)) {
      const id = rentalKey.idIn(cause)
      if (id !== undefined) await this.#redeem({ id })
    }
    await store.write(sweepRentals({ before: clock.now() - KEEP_MS }))
  }

  /** The node never took the token, and was long enough the only one who could. */
  async #takeBack({ id, paymentKey }: RentalRow): Promise<void> {
    if (paymentKey === null) return
    try {
      await customerWallet(this.#deps).reclaim(paymentKey)
      await this.#deps.store.write(noteRentalRefund({ id, account: LEASE_EXPENSE_ACCOUNT, at: this.#deps.clock.now() }))
    } catch (error) {
      this.#warn(error, 'the token of a lease could not be taken back yet')
    }
  }

  #warn(error: unknown, message: string): void {
    if (!this.#scope.isClosing) this.#deps.logger.warn({ err: messageOf(error) }, message)
  }
}

/** As the ledger names what a rental cost. */
const causeOf = (id: string): string => rentalKey.of(id)

function leaseOf({ metadata }: RuntimeDescriptor): { state: string; endsAt?: number; refundToken?: string } | undefined {
  const lease = asRecord(asRecord(metadata)['lease'])
  if (typeof lease['state'] !== 'string') return undefined
  const endsAt = typeof lease['ends_at'] === 'string' ? Date.parse(lease['ends_at']) : Number.NaN
  const token = lease['refund_token']
  return {
    state: lease['state'],
    ...(Number.isNaN(endsAt) ? {} : { endsAt }),
    ...(typeof token === 'string' ? { refundToken: token } : {}),
  }
}
