/** The control plane over Nostr: commands of kind 24910 to this node in, statuses, results and errors of kinds 24911 to 24913 out. */
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import {
  CONTROL_CMD_KIND,
  CONTROL_ERROR_KIND,
  CONTROL_RESULT_KIND,
  CONTROL_STATUS_KIND,
  type CommandEnvelope,
  type ControlStatus,
  decodeCommand,
  encodeError,
  encodeResult,
  encodeStatus,
  salvageRequestId,
  sealEnvelope,
} from '../../nostr/control/envelopes.ts'
import { isKeyAway, untilHeard } from '../../nostr/keys/away.ts'
import { identify, tagValues } from '../../nostr/nips/nip01.ts'
import type { Nostr, NostrEvent, Subscription } from '../../nostr/types.ts'
import type { Command } from '../../store/commands.ts'
import { enqueueEvent, outboxEvent } from '../../store/nostr/outbox.ts'
import { claimEvent } from '../../store/nostr/seen-events.ts'
import type { Store } from '../../store/store.ts'
import { Budget } from '../budget.ts'
import { fail, toControlError } from './failures.ts'
import type { CommandTransport, Handling } from './machines.ts'

const SUBSCRIPTION = 'runtime-control'
const REPLY_KEY_PREFIX = 'control-reply:'
/** How far a client's clock may be off, either way; within it event ids and idempotency keys keep a command from running twice. */
const MAX_SKEW_S = 3600
/** Commands under way for one requester, and for all: more are refused. */
const MAX_PER_REQUESTER = 64
const MAX_UNDER_WAY = 2000
/** Answers to commands that are not taken up (malformed, too many), in a minute: to one requester, and to all. The rest is passed over. */
const MAX_REFUSALS_PER_REQUESTER = 32
const MAX_REFUSALS = 1000
const REFUSAL_WINDOW_MS = 60_000
/** Relays pass an ephemeral event on to those who listen now: later than this nobody does. */
const REPLY_KEPT_MS = 60_000
/** A NIP-44 payload of the longest envelope, in base64. */
const MAX_CONTENT_CHARS = 90_000

export interface ControlPlaneDeps {
  readonly scope: Scope
  readonly store: Store
  readonly logger: Logger
  readonly nostr: Pick<Nostr, 'keyring' | 'relays' | 'nudgeOutbox' | 'subscribe' | 'onGivenUp' | 'relaysToReach'>
}

export class ControlPlane implements CommandTransport {
  readonly #deps: ControlPlaneDeps
  readonly #clock: Clock
  readonly #underWay = new Map<string, number>()
  /** Answers that cost us a signature and a send, and a stranger nothing. */
  readonly #refusals = new Budget(MAX_REFUSALS_PER_REQUESTER, REFUSAL_WINDOW_MS)
  readonly #allRefusals = new Budget(MAX_REFUSALS, REFUSAL_WINDOW_MS)
  #total = 0
  #serial = 0
  #subscription: Subscription | undefined

