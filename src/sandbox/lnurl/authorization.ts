/** NIP-98: a request signed by a Nostr key, for this URL, method and body, now, and once. */
import { hash } from 'node:crypto'
import { parseJson } from '../../base/json.ts'
import { parseEvent, tagValue, verifyEvent } from '../nostr-event.ts'

const WINDOW_SECONDS = 60
const MAX_HEADER_LENGTH = 16_384

export interface AuthorizedRequest {
  readonly header: string | undefined
  /** Absolute, with query. */
  readonly url: string
  readonly method: string
  readonly body: Uint8Array
  readonly nowSeconds: number
}

/** The caller's pubkey and the id of the event (to be used once until `expiresAt`), or what is wrong. */
export function checkAuthorization(request: AuthorizedRequest): { pubkey: string; id: string; expiresAt: number } | string {
  const { header, nowSeconds } = request
  if (header === undefined || !/^Nostr [A-Za-z0-9+/_-]+={0,2}$/.test(header) || header.length > MAX_HEADER_LENGTH) {
    return 'an Authorization header of NIP-98 is needed: Nostr <base64 of a kind 27235 event>'
  }
  const event = parseEvent(parseJson(Buffer.from(header.slice('Nostr '.length), 'base64').toString()))
  if (typeof event === 'string') return event
  if (event.kind !== 27_235) return 'the event is not of kind 27235'
  if (Math.abs(event.created_at - nowSeconds) > WINDOW_SECONDS) return 'created_at is more than 60 seconds off'
  if (tagValue(event, 'u') !== request.url) return `the u tag is not ${request.url}`
  if (tagValue(event, 'method')?.toUpperCase() !== request.method) return `the method tag is not ${request.method}`
  const payload = tagValue(event, 'payload')
  if ((request.body.length > 0 || payload !== undefined) && payload !== hash('sha256', request.body)) {
    return 'the payload tag is not the sha256 of the body'
  }
  const fault = verifyEvent(event)
  return fault ?? { pubkey: event.pubkey, id: event.id, expiresAt: event.created_at + WINDOW_SECONDS }
}
