/** NIP-90 as a transport of the engine: requests 5xxx become orders, answers become results 6xxx and feedback 7000. */
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { stringify } from '../../base/json.ts'
import { schemeOf } from '../../nostr/keys/encryption.ts'
import { identify, parseEvent, parseIdentified } from '../../nostr/nips/nip01.ts'
import { workOf } from '../../nostr/nips/nip13.ts'
import { expirationOf } from '../../nostr/nips/nip40.ts'
import { isSignableByBunker } from '../../nostr/nips/nip46.ts'
import { isEncryptedRequest, parseJobRequest, providersOf } from '../../nostr/nips/nip90.ts'
import { type AnswerEncryption, buildFeedback, buildResult } from '../../nostr/nips/nip90-answers.ts'
import { type EventTemplate, isLocal, type NostrEvent, type OutboxEntry, type Signer } from '../../nostr/types.ts'
import { jobFeedbackMessage } from '../../store/keys.ts'
import type { Envelope } from './admission.ts'
import { toldCode } from './context.ts'
import { type Addressee, type Feedback, type Order, RESULT_KEY_PREFIX, type Transport } from './order.ts'
import type { Knock } from './strangers.ts'

/** Room beside the result for copies of the request and its inputs; what does not fit is left out, the `e` tag names it. */
const COPY_ROOM_CHARS = 4096

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** How long a result is offered to relays; after that a paid job is refunded. */
export const RESULT_KEPT_MS = 3 * DAY_MS
const REFUND_KEPT_MS = 7 * DAY_MS

/** What admission looks at before anything is decrypted. */
export function envelopeOf(event: NostrEvent): Envelope {
  let bytes = event.content.length
  for (const tag of event.tags) for (const value of tag) bytes += value.length
  return {
    kind: event.kind,
    pubkey: event.pubkey,
    createdAtS: event.created_at,
    expiresAtS: expirationOf(event),
    addressees: providersOf(event),
    encrypted: isEncryptedRequest(event),
    tagCount: event.tags.length,
    bytes,
  }
}

/** What the gate looks at: how it would be paid, and what work it proves. */
export function knockOf(event: NostrEvent): Knock {
  const { kind, pubkey, encrypted, bytes } = envelopeOf(event)
  return { id: event.id, kind, pubkey, encrypted, bytes, work: workOf(event), hasToken: event.tags.some((tag) => tag[0] === 'cashu') }
}

/** What is known of a request without reading its inputs: enough to refuse it. */
export function blankOrder(event: NostrEvent, me: string): Order {
  return {
    id: event.id,
    kind: event.kind,
    customerPubkey: event.pubkey,
    directed: providersOf(event).includes(me),
    encryption: isEncryptedRequest(event) ? schemeOf(event.content) : 'none',
    requestedAtS: event.created_at,
    deadline: event.created_at * 1000,
    bidMsats: undefined,
    inputs: [],
    params: {},
    output: undefined,
    token: undefined,
    tokenPrivate: false,
    answerRelays: [],
    request: event,
  }
}

/** @returns the order and the relays that the customer wants answers on. @throws decrypt_failed; input_invalid, param_invalid, amount_invalid, token_invalid */
export async function decodeRequest(
  event: NostrEvent,
  signer: Signer,
  maxAgeS: number,
): Promise<{ order: Order; hints: readonly string[] }> {
  const request = await parseJobRequest(event, signer)
  const params = new Map<string, string[]>()
  for (const [name, ...values] of request.params) params.set(name, [...(params.get(name) ?? []), ...values])
  const token = request.cashuToken
  const inputs = request.inputs.map(({ type, data, relay }) => ({ type, data, relay }))
  // Some clients write the prompt into the content and send no `i` tag.
  if (inputs.length === 0 && request.encryption === undefined && event.content !== '') {
    inputs.push({ type: 'text', data: event.content, relay: undefined })
  }
  const order: Order = {
    ...blankOrder(event, signer.pubkey),
    deadline: Math.min(event.created_at + maxAgeS, request.expiresAtS ?? Number.MAX_SAFE_INTEGER / 1000) * 1000,
    bidMsats: request.bidMsats,
    inputs,
    params: Object.fromEntries(params),
    output: request.output,
    token,
    tokenPrivate:
      token !== undefined && request.encryption !== undefined && !event.tags.some((tag) => tag[0] === 'cashu' && tag[1] === token),
  }
  return { order, hints: request.relays }
}

