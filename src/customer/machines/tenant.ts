/** Rents and steers machines of any node with the customer key: one command at a time, paid at most once, taken up again after a restart. */
import { randomBytes } from 'node:crypto'
import type { Msats } from '../../base/amounts.ts'
import { type Clock, rfc3339 } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { isPylonError, messageOf, PylonError, toPylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import { type ControlCommandInput, controlCommand, READING_COMMANDS } from '../../nostr/control/commands.ts'
import type { RuntimeDescriptor } from '../../nostr/control/descriptor.ts'
import {
  CONTROL_STATUS_KIND,
  type ControlResult,
  type ControlStatus,
  commandDigest,
  decodeReply,
  type StatusEnvelope,
} from '../../nostr/control/envelopes.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import type { Nostr, NostrEvent, Subscription } from '../../nostr/types.ts'
import {
  answerRental,
  claimRental,
  getRental,
  listRentals,
  noteLease,
  noteRentalRefund,
  openRentals,
  type RentalRow,
  rentalsInPayment,
  rentalsOf,
  sweepRentals,
  unwatchRental,
  watchedRentals,
} from '../../store/rentals.ts'
import type { Store } from '../../store/store.ts'
import type { Wallets } from '../../wallet/types.ts'
import { exchange } from './exchange.ts'
import { EXPENSE_ACCOUNT, type LeaseTerms, learnPayment, payLease, redeemRefund } from './lease-payment.ts'
import { type FoundOffer, findOffers, type OfferFilter } from './offers.ts'

export interface TenantDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly nostr: Nostr
  readonly wallets: Wallets
  readonly config: () => Config
}

export interface TenantOrder {
  /** 64 hex digits; the node itself where it is ours. */
  readonly server: string
  readonly command: ControlCommandInput
  readonly idempotencyKey: string
  /** The most that this command may cost; default 100 sats. */
  readonly maxSats?: number
  readonly payWith?: LeaseTerms['payWith']
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

export interface TenantAnswer extends ControlResult {
  readonly requestId: string
  readonly paidMsats: Msats
}

export const DEFAULT_LEASE_MAX_SATS = 100
/** As the control plane has it. */
const DEFAULT_RUN_S = 600
/** What a node needs beyond the time that the command itself names. */
const GRACE_MS = 60_000
/** Pulling an image, booting, and the first reply of a busy relay. */
const PROVISION_MS = 360_000
/** How long a command of before a restart is asked about. */
const OPEN_MS = 24 * 3600_000
const KEEP_MS = 90 * 24 * 3600_000
const LOOK_EVERY_MS = 5 * 60_000
/** After the end of a lease a refund is waited for so long. */
const REFUND_WAIT_MS = 3600_000
const NOTICE_BACKFILL_S = 3600
/** How long a refund is looked for that no lease's end limits: a node sends them for a month. */
const WATCH_MS = 31 * 24 * 3600_000

export class Tenant {
  readonly #deps: TenantDeps
  readonly #closing = new AbortController()
  readonly #running = new Map<string, { readonly digest: string; readonly server: string; readonly answer: Promise<TenantAnswer> }>()
  #background: Promise<void> = Promise.resolve()
  #cancelTimer: () => void = () => undefined
  #notices: Subscription | undefined

  constructor(deps: TenantDeps) {
    this.#deps = deps
  }

