/** NIP-90 on the provider's side: requests 5xxx to orders, answers to results 6xxx and feedback 7000. */
import { type Msats, msats } from '../../base/amounts.ts'
import type { Clock } from '../../base/clock.ts'
import { unixSeconds } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { parseJson, stringify } from '../../base/json.ts'
import { identify, isHex64, parseIdentified, tagValue, tagValues } from '../../nostr/nips/nip01.ts'
import type { IdentifiedEvent, OutboxEntry, Signer } from '../../nostr/types.ts'
import type { JobRow } from '../../store/jobs.ts'
import type { Envelope } from './admission.ts'
import { type Addressee, type InputType, type JobInput, type Order, RESULT_KEY_PREFIX, type Transport } from './order.ts'

export const FEEDBACK_KIND = 7000

const MAX_INPUTS = 50
const MAX_PARAMS = 64
const MAX_PARAM_CHARS = 16_384
const MAX_TOKEN_CHARS = 65_536
const MAX_RELAYS = 8
const INPUT_TYPES: readonly string[] = ['text', 'url', 'event', 'job']

/** Room beside the result for copies of the request and its inputs; what does not fit is left out, the `e` tag names it. */
const COPY_ROOM_CHARS = 4096

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** How long a result is offered to relays; after that a paid job is refunded. */
export const RESULT_KEPT_MS = 3 * DAY_MS
const REFUND_KEPT_MS = 7 * DAY_MS

type Tags = readonly (readonly string[])[]

/** What admission looks at before anything is decrypted. */
export function envelopeOf(event: IdentifiedEvent): Envelope {
  const expiration = tagValue(event, 'expiration')
  let bytes = event.content.length
  for (const tag of event.tags) for (const value of tag) bytes += value.length
  return {
    kind: event.kind,
    pubkey: event.pubkey,
    createdAtS: event.created_at,
    expiresAtS: expiration !== undefined && /^\d{1,12}$/.test(expiration) ? Number(expiration) : undefined,
    addressees: tagValues(event, 'p'),
    encrypted: isEncrypted(event),
    tagCount: event.tags.length,
    bytes,
  }
}

function isEncrypted(event: IdentifiedEvent): boolean {
  return event.tags.some((tag) => tag[0] === 'encrypted')
}

/** NIP-04 payloads carry their IV in the clear; all else is taken for NIP-44. */
function schemeOf(event: IdentifiedEvent): Order['encryption'] {
  if (!isEncrypted(event)) return 'none'
  return event.content.includes('?iv=') ? 'nip04' : 'nip44'
}

/**
 * Decodes a request: of an encrypted one the tags inside and those left outside (bid, relays, output) together.
 * @throws decrypt_failed; input_invalid, param_invalid when a tag is malformed.
 */
export function decodeRequest(event: IdentifiedEvent, signer: Signer, maxAgeS: number): Order {
  const encryption = schemeOf(event)
  const inner = encryption === 'none' ? [] : decryptTags(event, encryption, signer)
  const tags = [...inner, ...(encryption === 'none' ? event.tags : event.tags.filter((tag) => tag[0] !== 'i' && tag[0] !== 'param'))]
  const expiresAtS = envelopeOf(event).expiresAtS
  const innerToken = firstValue(inner, 'cashu')
  const token = innerToken ?? firstValue(event.tags, 'cashu')
  if (token !== undefined && token.length > MAX_TOKEN_CHARS)
    throw new PylonError('token_invalid', 'The token is too long: use fewer proofs.')
  return {
    id: event.id,
    kind: event.kind,
    customerPubkey: event.pubkey,
    directed: tagValues(event, 'p').includes(signer.pubkey),
    encryption,
    requestedAtS: event.created_at,
    deadline: Math.min(event.created_at + maxAgeS, expiresAtS ?? Number.MAX_SAFE_INTEGER / 1000) * 1000,
    bidMsats: bidOf(tags),
    inputs: inputsOf(tags, encryption === 'none' ? event.content : ''),
    params: paramsOf(tags),
    output: firstValue(tags, 'output'),
    token,
    tokenPrivate: innerToken !== undefined,
    answerRelays: [],
    request: event,
  }
}

function decryptTags(event: IdentifiedEvent, encryption: 'nip44' | 'nip04', signer: Signer): Tags {
  const decrypt = encryption === 'nip04' ? signer.nip04Decrypt : signer.nip44Decrypt
  const parsed = parseJson(decrypt.call(signer, event.pubkey, event.content))
  const isTags =
    Array.isArray(parsed) && parsed.length <= 300 && parsed.every((tag) => Array.isArray(tag) && tag.every((v) => typeof v === 'string'))
  if (!isTags) throw new PylonError('input_invalid', 'The encrypted content must be a JSON array of tags, as NIP-90 says.')
  return parsed as Tags
}

function firstValue(tags: Tags, name: string): string | undefined {
  return tags.find((tag) => tag[0] === name)?.[1]
}

/** `["bid", "<msats>", ...]`; what is no number is no bid. */
function bidOf(tags: Tags): Msats | undefined {
  const bid = firstValue(tags, 'bid')
  return bid !== undefined && /^\d{1,15}$/.test(bid) ? msats(BigInt(bid)) : undefined
}

