/** The control plane over Nostr: commands of kind 24910 to this node in, statuses, results and errors of kinds 24911 to 24913 out. */
import { unixSeconds } from '../../base/clock.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
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
import { identify, tagValues } from '../../nostr/nips/nip01.ts'
import type { Nostr, NostrEvent, Subscription } from '../../nostr/types.ts'
import type { Command } from '../../store/commands.ts'
import { enqueueEvent, outboxEvent } from '../../store/nostr/outbox.ts'
import { claimEvent } from '../../store/nostr/seen-events.ts'
import { fail, toControlError } from './failures.ts'
import { createMachines, type MachinesDeps, type OwnMachines } from './service.ts'

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

export type MachinesOnNostrDeps = Omit<MachinesDeps, 'notify' | 'nostr'> & {
  readonly nostr: Pick<Nostr, 'keyring' | 'relays' | 'nudgeOutbox' | 'subscribe' | 'onGivenUp' | 'relaysToReach'>
}

/** Machines whose commands also come over Nostr. */
export function createMachinesOnNostr(deps: MachinesOnNostrDeps): OwnMachines {
  const { store, clock, logger, nostr } = deps
  const underWay = new Map<string, number>()
  let total = 0
  let subscription: Subscription | undefined
  let serial = 0
  const refusals = createRefusals()

  function reply(to: string, kind: number, text: string): Command<boolean> {
    const signer = nostr.keyring.node()
    const event = identify(signer.pubkey, sealEnvelope(signer, to, kind, text, unixSeconds(clock)))
    const at = clock.now()
    return enqueueEvent({
      key: `${REPLY_KEY_PREFIX}${to}:${at}:${++serial}`,
      event,
      relays: nostr.relays,
      notAfter: at + REPLY_KEPT_MS,
      at,
    })
  }

  /** What our own relays refuse goes once to those that the requester reads; relays tell of neither, so the log and the counts of refusals do. */
  async function onGivenUp(key: string, why: string): Promise<void> {
    const to = key.slice(REPLY_KEY_PREFIX.length).split(':')[0] ?? ''
    const event = outboxEvent(store, key)
    const at = clock.now()
    if (event === undefined || event.created_at * 1000 < at - REPLY_KEPT_MS) return
    const others = (await nostr.relaysToReach(to)).filter((relay) => !nostr.relays.includes(relay))
    logger.warn({ requester: to, why, relays: others }, 'an answer of the control plane was refused')
    if (others.length === 0) return
    await store.write(enqueueEvent({ key: `again:${key}`, event, relays: others, notAfter: at + REPLY_KEPT_MS, at }))
    nostr.nudgeOutbox()
  }
  nostr.onGivenUp(REPLY_KEY_PREFIX, onGivenUp)

  const notify: MachinesDeps['notify'] = (tenant, requestId, status) => [
    reply(tenant, CONTROL_STATUS_KIND, encodeStatus(requestId, status)),
  ]
  const machines = createMachines({ ...deps, notify })

  async function send(to: string, kind: number, text: string): Promise<void> {
    try {
      await store.write(reply(to, kind, text))
      nostr.nudgeOutbox()
    } catch (error) {
      // What is lost here is recovered by a repeat of the command.
      if (!isPylonError(error, 'shutting_down')) logger.warn({ error: messageOf(error) }, 'a reply of the control plane could not be sent')
    }
  }

  async function serve(requester: string, envelope: CommandEnvelope): Promise<void> {
    const { requestId } = envelope
    // In order, each as it happens.
    let sent: Promise<void> = Promise.resolve()
    const emit = (status: ControlStatus) => {
      sent = sent.then(() => send(requester, CONTROL_STATUS_KIND, encodeStatus(requestId, status)))
    }
    let last: { kind: number; text: string }
    try {
      const result = await machines.handle(requester, envelope, emit)
      last = { kind: CONTROL_RESULT_KIND, text: encodeResult(requestId, result) }
      if (Buffer.byteLength(last.text) > 65_535) throw fail('output_too_large', 'the answer is longer than NIP-44 carries', 'ask for less')
    } catch (error) {
      last = { kind: CONTROL_ERROR_KIND, text: encodeError(requestId, toControlError(error, 'internal')) }
    }
    await sent
    await send(requester, last.kind, last.text)
  }

  async function onEvent(event: NostrEvent): Promise<void> {
    const signer = nostr.keyring.node()
    if (!tagValues(event, 'p').includes(signer.pubkey) || event.content.length > MAX_CONTENT_CHARS) return
    if (Math.abs(event.created_at - unixSeconds(clock)) > MAX_SKEW_S) {
      logger.debug({ event_id: event.id, created_at: event.created_at }, 'a command from too far off in time was passed over')
      return
    }
    let text: string
    try {
      text = signer.nip44Decrypt(event.pubkey, event.content)
    } catch {
      logger.debug({ event_id: event.id }, 'a command that cannot be read was passed over')
      return
    }
    if (!(await store.write(claimEvent({ id: event.id, subscription: SUBSCRIPTION, at: clock.now() })))) return
    const requester = event.pubkey
    const count = underWay.get(requester) ?? 0
    const isTooMuch = count >= MAX_PER_REQUESTER || total >= MAX_UNDER_WAY
    let envelope: CommandEnvelope
    try {
      envelope = decodeCommand(text)
      if (isTooMuch) throw fail('rate_limited', 'too many commands are under way', 'wait for their answers, then send it again')
    } catch (error) {
      if (!refusals.mayAnswer(requester, clock.now())) return
      await send(requester, CONTROL_ERROR_KIND, encodeError(salvageRequestId(text), toControlError(error, 'invalid_command_json')))
      return
    }
    underWay.set(requester, count + 1)
    total++
    // Not waited for: the next command, this requester's own too, may come while it runs.
    void serve(requester, envelope)
      .catch((error: unknown) => logger.error({ err: error }, 'a command could not be served'))
      .finally(() => {
        total--
        const left = (underWay.get(requester) ?? 1) - 1
        if (left === 0) underWay.delete(requester)
        else underWay.set(requester, left)
      })
  }

  return {
    ...machines,
    async start() {
      await machines.start()
      subscription = nostr.subscribe({
        name: SUBSCRIPTION,
        filters: [{ kinds: [CONTROL_CMD_KIND], '#p': [nostr.keyring.node().pubkey] }],
        overlapS: MAX_SKEW_S,
        backfillS: MAX_SKEW_S,
        onEvent,
      })
    },
    async close() {
      subscription?.close()
      await machines.close()
    },
  }
}

/** Counts answers that cost us a signature and a send, and a stranger nothing; forgets with each window. */
function createRefusals() {
  let windowEndsAt = 0
  let total = 0
  const byRequester = new Map<string, number>()
  return {
    mayAnswer(requester: string, now: number): boolean {
      if (now >= windowEndsAt) {
        windowEndsAt = now + REFUSAL_WINDOW_MS
        total = 0
        byRequester.clear()
      }
      const count = (byRequester.get(requester) ?? 0) + 1
      if (count > MAX_REFUSALS_PER_REQUESTER || total >= MAX_REFUSALS) return false
      byRequester.set(requester, count)
      total++
      return true
    },
  }
}