/** @param deps.maxResultBytes the longest content of a result, before encryption. */
export function createNip90Transport(deps: {
  signer: () => Signer
  clock: Clock
  maxAgeS: () => number
  maxResultBytes: () => number
}): Transport {
  const { clock } = deps

  function entry(key: string, to: Addressee, template: EventTemplate, keptMs: number): OutboxEntry {
    return { key, event: identify(deps.signer().pubkey, template), relays: to.answerRelays, notAfter: clock.now() + keptMs }
  }

  function encryptionFor(to: Addressee): { encrypt?: AnswerEncryption } {
    return to.encryption === 'none' ? {} : { encrypt: { signer: deps.signer(), scheme: to.encryption } }
  }

  /** @throws output_too_large */
  async function buildFitting(to: Addressee, output: string): Promise<EventTemplate> {
    const limit = deps.maxResultBytes()
    const tooLarge = (than = `relays take (${limit} bytes)`) =>
      new PylonError('output_too_large', `The result is more than ${than}: ask for less.`)
    if (Buffer.byteLength(output) > limit) throw tooLarge()
    // As it was stored when it was claimed: a verified event.
    const request = to.request as NostrEvent
    try {
      const template = await buildResult({ request, content: output, createdAtS: unixSeconds(clock), ...encryptionFor(to) })
      const fitting = withoutCopies(template, limit + COPY_ROOM_CHARS)
      if (isLocal(deps.signer()) || isSignableByBunker(fitting)) return fitting
      const bare = withoutCopies(template, 0)
      if (!isSignableByBunker(bare)) throw tooLarge('a bunker can be asked to sign')
      return bare
    } catch (error) {
      // The scheme has a limit of its own (NIP-44: 64 KiB).
      if (error instanceof PylonError && error.code !== 'event_invalid') throw error
      throw tooLarge()
    }
  }

  return {
    async restore(job) {
      const { order } = await decodeRequest(parseEvent(job.request), deps.signer(), deps.maxAgeS())
      return { ...order, answerRelays: job.answerRelays, deadline: job.deadline }
    },

    async feedback(to: Addressee, feedback: Feedback) {
      const message = feedback.message ?? ''
      const { secret, amountMsats } = feedback
      const template = await buildFeedback({
        request: { id: to.id, pubkey: to.customerPubkey },
        status: feedback.status,
        createdAtS: unixSeconds(clock),
        content: secret === undefined ? message : stringify({ error: message, ...secret }),
        ...(feedback.code === undefined ? {} : { extra: toldCode(feedback.code) }),
        ...(amountMsats === undefined ? {} : { price: { amountMsats, ...given({ bolt11: feedback.invoice }) } }),
        ...(secret === undefined ? encryptionFor(to) : { encrypt: { signer: deps.signer(), scheme: 'nip44' as const } }),
      })
      const revision = feedback.revision === undefined ? '' : `:${feedback.revision}`
      const keptMs =
        secret !== undefined
          ? REFUND_KEPT_MS
          : feedback.code === 'overloaded'
            ? HOUR_MS / 12
            : feedback.status === 'processing'
              ? HOUR_MS / 4
              : DAY_MS
      return entry(`${jobFeedbackMessage.of(to.id)}:${feedback.status}${revision}`, to, template, keptMs)
    },

    isAskedElsewhere: (to) => to.encryption !== 'none' && !isLocal(deps.signer()),

    result: async (to, output) => entry(`${RESULT_KEY_PREFIX}${to.id}`, to, await buildFitting(to, output), RESULT_KEPT_MS),

    resultAgain: (job) => ({
      key: `${RESULT_KEY_PREFIX}${job.id}`,
      event: parseIdentified(job.resultEvent),
      relays: job.answerRelays,
      notAfter: job.updatedAt + RESULT_KEPT_MS,
    }),

    async resultElsewhere(job) {
      const { hints } = await decodeRequest(parseEvent(job.request), deps.signer(), deps.maxAgeS())
      const relays = hints.filter((url) => url.startsWith('wss:') && !job.answerRelays.includes(url))
      if (relays.length === 0) return undefined
      const event = parseIdentified(job.resultEvent)
      return { key: `${RESULT_KEY_PREFIX}${job.id}:elsewhere`, event, relays, notAfter: job.updatedAt + RESULT_KEPT_MS }
    },
  }
}

/** Leaves out copied inputs, then the copied request, when all of it would be longer than relays take. */
function withoutCopies(template: EventTemplate, limitChars: number): EventTemplate {
  let { tags } = template
  for (const name of ['i', 'request']) {
    const length = tags.reduce((sum, tag) => sum + tag.reduce((chars, value) => chars + value.length, 0), template.content.length)
    if (length > limitChars) tags = tags.filter((tag) => tag[0] !== name)
  }
  return { ...template, tags }
}