/** The `i` tags; where there is none, a clear content is taken for the one text. */
function inputsOf(tags: Tags, content: string): JobInput[] {
  const inputs: JobInput[] = []
  for (const tag of tags) {
    if (tag[0] !== 'i') continue
    const [, data = '', type = 'text', relay] = tag
    if (!INPUT_TYPES.includes(type))
      throw new PylonError('input_invalid', `An input of type ${type.slice(0, 20)} is not known: text, url, event and job are.`)
    if ((type === 'event' || type === 'job') && !isHex64(data)) {
      throw new PylonError('input_invalid', `An input of type ${type} must be an event id of 64 hex digits.`)
    }
    inputs.push({ type: type as InputType, data, relay: relay === undefined || relay === '' ? undefined : relay })
  }
  if (inputs.length > MAX_INPUTS) throw new PylonError('input_invalid', `At most ${MAX_INPUTS} inputs are taken.`)
  if (inputs.length === 0 && content !== '') inputs.push({ type: 'text', data: content, relay: undefined })
  return inputs
}

function paramsOf(tags: Tags): Record<string, readonly string[]> {
  const params = new Map<string, string[]>()
  for (const tag of tags) {
    if (tag[0] !== 'param' || tag[1] === undefined) continue
    const values = tag.slice(2)
    if (tag[1].length > 64 || values.some((value) => value.length > MAX_PARAM_CHARS)) {
      throw new PylonError('param_invalid', `The param ${tag[1].slice(0, 64)} is too long.`)
    }
    params.set(tag[1], [...(params.get(tag[1]) ?? []), ...values])
  }
  if (params.size > MAX_PARAMS) throw new PylonError('param_invalid', `At most ${MAX_PARAMS} params are taken.`)
  return Object.fromEntries(params)
}

/** Where the customer wants the answer: its `relays` tag, ws URLs only. */
export function relayHints(event: IdentifiedEvent): string[] {
  const tag = event.tags.find((entry) => entry[0] === 'relays')
  return (tag?.slice(1) ?? []).filter((url) => /^wss?:\/\/\S{1,300}$/.test(url)).slice(0, MAX_RELAYS)
}

/** The ids that a kind 5 names. */
export function deletedIds(event: IdentifiedEvent): string[] {
  return [...new Set(tagValues(event, 'e').filter(isHex64))].slice(0, 50)
}

/** @param deps.maxResultBytes the longest content of a result, encrypted where it is. */
export function createNip90Transport(deps: {
  signer: () => Signer
  clock: Clock
  maxAgeS: () => number
  maxResultBytes: () => number
}): Transport {
  const { clock } = deps

  function encrypted(to: Addressee, text: string): string {
    const signer = deps.signer()
    return to.encryption === 'nip04' ? signer.nip04Encrypt(to.customerPubkey, text) : signer.nip44Encrypt(to.customerPubkey, text)
  }

  function entry(key: string, to: Addressee, template: { kind: number; tags: string[][]; content: string }, keptMs: number): OutboxEntry {
    const event = identify(deps.signer().pubkey, { ...template, created_at: unixSeconds(clock) })
    return { key, event, relays: to.answerRelays, notAfter: clock.now() + keptMs }
  }

  return {
    restore(job) {
      const order = decodeRequest(parseIdentified(job.request), deps.signer(), deps.maxAgeS())
      return { ...order, answerRelays: job.answerRelays, deadline: job.deadline }
    },

    feedback(to, feedback) {
      const tags: string[][] = [['status', feedback.status, ...(feedback.code === undefined ? [] : [feedback.code])]]
      if (feedback.amountMsats !== undefined) {
        tags.push(['amount', String(feedback.amountMsats), ...(feedback.invoice === undefined ? [] : [feedback.invoice])])
      }
      tags.push(['e', to.id], ['p', to.customerPubkey])
      const message = feedback.message ?? ''
      let content = message
      if (feedback.secret !== undefined) {
        content = deps.signer().nip44Encrypt(to.customerPubkey, stringify({ error: message, ...feedback.secret }))
        tags.push(['encrypted'])
      } else if (to.encryption !== 'none' && message !== '') {
        content = encrypted(to, message)
        tags.push(['encrypted'])
      }
      const revision = feedback.revision === undefined ? '' : `:${feedback.revision}`
      const keptMs = feedback.secret !== undefined ? REFUND_KEPT_MS : feedback.status === 'processing' ? HOUR_MS / 4 : DAY_MS
      return entry(`job-feedback:${to.id}:${feedback.status}${revision}`, to, { kind: FEEDBACK_KIND, tags, content }, keptMs)
    },

    result(to, output) {
      const tooLarge = () =>
        new PylonError('output_too_large', `The result is over ${deps.maxResultBytes()} bytes, more than relays take: ask for less.`)
      if (Buffer.byteLength(output) > deps.maxResultBytes()) throw tooLarge()
      const content = to.encryption === 'none' ? output : encrypted(to, output)
      if (content.length > deps.maxResultBytes() * 1.5) throw tooLarge()
      const tags: string[][] = []
      let room = deps.maxResultBytes() + COPY_ROOM_CHARS - content.length
      const copy = (tag: string[]) => {
        const length = tag.reduce((sum, value) => sum + value.length, 0)
        if (length > room) return
        tags.push(tag)
        room -= length
      }
      copy(['request', stringify(to.request)])
      tags.push(['e', to.id], ['p', to.customerPubkey])
      if (to.encryption !== 'none') tags.push(['encrypted'])
      else for (const tag of (to.request as IdentifiedEvent).tags) if (tag[0] === 'i') copy([...tag])
      return entry(`${RESULT_KEY_PREFIX}${to.id}`, to, { kind: to.kind + 1000, tags, content }, RESULT_KEPT_MS)
    },

    resultAgain(job: JobRow) {
      const event = parseIdentified(job.resultEvent)
      return { key: `${RESULT_KEY_PREFIX}${job.id}`, event, relays: job.answerRelays, notAfter: job.updatedAt + RESULT_KEPT_MS }
    },
  }
}