  /** Asks what became of commands that a restart cut off, and looks after refunds. */
  start(): void {
    this.#background = this.#settle().catch((error: unknown) =>
      this.#warn(error, 'commands of before the restart could not be asked about'),
    )
    this.#lookLater()
    const { nostr } = this.#deps
    // What a node says unasked: a lease that ends soon, a refund.
    this.#notices = nostr.subscribe({
      name: 'rental-notices',
      filters: [{ kinds: [CONTROL_STATUS_KIND], '#p': [nostr.keyring.customer().pubkey] }],
      backfillS: NOTICE_BACKFILL_S,
      onEvent: (event) => this.#hear(event),
    })
  }

  async close(): Promise<void> {
    this.#closing.abort(new PylonError('shutting_down', 'The node ends; repeat the call with the same Idempotency-Key.'))
    this.#cancelTimer()
    this.#notices?.close()
    await Promise.allSettled([this.#background, ...[...this.#running.values()].map(({ answer }) => answer)])
  }

  /**
   * Sends a command and resolves with the node's result. The same key with the same command joins, or asks the node
   * again, which gives the first answer.
   * @param emit each status as it comes
   * @throws as exchange does; price_too_high, insufficient_funds, payment_failed; idempotency_conflict
   */
  send(order: TenantOrder, emit: (status: ControlStatus) => void): Promise<TenantAnswer> {
    const command = decode(order.command)
    const digest = commandDigest(command)
    const key = order.idempotencyKey
    const running = this.#running.get(key)
    if (running !== undefined) {
      if (running.digest === digest && running.server === order.server) return running.answer
      return Promise.reject(new PylonError('idempotency_conflict', 'This idempotency key is in use for another command or another node.'))
    }
    const answer = this.#send(order, digest, emit).finally(() => this.#running.delete(key))
    this.#running.set(key, { digest, server: order.server, answer })
    return answer
  }

  offers(filter: OfferFilter): Promise<FoundOffer[]> {
    return findOffers(this.#deps, filter)
  }

  async #send(order: TenantOrder, digest: string, emit: (status: ControlStatus) => void): Promise<TenantAnswer> {
    const { store, clock } = this.#deps
    const { server, idempotencyKey: id, command } = order
    if (READING_COMMANDS.includes(command.command)) {
      const requestId = newRequestId()
      const result = await this.#exchange(order, requestId, order.command, emit)
      return { ...result, requestId, paidMsats: paidFor(store, server, result.runtime) }
    }
    const requestId = newRequestId()
    const row = await store.write(claimRental({ id, server, command: command.command, digest, requestId, at: clock.now() }))
    try {
      const result = await this.#exchange(order, row.requestId, order.command, emit)
      await store.write(answerRental({ id, state: 'answered', reason: null, runtimeId: runtimeOf(command, result), at: clock.now() }))
      await learnPayment(this.#deps, id)
      await this.#look(server, result.runtime)
      return { ...result, requestId: row.requestId, paidMsats: paidFor(store, server, result.runtime, id) }
    } catch (error) {
      const known = toPylonError(error)
      // Without an answer nobody knows: the record stays open, and the same key goes on.
      const isOpen = known.retryable || ['timeout', 'shutting_down', 'cancelled'].includes(known.code)
      if (!isOpen) {
        const runtimeId = 'runtime_id' in command ? command.runtime_id : null
        await store.write(answerRental({ id, state: 'refused', reason: known.message.slice(0, 1000), runtimeId, at: clock.now() }))
      }
      await learnPayment(this.#deps, id)
      throw error
    }
  }

  #exchange(
    order: TenantOrder,
    requestId: string,
    command: ControlCommandInput,
    emit: (status: ControlStatus) => void,
  ): Promise<ControlResult> {
    const { server, idempotencyKey, signal } = order
    const terms: LeaseTerms = {
      ...{ maxSats: order.maxSats ?? DEFAULT_LEASE_MAX_SATS, payWith: order.payWith ?? 'invoice' },
      leaseSeconds: leaseSecondsOf(command),
    }
    let current = command
    return exchange(this.#deps, {
      server,
      requestId,
      idempotencyKey,
      command: () => current,
      timeoutMs: order.timeoutMs ?? timeoutOf(command),
      signal: signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]),
      onStatus: async ({ schema: _schema, request_id: _request, ...status }) => {
        emit(status)
        if (status.phase !== 'queued' || status.progress === undefined || !isPayable(current)) return undefined
        const paid = await payLease(this.#deps, idempotencyKey, status, terms)
        if (paid?.by !== 'token' || current.lease_token !== undefined) return undefined
        current = { ...current, lease_token: paid.token }
        return 'resend'
      },
    })
  }

  /** What became of what was sent before this process. */
  async #settle(): Promise<void> {
    const { store, clock } = this.#deps
    for (const row of openRentals(store, clock.now() - OPEN_MS)) {
      if (this.#closing.signal.aborted || this.#running.has(row.id)) continue
      await this.#ask(row).catch((error: unknown) => this.#warn(error, 'what became of a command is not known yet'))
    }
  }

  /** `get_request`: the node keeps answers, since relays do not. */
  async #ask(row: RentalRow): Promise<void> {
    const { store, clock } = this.#deps
    const at = () => clock.now()
    const order: TenantOrder = {
      server: row.server,
      command: { command: 'get_request', key: row.id },
      idempotencyKey: `${row.id}:ask`,
      timeoutMs: GRACE_MS,
    }
    try {
      const { runtime, payload } = await this.#exchange(order, newRequestId(), order.command, () => undefined)
      const state = stateOfRequest(payload)
      if (state === 'running') return
      const runtimeId = fieldsOf(runtime.metadata)?.['summary'] === true ? null : runtime.runtime_id
      await store.write(answerRental({ id: row.id, state: state === 'failed' ? 'refused' : 'answered', reason: null, runtimeId, at: at() }))
      await learnPayment(this.#deps, row.id)
      await this.#look(row.server, runtime)
    } catch (error) {
      if (!isPylonError(error, 'control_refused') || error.details['control_code'] !== 'request_not_found') throw error
      await store.write(answerRental({ id: row.id, state: 'refused', reason: 'the node never got it', runtimeId: null, at: at() }))
    }
  }

  /** What a descriptor says of a lease that we paid: its end, and a refund that is waiting. */
  async #look(server: string, runtime: RuntimeDescriptor): Promise<void> {
    const { store, clock } = this.#deps
    const lease = leaseOf(runtime)
    const [first] = rentalsOf(store, server, runtime.runtime_id).filter((row) => row.paidMsats > 0n)
    if (lease === undefined || first === undefined) return
    const isLate = lease.endsAt !== undefined && clock.now() > lease.endsAt + REFUND_WAIT_MS
    const isDone = lease.state === 'ended' || lease.state === 'refunded' || isLate
    const isOver = isDone && lease.state !== 'refunding' && lease.refundToken === undefined
    const leaseEndsAt = lease.endsAt ?? null
    await store.write(noteLease({ server, runtimeId: runtime.runtime_id, leaseEndsAt, isOver, at: clock.now() }))
    if (lease.refundToken !== undefined) await this.#redeem(first, lease.refundToken)
  }

  async #redeem(row: RentalRow, token: string): Promise<void> {
    const { store, clock } = this.#deps
    try {
      await redeemRefund(this.#deps, row.id, token)
    } catch (error) {
      // Spent: by us, before a crash.
      if (!isPylonError(error, 'token_spent')) return this.#warn(error, 'a refund of a lease could not be redeemed yet')
    }
    await store.write(noteRentalRefund({ id: row.id, account: EXPENSE_ACCOUNT, at: clock.now() }))
  }

  /** Anybody can send such an event: it counts only from a node that we paid, about what we paid for. */
  async #hear(event: NostrEvent): Promise<void> {
    const rented = watchedRentals(this.#deps.store).filter((row) => row.server === event.pubkey)
    const status = rented.length === 0 ? undefined : this.#readStatus(event)
    const row =
      rented.find(({ runtimeId }) => runtimeId !== null && runtimeId === status?.runtime_id) ??
      rented.find(({ requestId }) => requestId === status?.request_id)
    const token = fieldsOf(fieldsOf(status?.progress)?.['refund'])?.['token']
    if (row !== undefined && typeof token === 'string') await this.#redeem(row, token)
  }

  #readStatus(event: NostrEvent): StatusEnvelope | undefined {
    try {
      const reply = decodeReply(event.kind, this.#deps.nostr.keyring.customer().nip44Decrypt(event.pubkey, event.content))
      return reply.type === 'status' ? reply.envelope : undefined
    } catch (error) {
      this.#deps.logger.debug({ event: event.id, err: messageOf(error) }, 'a notice of a node could not be read')
      return undefined
    }
  }

  #lookLater(): void {
    this.#cancelTimer = this.#deps.clock.after(LOOK_EVERY_MS, () => {
      this.#background = this.#background
        .then(() => this.#lookAtAll())
        .catch((error: unknown) => this.#warn(error, 'leases could not be looked at'))
        .finally(() => {
          if (!this.#closing.signal.aborted) this.#lookLater()
        })
    })
  }

  async #lookAtAll(): Promise<void> {
    const { store, clock } = this.#deps
    for (const { id } of rentalsInPayment(store, clock.now() - WATCH_MS)) await learnPayment(this.#deps, id)
    for (const row of watchedRentals(store)) {
      const { id, server, runtimeId, createdAt } = row
      // A token that the node never took came back by itself.
      await store.write(noteRentalRefund({ id, account: EXPENSE_ACCOUNT, at: row.updatedAt }))
      if (clock.now() > createdAt + WATCH_MS && clock.now() > (row.leaseEndsAt ?? 0) + WATCH_MS) await store.write(unwatchRental({ id }))
      if (this.#closing.signal.aborted || runtimeId === null) continue
      const command = { command: 'get_runtime', runtime_id: runtimeId } as const
      const order: TenantOrder = { server, command, idempotencyKey: newRequestId(), timeoutMs: GRACE_MS }
      try {
        await this.#look(server, (await this.#exchange(order, newRequestId(), command, () => undefined)).runtime)
      } catch (error) {
        this.#warn(error, 'a node does not tell about a lease')
        if (isPylonError(error, 'runtime_not_found')) await store.write(unwatchRental({ id }))
      }
    }
    await store.write(sweepRentals({ before: clock.now() - KEEP_MS }))
  }

  #warn(error: unknown, message: string): void {
    if (!this.#closing.signal.aborted) this.#deps.logger.warn({ err: messageOf(error) }, message)
  }
}

