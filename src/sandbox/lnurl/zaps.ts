/** Zaps (NIP-57): what a zap request must be, and the receipt that answers it. */
import { parseJson } from '../../base/json.ts'
import { isHex64, type NostrEvent, parseEvent, signEvent, tagValue, verifyEvent } from '../nostr-event.ts'

const MAX_REQUEST_LENGTH = 16_384
const ADDRESS = /^\d{1,5}:[0-9a-f]{64}:/

/** The zap request of the `nostr` parameter, or what is wrong with it (NIP-57, appendix D). */
export function parseZapRequest(
  text: string,
  expected: { recipient: string; amountMsats: number; receiptPubkey: string },
): NostrEvent | string {
  if (text.length > MAX_REQUEST_LENGTH) return 'the zap request is too large'
  const event = parseEvent(parseJson(text))
  if (typeof event === 'string') return event
  if (event.kind !== 9_734) return 'the zap request is not of kind 9734'
  const named = (name: string) => event.tags.filter((tag) => tag[0] === name)
  const [p, ...moreP] = named('p')
  if (p === undefined || moreP.length > 0) return 'the zap request must have exactly one p tag'
  if (p[1] !== expected.recipient) return 'the p tag is not the owner of this address'
  if (named('e').length > 1 || named('a').length > 1) return 'the zap request may have one e and one a tag'
  if (named('e').some((tag) => !isHex64(tag[1]))) return 'the e tag is not an event id'
  if (named('a').some((tag) => !ADDRESS.test(tag[1] ?? ''))) return 'the a tag is not an event address'
  if (named('relays').length !== 1) return 'the zap request must have one relays tag'
  const amount = tagValue(event, 'amount')
  if (amount !== undefined && amount !== String(expected.amountMsats)) return 'the amount tag is not the amount asked'
  if (named('P').some((tag) => tag[1] !== expected.receiptPubkey)) return 'the P tag is not the key of this server'
  return verifyEvent(event) ?? event
}

/** The signed receipt (kind 9735, appendix E) of a paid zap. */
export function makeZapReceipt(
  paid: { zapRequest: string; bolt11: string; preimage: string; paidAt: number },
  secretKey: Uint8Array,
): NostrEvent {
  const request = JSON.parse(paid.zapRequest) as NostrEvent
  const copied = ['p', 'e', 'a', 'k'].flatMap((name) => request.tags.filter((tag) => tag[0] === name).map((tag) => tag.slice(0, 2)))
  const tags = [...copied, ['P', request.pubkey], ['bolt11', paid.bolt11], ['description', paid.zapRequest], ['preimage', paid.preimage]]
  return signEvent({ kind: 9_735, created_at: paid.paidAt, tags, content: '' }, secretKey)
}
