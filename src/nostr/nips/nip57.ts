/** NIP-57: zap requests, and what a receipt must hold before it is believed. */
import { type Msats, msats } from '../../base/amounts.ts'
import { parseJson } from '../../base/json.ts'
import type { Random } from '../../base/random.ts'
import type { Verifier } from '../reading/verify.ts'
import type { EventTemplate, NostrEvent } from '../types.ts'
import { isHex64, parseEvent, saltTag, tagValue, tagValues } from './nip01.ts'

export const ZAP_REQUEST_KIND = 9734
export const ZAP_RECEIPT_KIND = 9735

export interface ZapRequest {
  readonly recipient: string
  readonly amountMsats: Msats
  /** Where the receipt is to be published. */
  readonly relays: readonly string[]
  /** Bech32 LNURL of the recipient. */
  readonly lnurl?: string
  readonly event?: { readonly id: string; readonly kind?: number }
  readonly comment?: string
  readonly createdAtS: number
  /** Of its salt. */
  readonly random: Random
}

/** To be signed by the payer and sent to the LNURL callback, never published. */
export function buildZapRequest(zap: ZapRequest): EventTemplate {
  return {
    kind: ZAP_REQUEST_KIND,
    created_at: zap.createdAtS,
    tags: [
      ['relays', ...zap.relays],
      ['amount', zap.amountMsats.toString()],
      ...(zap.lnurl === undefined ? [] : [['lnurl', zap.lnurl]]),
      ['p', zap.recipient],
      ...(zap.event === undefined ? [] : [['e', zap.event.id]]),
      ...(zap.event?.kind === undefined ? [] : [['k', String(zap.event.kind)]]),
      saltTag(zap.random),
    ],
    content: zap.comment ?? '',
  }
}

/** What the bolt11 of a receipt says; the caller decodes it. */
export interface ReceiptInvoice {
  readonly amountMsats: bigint | undefined
}

export interface ReceiptExpectation {
  /** Our key. */
  readonly recipient: string
  /** nostrPubkey of our own LNURL provider: the only one whose receipts count. */
  readonly providerPubkey: string
  /** The event on which payment was asked; any or none when absent. */
  readonly eventId?: string
  readonly minMsats?: Msats
  /** Unix seconds of the quote. */
  readonly notBeforeS?: number
}

export type ReceiptResult =
  | {
      readonly ok: true
      readonly amountMsats: Msats
      readonly sender: string
      readonly comment: string
      readonly eventId: string | undefined
      readonly request: NostrEvent
    }
  | { readonly ok: false; readonly reason: string }

const refuse = (reason: string): ReceiptResult => ({ ok: false, reason })

/**
 * All checks that NIP-57 makes mandatory of a 9735 whose own signature was verified, short of the payment hash's uniqueness,
 * which the database keeps. What the invoice commits to and the lnurl tag are no part of that: many servers get them wrong.
 * A receipt is the LNURL provider's word only: where our own wallet can tell, ask it.
 */
export function validateReceipt(
  receipt: NostrEvent,
  expected: ReceiptExpectation,
  verifier: Verifier,
  decodeInvoice: (bolt11: string) => ReceiptInvoice | undefined,
): ReceiptResult {
  if (receipt.kind !== ZAP_RECEIPT_KIND) return refuse('it is no zap receipt')
  if (receipt.pubkey !== expected.providerPubkey) return refuse('it is not signed by the LNURL provider of the recipient')
  const description = tagValue(receipt, 'description')
  const request = description === undefined ? undefined : parseZapRequest(description, verifier)
  if (description === undefined || request === undefined) return refuse('its description is no signed zap request')
  const mismatch = mismatchOf(receipt, request, expected)
  if (mismatch !== undefined) return refuse(mismatch)
  const invoice = decodeInvoice(tagValue(receipt, 'bolt11') ?? '')
  if (invoice?.amountMsats === undefined) return refuse('its invoice cannot be read or has no amount')
  const asked = tagValue(request, 'amount')
  if (asked !== undefined && asked !== invoice.amountMsats.toString()) return refuse('the invoice has another amount than the request')
  if (invoice.amountMsats < (expected.minMsats ?? 0n)) return refuse('it is worth less than asked')
  return {
    ok: true,
    amountMsats: msats(invoice.amountMsats),
    sender: request.pubkey,
    comment: request.content,
    eventId: tagValue(request, 'e'),
    request,
  }
}