export const newRequestId = (): string => `agent-ctl-${randomBytes(8).toString('hex')}`

/** @throws invalid_request */
function decode(command: ControlCommandInput) {
  const parsed = controlCommand.safeParse(command)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new PylonError('invalid_request', `${(issue?.path ?? []).map(String).join('.') || 'command'}: ${issue?.message ?? 'is malformed'}.`)
}

type Payable = Extract<ControlCommandInput, { command: 'provision' | 'run' | 'extend_lease' }>

function isPayable(command: ControlCommandInput): command is Payable {
  return command.command === 'provision' || command.command === 'run' || command.command === 'extend_lease'
}

/** How long is to be paid for; undefined where the node decides. */
function leaseSecondsOf(command: ControlCommandInput): number | undefined {
  if (command.command === 'run') return Math.max(command.timeout_s ?? DEFAULT_RUN_S, command.lease_seconds ?? 0)
  return command.command === 'provision' || command.command === 'extend_lease' ? command.lease_seconds : undefined
}

/** How long the node may take for it, in ms. */
function timeoutOf(command: ControlCommandInput): number {
  switch (command.command) {
    case 'provision':
      return PROVISION_MS
    case 'run':
      return PROVISION_MS + (command.timeout_s ?? DEFAULT_RUN_S) * 1000
    case 'exec':
      return GRACE_MS + (command.timeout_s ?? 60) * 1000
    case 'prompt':
      return GRACE_MS + (command.timeout_s ?? 120) * 1000
    case 'recover':
    case 'restore':
    case 'snapshot':
    case 'teardown':
    case 'extend_lease':
      return 3 * GRACE_MS
    default:
      return GRACE_MS
  }
}

