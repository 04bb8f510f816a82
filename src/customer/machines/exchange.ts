/** One command to a node over Nostr: listen first, then publish, and again under the same idempotency key until it is answered. */

import { unixSeconds } from '../../base/clock.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { stringify } from '../../base/json.ts'
import type { ControlCommandInput } from '../../nostr/control/commands.ts'
import {
  CONTROL_CMD_KIND,
  CONTROL_ERROR_KIND,
  CONTROL_RESULT_KIND,
  CONTROL_STATUS_KIND,
  type ControlReply,
  type ControlResult,
  decodeReply,
  type ErrorEnvelope,
  encodeCommand,
  MAX_ENVELOPE_BYTES,
  type StatusEnvelope,
  salvageRequestId,
  sealEnvelope,
} from '../../nostr/control/envelopes.ts'
import { identify } from '../../nostr/nips/nip01.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import type { NostrEvent } from '../../nostr/types.ts'
import { enqueueEvent, whyRefused } from '../../store/nostr/outbox.ts'
import type { CustomerDeps } from '../deps.ts'
import { errorOfNode } from './node-error.ts'

export type ExchangeDeps = Pick<CustomerDeps, 'scope' | 'store' | 'clock' | 'logger' | 'nostr'>

export interface ExchangeOrder {
  /** 64 hex digits. */
  readonly server: string
  readonly requestId: string
  readonly idempotencyKey: string
  /** Asked for at each sending: a payment may have been added meanwhile. */
  command(): ControlCommandInput
  readonly timeoutMs: number
  /** A node that is there says a first word at once: without one for so long it is not waited for. */
  readonly firstWordMs?: number
  readonly signal?: AbortSignal
  /**
   * Each status once, in the order it came. Resolves to `resend` when the command has changed; a rejection ends the
   * exchange with it.
   */
  onStatus?(status: StatusEnvelope): Promise<'resend' | undefined> | undefined
}

/** Nodes date their replies by their own clocks. */
const SKEW_S = 600
const EOSE_TIMEOUT_MS = 5_000
/** Relays do not keep these kinds, so a command is worth sending only while somebody may listen. */
const COMMAND_LIFETIME_MS = 10_000
const REPEAT = { minMs: 2_000, maxMs: 15_000 }
/** Errors that say: the same again, later. */
const TRANSIENT = new Set(['shutting_down', 'rate_limited'])
/** A command that every relay refused so often in a row is not worth another try. */
const REFUSED_ROUNDS = 2
/** Different statuses of one command that are listened to: no honest node has so many to tell. */
const MAX_STATUSES = 512

/**
 * @throws what errorOfNode gives for the node's error; timeout (ask again under the same key), invalid_request, locked;
 *   the signal's reason; what onStatus rejects with
 */
export async function exchange(deps: ExchangeDeps, order: ExchangeOrder): Promise<ControlResult> {
  const { nostr, clock } = deps
  const relays = await relaysTo(deps, order.server)
  const replies = new Replies(deps, order)
  const subscription = await nostr.listen({
    filters: [
      {
        kinds: [CONTROL_STATUS_KIND, CONTROL_RESULT_KIND, CONTROL_ERROR_KIND],
        authors: [order.server],
        '#p': [nostr.keyring.customer().pubkey],
        since: unixSeconds(clock) - SKEW_S,
      },
    ],
    relays,
    timeoutMs: Math.min(EOSE_TIMEOUT_MS, order.timeoutMs),
    onEvent: (event) => replies.hear(event),
  })
  const until = clock.now() + order.timeoutMs
  const firstWordUntil = Math.min(until, clock.now() + (order.firstWordMs ?? order.timeoutMs))
  try {
    const again = deps.scope.backoff(REPEAT)
    let refused = 0
    for (let round = 0; ; round++) {
      order.signal?.throwIfAborted()
      await publish(deps, order, relays, round)
      const leftMs = (replies.heard ? until : firstWordUntil) - clock.now()
      const reply = await replies.next(Math.min(again.nextMs(), leftMs))
      if (reply !== undefined) return reply
      const refusal = whyRefused(deps.store, keyOf(order, round))
      refused = refusal === undefined ? 0 : refused + 1
      if (refusal !== undefined && refused >= REFUSED_ROUNDS && replies.lastSaid === undefined) {
        throw new PylonError('relay_refused', `No relay takes the command: ${refusal}`)
      }
      if (clock.now() >= until || (!replies.heard && clock.now() >= firstWordUntil)) throw unanswered(order, relays, replies)
    }
  } finally {
    replies.close()
    subscription.close()
  }
}

const keyOf = ({ requestId }: ExchangeOrder, round: number): string => `control:${requestId}:${round}`

async function relaysTo({ nostr, logger }: ExchangeDeps, server: string): Promise<string[]> {
  if (nostr.keyring.owns(server)) return [...nostr.relays]
  try {
    return [...new Set([...nostr.relays, ...(await nostr.relaysToReach(server))])]
  } catch (error) {
    logger.debug({ err: messageOf(error) }, 'the relays of a node could not be looked up')
    return [...nostr.relays]
  }
}

