/** Rents and steers machines of any node with the customer key: one command at a time, paid at most once, taken up again after a restart. */

import { type Msats, msats } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { isPylonError, messageOf, PylonError, toPylonError } from '../../base/errors.ts'
import { asRecord, type Json } from '../../base/json.ts'
import { type Random, randomHex } from '../../base/random.ts'
import { type ControlCommandInput, READING_COMMANDS } from '../../nostr/control/commands.ts'
import type { RuntimeDescriptor } from '../../nostr/control/descriptor.ts'
import { type ControlResult, type ControlStatus, commandDigest } from '../../nostr/control/envelopes.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { answerRental, claimRental, getRental, listRentals, openRentals, type RentalRow, rentalsOf } from '../../store/buying/rentals.ts'
import { feesOfCause } from '../../store/money/swap-fees.ts'
import type { Store } from '../../store/store.ts'
import type { CustomerDeps } from '../deps.ts'
import { decodeOrder, GRACE_MS, isPayable, leaseSecondsOf, runtimeOf, timeoutMsOf } from './command-facts.ts'
import { exchange, isSilence } from './exchange.ts'
import { causeOf, type LeaseTerms, learnPayment, payLease } from './lease-payment.ts'
import { type FoundOffer, findOffers, type OfferFilter } from './offers.ts'
import { commandOwnNode, type OwnNode } from './own-node.ts'
import { RentalWatch } from './rental-watch.ts'

export interface TenantDeps extends CustomerDeps {
  /** The machines of this node itself, where it has any. */
  readonly own?: OwnNode
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
  /** `straight`: no relay carried it, and this node is the one that was meant. */
  readonly via: Via
}

export type Via = 'relays' | 'straight'
type Exchanged = ControlResult & { readonly via: Via }

export const DEFAULT_LEASE_MAX_SATS = 100
/** A node that is there says that it has queued a command at once. */
const FIRST_WORD_MS = 60_000
/** Our own, with a relay between: after that it is told straight. */
const OWN_FIRST_WORD_MS = 5_000
/** Without any relay: one may just be coming up. */
const RELAYS_UP_MS = 1_500
/** How long a command of before a restart is asked about. */
const OPEN_MS = 24 * 3600_000

export class Tenant {
  readonly #deps: TenantDeps
  /** The commands that are under way, by key. */
  readonly #sending = new Map<string, { readonly digest: string; readonly server: string }>()
  readonly #watch: RentalWatch