function runtimeOf(command: ControlCommandInput, { runtime }: ControlResult): string {
  return 'runtime_id' in command ? command.runtime_id : runtime.runtime_id
}

function stateOfRequest(payload: Json | undefined): string {
  const found = typeof payload === 'object' && payload !== null && !Array.isArray(payload) ? payload['state'] : undefined
  return typeof found === 'string' ? found : 'succeeded'
}

function leaseOf({ metadata }: RuntimeDescriptor): { state: string; endsAt?: number; refundToken?: string } | undefined {
  const lease = fieldsOf(fieldsOf(metadata)?.['lease'])
  if (lease === undefined || typeof lease['state'] !== 'string') return undefined
  const endsAt = typeof lease['ends_at'] === 'string' ? Date.parse(lease['ends_at']) : Number.NaN
  const token = lease['refund_token']
  return {
    state: lease['state'],
    ...(Number.isNaN(endsAt) ? {} : { endsAt }),
    ...(typeof token === 'string' ? { refundToken: token } : {}),
  }
}

function fieldsOf(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined
}

function paidFor(store: Store, server: string, runtime: RuntimeDescriptor, id?: string): Msats {
  const own = id === undefined ? undefined : getRental(store, id)
  if (own !== undefined) return own.paidMsats
  return rentalsOf(store, server, runtime.runtime_id).reduce((sum, row) => (sum + row.paidMsats) as Msats, 0n as Msats)
}

/** A rental as the control API shows it; also for a node that is stopped. */
export function rentalView(row: RentalRow) {
  return {
    idempotency_key: row.id,
    server: npubOf(row.server),
    command: row.command,
    state: row.state,
    reason: row.reason,
    runtime_id: row.runtimeId,
    amount_msats: row.amountMsats,
    paid_msats: row.paidMsats,
    refunded_msats: row.refundedMsats,
    lease_ends_at: row.leaseEndsAt === null ? null : rfc3339(row.leaseEndsAt),
    created_at: rfc3339(row.createdAt),
    updated_at: rfc3339(row.updatedAt),
  }
}

export const rentalViews = (store: Store, options: { limit: number }) => listRentals(store, options).map(rentalView)