async function publish(deps: ExchangeDeps, order: ExchangeOrder, relays: readonly string[], round: number): Promise<void> {
  const { nostr, store, clock } = deps
  const signer = nostr.keyring.customer()
  const { requestId, idempotencyKey, server } = order
  const text = encodeCommand({ requestId, idempotencyKey, actingAsPubkey: signer.pubkey, command: order.command() })
  if (Buffer.byteLength(text) > MAX_ENVELOPE_BYTES) {
    throw new PylonError(
      'invalid_request',
      `The command is over ${MAX_ENVELOPE_BYTES} bytes, the most that one event can carry: shorten it.`,
    )
  }
  const event = identify(signer.pubkey, await sealEnvelope(signer, server, CONTROL_CMD_KIND, text, unixSeconds(clock)))
  const at = clock.now()
  await store.write(enqueueEvent({ key: keyOf(order, round), event, relays, notAfter: at + COMMAND_LIFETIME_MS, at }))
  nostr.nudgeOutbox()
}

/** Whether the node said nothing at all, so that nobody knows whether it heard. */
export const isSilence = (error: unknown): boolean => error instanceof PylonError && error.details['silent'] === true

function unanswered(order: ExchangeOrder, relays: readonly string[], { heard, lastSaid }: Replies): PylonError {
  const { server, idempotencyKey, timeoutMs, firstWordMs = timeoutMs } = order
  if (lastSaid !== undefined) {
    const seconds = Math.round(timeoutMs / 1000)
    return new PylonError(
      'timeout',
      `${lastSaid} (for ${seconds} s); the same call with --idempotency-key ${idempotencyKey} goes on where it is.`,
    )
  }
  return new PylonError(
    'timeout',
    `${npubOf(server)} did not answer within ${Math.round((heard ? timeoutMs : Math.min(firstWordMs, timeoutMs)) / 1000)} s on ${relays.join(', ')}: check the key and that you share a relay; the same call with --idempotency-key ${idempotencyKey} goes on where it is.`,
    { details: { silent: !heard } },
  )
}

/** What the node says about one request: statuses handled in order, then a result or an error. */
class Replies {
  /** Whether there was any word about this command. */
  heard = false
  /** Why the node put it off, when it did. */
  lastSaid: string | undefined
  readonly #deps: ExchangeDeps
  readonly #order: ExchangeOrder
  readonly #seen = new Set<string>()
  #statuses: Promise<void> = Promise.resolve()
  #ended: { readonly result: ControlResult } | { readonly error: unknown } | undefined
  #resend = false
  #wake: () => void = () => undefined
  readonly #onAbort: () => void

  constructor(deps: ExchangeDeps, order: ExchangeOrder) {
    this.#deps = deps
    this.#order = order
    this.#onAbort = () => this.#end({ error: order.signal?.reason })
    order.signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** A stranger's event, and one about another request, is nothing. */
  hear(event: NostrEvent): void {
    if (event.pubkey !== this.#order.server) return
    const reply = this.#read(event)
    if (reply === undefined || reply.envelope.request_id !== this.#order.requestId) return
    this.heard = true
    if (reply.type === 'status') this.#status(reply.envelope)
    // It starts again in a while, and takes the repeat up where it was.
    else if (reply.type === 'error' && TRANSIENT.has(reply.envelope.code)) this.lastSaid = errorOfNode(event.pubkey, reply.envelope).message
    // What was said before is told before the end is.
    else this.#statuses = this.#statuses.then(() => this.#end(outcomeOf(this.#order.server, reply)))
  }

  #read(event: NostrEvent): ControlReply | undefined {
    let text = ''
    try {
      text = this.#deps.nostr.keyring.customer().nip44Decrypt(event.pubkey, event.content)
      return decodeReply(event.kind, text)
    } catch (error) {
      if (salvageRequestId(text) === this.#order.requestId) {
        this.lastSaid = `${npubOf(event.pubkey).slice(0, 16)} gave an answer of kind ${event.kind} that can't be read: ${messageOf(error)}`
      }
      this.#deps.logger.debug({ event: event.id, err: messageOf(error) }, 'a control reply could not be read')
      return undefined
    }
  }

  #status(status: StatusEnvelope): void {
    // A repeated command gets its statuses again.
    const text = stringify(status)
    if (this.#seen.has(text) || this.#seen.size >= MAX_STATUSES) return
    this.#seen.add(text)
    this.#statuses = this.#statuses
      // Once it has ended nothing more is paid for it: its caller was told so.
      .then(() => (this.#ended === undefined ? this.#order.onStatus?.(status) : undefined))
      .then((next) => {
        if (next !== 'resend') return
        this.#resend = true
        this.#wake()
      })
      .catch((error: unknown) => this.#end({ error }))
  }

  #end(outcome: { result: ControlResult } | { error: unknown }): void {
    this.#ended ??= outcome
    this.#wake()
  }

  /** The result; undefined after `waitMs`, or when the command is to be sent again. @throws the error */
  async next(waitMs: number): Promise<ControlResult | undefined> {
    if (this.#ended === undefined && !this.#resend && waitMs > 0) {
      await this.#deps.scope.hear<true>(waitMs, (tell) => {
        this.#wake = () => tell(true)
        return () => {
          this.#wake = () => undefined
        }
      })
    }
    this.#resend = false
    if (this.#ended === undefined) return undefined
    if ('error' in this.#ended) throw this.#ended.error
    return this.#ended.result
  }

  close(): void {
    this.#order.signal?.removeEventListener('abort', this.#onAbort)
  }
}

function outcomeOf(server: string, reply: Exclude<ControlReply, { type: 'status' }>): { result: ControlResult } | { error: unknown } {
  if (reply.type === 'error') return { error: errorOfNode(server, reply.envelope satisfies ErrorEnvelope) }
  const { runtime, payload } = reply.envelope
  return { result: { runtime, ...given({ payload }) } }
}