/** A signed 9734 from text, or undefined. */
export function parseZapRequest(text: string, verifier: Verifier): NostrEvent | undefined {
  try {
    const request = parseEvent(parseJson(text))
    return request.kind === ZAP_REQUEST_KIND && verifier.verify(request) ? request : undefined
  } catch {
    // No event: a stranger's text.
    return undefined
  }
}

function mismatchOf(receipt: NostrEvent, request: NostrEvent, expected: ReceiptExpectation): string | undefined {
  const people = tagValues(request, 'p')
  if (people.length !== 1 || people[0] !== expected.recipient) return 'it is for someone else'
  if (tagValue(receipt, 'p') !== expected.recipient) return 'its p tag is another than that of the request'
  const events = tagValues(request, 'e')
  if (events.length > 1 || (events[0] !== undefined && !isHex64(events[0]))) return 'its request names more than one event'
  if (tagValue(receipt, 'e') !== events[0]) return 'its e tag is another than that of the request'
  if (expected.eventId !== undefined && events[0] !== expected.eventId) return 'it is for another event'
  if (expected.notBeforeS !== undefined && receipt.created_at < expected.notBeforeS) return 'it is older than the quote'
  return undefined
}

export interface ZapSplit {
  readonly pubkey: string
  readonly weight: number
}

/** Who shares zaps of one event at most; what more of them it names is left out. */
const MAX_SPLITS = 20
const MAX_WEIGHT = 1_000_000

/** Who is to share a zap of this event (appendix G), each key once; nobody where its author is zapped alone. */
export function zapSplitsOf(event: Pick<EventTemplate, 'tags'>): ZapSplit[] {
  const named = event.tags.filter(([name, pubkey]) => name === 'zap' && isHex64(pubkey)).slice(0, MAX_SPLITS)
  const isWeighted = named.some((tag) => weightOf(tag) !== undefined)
  const weights = new Map<string, number>()
  for (const tag of named) {
    // Where some have weights, the others get nothing.
    const weight = isWeighted ? (weightOf(tag) ?? 0) : 1
    if (weight > 0) weights.set(tag[1] ?? '', (weights.get(tag[1] ?? '') ?? 0) + weight)
  }
  return [...weights].map(([pubkey, weight]) => ({ pubkey, weight }))
}

function weightOf(tag: readonly string[]): number | undefined {
  const text = tag[3] ?? ''
  const weight = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN
  return Number.isFinite(weight) ? Math.min(weight, MAX_WEIGHT) : undefined
}

/** Whole sats by weight: each share is rounded down, and what is left goes, sat by sat, to those who lost most by that, the first named first. */
export function shareOut(amountSats: bigint, splits: readonly ZapSplit[]): bigint[] {
  // Weights may have fractions: six digits of them count.
  const weights = splits.map(({ weight }) => BigInt(Math.round(weight * 1_000_000)))
  const total = weights.reduce((sum, weight) => sum + weight, 0n)
  if (total === 0n) return weights.map(() => 0n)
  const shares = weights.map((weight) => (amountSats * weight) / total)
  const lost = weights.map((weight, place) => ({ place, rest: (amountSats * weight) % total }))
  const left = amountSats - shares.reduce((sum, share) => sum + share, 0n)
  lost.sort((a, b) => (a.rest === b.rest ? a.place - b.place : a.rest > b.rest ? -1 : 1))
  const more = new Set(lost.slice(0, Number(left)).map(({ place }) => place))
  return shares.map((share, place) => (more.has(place) ? share + 1n : share))
}