  constructor(deps: TenantDeps) {
    this.#deps = deps
    this.#watch = new RentalWatch(deps, (server, command) =>
      this.#exchange({ server, command, idempotencyKey: this.#newRequestId() }, this.#newRequestId(), () => undefined),
    )
  }

  /** Asks what became of commands that a restart cut off, and looks after refunds. */
  start(): void {
    this.#deps.scope.spawn('commands of before the restart', () => this.#settle())
    this.#watch.start()
  }

  /**
   * Sends a command and resolves with the node's result. The same key with the same command joins, or asks the node
   * again, which gives the first answer.
   * @param emit each status as it comes
   * @throws as exchange does; price_too_high, insufficient_funds, payment_failed; idempotency_conflict
   */
  send(order: TenantOrder, emit: (status: ControlStatus) => void): Promise<TenantAnswer> {
    const command = decodeOrder(order.command)
    const digest = commandDigest(command)
    const key = order.idempotencyKey
    const { server } = order
    const sending = this.#sending.get(key) ?? { digest, server }
    if (sending.digest !== digest || sending.server !== server) {
      return Promise.reject(new PylonError('idempotency_conflict', 'This idempotency key is in use for another command or another node.'))
    }
    this.#sending.set(key, sending)
    return this.#deps.scope.once(`command ${key}`, () => this.#send(order, digest, emit)).finally(() => this.#sending.delete(key))
  }

  offers(filter: OfferFilter): Promise<FoundOffer[]> {
    return findOffers(this.#deps, filter)
  }

  async #send(order: TenantOrder, digest: string, emit: (status: ControlStatus) => void): Promise<TenantAnswer> {
    const { store, clock } = this.#deps
    const { server, idempotencyKey: id, command } = order
    if (READING_COMMANDS.includes(command.command)) {
      const requestId = this.#newRequestId()
      const result = await this.#exchange(order, requestId, emit)
      return { ...result, requestId, paidMsats: paidFor(store, server, result.runtime) }
    }
    const requestId = this.#newRequestId()
    const row = await store.write(claimRental({ id, server, command: command.command, digest, requestId, at: clock.now() }))
    try {
      const result = await this.#exchange(order, row.requestId, emit)
      await store.write(answerRental({ id, state: 'answered', reason: null, runtimeId: runtimeOf(command, result), at: clock.now() }))
      await learnPayment(this.#deps, id)
      await this.#watch.look(server, result.runtime)
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

  async #exchange(order: TenantOrder, requestId: string, emit: (status: ControlStatus) => void): Promise<Exchanged> {
    try {
      return await this.#relayedOrStraight(order, requestId, emit)
    } catch (error) {
      if (!this.#deps.scope.isClosing || !isPylonError(error, 'shutting_down')) throw error
      throw new PylonError('shutting_down', 'The node ends; repeat the call with the same Idempotency-Key.')
    }
  }

  /** Over relays; to this node also straight, when none of them answers. */
  async #relayedOrStraight(order: TenantOrder, requestId: string, emit: (status: ControlStatus) => void): Promise<Exchanged> {
    const { scope, nostr, own } = this.#deps
    const timeoutMs = order.timeoutMs ?? timeoutMsOf(order.command)
    if (own === undefined || order.server !== own.pubkey()) {
      return { ...(await this.#overRelays(order, requestId, order.timeoutMs ?? FIRST_WORD_MS, emit)), via: 'relays' }
    }
    const isConnected = () => nostr.health().some(({ state }) => state === 'connected')
    if (!isConnected()) await scope.sleep(RELAYS_UP_MS)
    if (isConnected()) {
      try {
        const firstWordMs = Math.min(OWN_FIRST_WORD_MS, timeoutMs / 2)
        return { ...(await this.#overRelays(order, requestId, firstWordMs, emit)), via: 'relays' }
      } catch (error) {
        if (!isSilence(error) && !isPylonError(error, 'relay_refused')) throw error
      }
    }
    emit({ phase: 'queued', message: 'no relay answers: straight to this node' })
    const { idempotencyKey, command } = order
    const requester = nostr.keyring.customer().pubkey
    const straight = { requester, requestId, idempotencyKey, command, timeoutMs, signal: this.#endOf(order) }
    return { ...(await commandOwnNode(own, scope, straight, emit)), via: 'straight' }
  }

  #overRelays(order: TenantOrder, requestId: string, firstWordMs: number, emit: (status: ControlStatus) => void): Promise<ControlResult> {
    const { server, idempotencyKey } = order
    const terms: LeaseTerms = {
      ...{ maxSats: order.maxSats ?? DEFAULT_LEASE_MAX_SATS, payWith: order.payWith ?? 'invoice' },
      leaseSeconds: leaseSecondsOf(order.command),
    }
    let current = order.command
    return exchange(this.#deps, {
      server,
      requestId,
      idempotencyKey,
      command: () => current,
      timeoutMs: order.timeoutMs ?? timeoutMsOf(order.command),
      firstWordMs,
      signal: this.#endOf(order),
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
    const { scope, store, clock, logger } = this.#deps
    for (const row of openRentals(store, clock.now() - OPEN_MS)) {
      if (scope.isClosing || this.#sending.has(row.id)) continue
      try {
        await this.#ask(row)
      } catch (error) {
        if (!scope.isClosing) logger.warn({ err: messageOf(error) }, 'what became of a command is not known yet')
      }
    }
  }

  #newRequestId(): string {
    return newRequestId(this.#deps.scope.random)
  }

  /** By its caller, or with the node. */
  #endOf({ signal }: TenantOrder): AbortSignal {
    const end = this.#deps.scope.signal
    return signal === undefined ? end : AbortSignal.any([signal, end])
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
      const { runtime, payload } = await this.#exchange(order, this.#newRequestId(), () => undefined)
      const state = stateOfRequest(payload)
      if (state === 'running') return
      const runtimeId = asRecord(runtime.metadata)['summary'] === true ? null : runtime.runtime_id
      await store.write(answerRental({ id: row.id, state: state === 'failed' ? 'refused' : 'answered', reason: null, runtimeId, at: at() }))
      await learnPayment(this.#deps, row.id)
      await this.#watch.look(row.server, runtime)
    } catch (error) {
      if (!isPylonError(error, 'control_refused') || error.details['control_code'] !== 'request_not_found') throw error
      await store.write(answerRental({ id: row.id, state: 'refused', reason: 'the node never got it', runtimeId: null, at: at() }))
    }
  }
}

export const newRequestId = (random: Random): string => `agent-ctl-${randomHex(random, 8)}`

function stateOfRequest(payload: Json | undefined): string {
  const found = asRecord(payload)['state']
  return typeof found === 'string' ? found : 'succeeded'
}

function paidFor(store: Store, server: string, runtime: RuntimeDescriptor, id?: string): Msats {
  const own = id === undefined ? undefined : getRental(store, id)
  if (own !== undefined) return own.paidMsats
  return rentalsOf(store, server, runtime.runtime_id).reduce((sum, row) => (sum + row.paidMsats) as Msats, 0n as Msats)
}

/** A rental as the control API shows it; also for a node that is stopped. */
export function rentalView(store: Store, row: RentalRow) {
  return {
    idempotency_key: row.id,
    server: npubOf(row.server),
    command: row.command,
    state: row.state,
    reason: row.reason,
    runtime_id: row.runtimeId,
    amount_msats: row.amountMsats,
    paid_msats: row.paidMsats,
    fee_msats: msats(feesOfCause(store, causeOf(row.id))),
    refunded_msats: row.refundedMsats,
    lease_ends_at: row.leaseEndsAt === null ? null : rfc3339(row.leaseEndsAt),
    created_at: rfc3339(row.createdAt),
    updated_at: rfc3339(row.updatedAt),
  }
}

export const rentalViews = (store: Store, options: { limit: number }) => listRentals(store, options).map((row) => rentalView(store, row))
