/** Reads BOLT-11 invoices: what we check before paying one or showing one to others. */
import { decode } from 'light-bolt11-decoder'
import { PylonError } from '../../base/errors.ts'

export interface DecodedInvoice {
  readonly request: string
  /** `bc`, `tb`, `bcrt`, ... */
  readonly network: string
  /** Undefined where the payer would choose. */
  readonly amountMsats: bigint | undefined
  /** 64 hex digits. */
  readonly paymentHash: string
  readonly description: string | undefined
  /** 64 hex digits: sha256 of what it is for. */
  readonly descriptionHash: string | undefined
  /** Milliseconds since the epoch. */
  readonly createdAt: number
  readonly expiresAt: number
}

/** BOLT-11: an invoice that does not say lives an hour. */
const DEFAULT_EXPIRY_S = 3600
const MAX_LENGTH = 8192

/** The same of what strangers name as one: undefined where it can't be read. */
export function readInvoice(bolt11: string): DecodedInvoice | undefined {
  try {
    return decodeInvoice(bolt11)
  } catch {
    // Strangers write what they like.
    return undefined
  }
}

/** @throws invoice_invalid */
export function decodeInvoice(text: string): DecodedInvoice {
  const request = text
    .trim()
    .replace(/^lightning:/i, '')
    .toLowerCase()
  const prefix = /^ln(bcrt|bc|tbs|tb|sb)/.exec(request)
  if (prefix?.[1] === undefined || request.length > MAX_LENGTH) throw invalid('it does not begin as a bolt11 invoice')
  const sections = new Map<string, unknown>()
  try {
    for (const section of decode(request).sections) {
      const { name, value } = section as { name: string; value?: unknown }
      if (!sections.has(name)) sections.set(name, value)
    }
  } catch {
    throw invalid('it is damaged or not a bolt11 invoice')
  }
  const amount = sections.get('amount')
  const createdS = Number(sections.get('timestamp'))
  const expiryS = sections.get('expiry') === undefined ? DEFAULT_EXPIRY_S : Number(sections.get('expiry'))
  const paymentHash = sections.get('payment_hash')
  if (typeof paymentHash !== 'string' || !/^[0-9a-f]{64}$/.test(paymentHash)) throw invalid('it has no payment hash')
  if (!Number.isSafeInteger(createdS) || !Number.isFinite(expiryS)) throw invalid('its dates are wrong')
  if (amount !== undefined && !/^\d{1,18}$/.test(String(amount))) throw invalid('its amount is wrong')
  return {
    request,
    network: prefix[1],
    amountMsats: amount === undefined ? undefined : BigInt(String(amount)),
    paymentHash,
    description: stringOf(sections.get('description')),
    descriptionHash: stringOf(sections.get('description_hash')),
    createdAt: createdS * 1000,
    expiresAt: (createdS + Math.min(expiryS, 10 * 365 * 86_400)) * 1000,
  }
}

const stringOf = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined)

function invalid(why: string): PylonError {
  return new PylonError('invoice_invalid', `The invoice cannot be used: ${why}. Ask for a new one.`)
}