  constructor(deps: ControlPlaneDeps) {
    this.#deps = deps
    this.#clock = deps.scope.clock
    deps.nostr.onGivenUp(REPLY_KEY_PREFIX, (key, why) => this.#sendElsewhere(key, why))
  }

  listen(machines: Handling): void {
    const { nostr } = this.#deps
    this.#subscription = nostr.subscribe({
      name: SUBSCRIPTION,
      filters: [{ kinds: [CONTROL_CMD_KIND], '#p': [nostr.keyring.node().pubkey] }],
      overlapS: MAX_SKEW_S,
      backfillS: MAX_SKEW_S,
      onEvent: (event) => this.#onEvent(event, machines),
    })
  }

  close(): void {
    this.#subscription?.close()
  }

  async notify(tenant: string, requestId: string, status: ControlStatus): Promise<readonly Command<unknown>[]> {
    return [await this.#reply(tenant, CONTROL_STATUS_KIND, encodeStatus(requestId, status))]
  }

  async #onEvent(event: NostrEvent, machines: Handling): Promise<void> {
    const { store, logger, nostr, scope } = this.#deps
    const signer = nostr.keyring.node()
    if (!tagValues(event, 'p').includes(signer.pubkey) || event.content.length > MAX_CONTENT_CHARS) return
    if (Math.abs(event.created_at - unixSeconds(this.#clock)) > MAX_SKEW_S) {
      logger.debug({ event_id: event.id, created_at: event.created_at }, 'a command from too far off in time was passed over')
      return
    }
    let text: string
    try {
      text = await signer.nip44Decrypt(event.pubkey, event.content)
    } catch (error) {
      if (isKeyAway(error)) throw error
      logger.debug({ event_id: event.id }, 'a command that cannot be read was passed over')
      return
    }
    if (!(await store.write(claimEvent({ id: event.id, subscription: SUBSCRIPTION, at: this.#clock.now() })))) return
    const requester = event.pubkey
    const isTooMuch = (this.#underWay.get(requester) ?? 0) >= MAX_PER_REQUESTER || this.#total >= MAX_UNDER_WAY
    let envelope: CommandEnvelope
    try {
      envelope = decodeCommand(text)
      if (isTooMuch) throw fail('rate_limited', 'too many commands are under way', 'wait for their answers, then send it again')
    } catch (error) {
      const now = this.#clock.now()
      if (!this.#refusals.take(requester, now) || !this.#allRefusals.take('', now)) return
      await this.#send(requester, CONTROL_ERROR_KIND, encodeError(salvageRequestId(text), toControlError(error, 'invalid_command_json')))
      return
    }
    this.#underWay.set(requester, (this.#underWay.get(requester) ?? 0) + 1)
    this.#total++
    // Not waited for: the next command, this requester's own too, may come while it runs.
    scope.spawn('command', () => this.#serve(requester, envelope, machines))
  }

  async #serve(requester: string, envelope: CommandEnvelope, machines: Handling): Promise<void> {
    const { requestId } = envelope
    // In order, each as it happens.
    let sent: Promise<void> = Promise.resolve()
    const emit = (status: ControlStatus) => {
      sent = sent.then(() => this.#send(requester, CONTROL_STATUS_KIND, encodeStatus(requestId, status)))
    }
    let last: { kind: number; text: string }
    try {
      const result = await machines.handle(requester, envelope, emit)
      last = { kind: CONTROL_RESULT_KIND, text: encodeResult(requestId, result) }
      if (Buffer.byteLength(last.text) > 65_535) throw fail('output_too_large', 'the answer is longer than NIP-44 carries', 'ask for less')
    } catch (error) {
      last = { kind: CONTROL_ERROR_KIND, text: encodeError(requestId, toControlError(error, 'internal')) }
    } finally {
      this.#total--
      const left = (this.#underWay.get(requester) ?? 1) - 1
      if (left === 0) this.#underWay.delete(requester)
      else this.#underWay.set(requester, left)
    }
    await sent
    await this.#send(requester, last.kind, last.text)
  }

  async #send(to: string, kind: number, text: string): Promise<void> {
    const { store, logger, nostr, scope } = this.#deps
    try {
      // Nobody listens for it later than that.
      const until = this.#clock.now() + REPLY_KEPT_MS
      await store.write(await untilHeard(scope, () => this.#reply(to, kind, text), until))
      nostr.nudgeOutbox()
    } catch (error) {
      // What is lost here is recovered by a repeat of the command.
      if (!isPylonError(error, 'shutting_down')) logger.warn({ error: messageOf(error) }, 'a reply of the control plane could not be sent')
    }
  }

  async #reply(to: string, kind: number, text: string): Promise<Command<boolean>> {
    const { nostr } = this.#deps
    const signer = nostr.keyring.node()
    const at = this.#clock.now()
    const key = `${REPLY_KEY_PREFIX}${to}:${at}:${++this.#serial}`
    return enqueueEvent({
      key,
      event: identify(signer.pubkey, await sealEnvelope(signer, to, kind, text, unixSeconds(this.#clock))),
      relays: nostr.relays,
      notAfter: at + REPLY_KEPT_MS,
      at,
    })
  }

  /** What our own relays refuse goes once to those that the requester reads; relays tell of neither, so the log and the counts of refusals do. */
  async #sendElsewhere(key: string, why: string): Promise<void> {
    const { store, logger, nostr } = this.#deps
    const to = key.slice(REPLY_KEY_PREFIX.length).split(':')[0] ?? ''
    const event = outboxEvent(store, key)
    const at = this.#clock.now()
    if (event === undefined || event.created_at * 1000 < at - REPLY_KEPT_MS) return
    const others = (await nostr.relaysToReach(to)).filter((relay) => !nostr.relays.includes(relay))
    logger.warn({ requester: to, why, relays: others }, 'an answer of the control plane was refused')
    if (others.length === 0) return
    await store.write(enqueueEvent({ key: `again:${key}`, event, relays: others, notAfter: at + REPLY_KEPT_MS, at }))
    nostr.nudgeOutbox()
  }
}
