/** NIP-11: the limits that a relay states. */
import type { Dialer } from '../base/dialer.ts'
import { parseJson } from '../base/json.ts'

export interface RelayLimits {
  readonly maxMessageLength: number | undefined
  /** The most events in answer to one REQ: the lower of max_limit and default_limit. */
  readonly maxLimit: number | undefined
}

export const NO_LIMITS: RelayLimits = { maxMessageLength: undefined, maxLimit: undefined }

const TIMEOUT_MS = 5000
const MAX_BYTES = 65_536

const positive = (value: unknown): number | undefined =>
  typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : undefined

/** Asks once; a relay without a usable document states no limits. */
export async function fetchLimits(dialer: Dialer, url: string): Promise<RelayLimits> {
  try {
    const response = await dialer.fetch(url.replace(/^ws/, 'http'), {
      headers: { accept: 'application/nostr+json' },
      timeoutMs: TIMEOUT_MS,
      maxBytes: MAX_BYTES,
      namedByStranger: true,
    })
    return parseLimits(parseJson(response.text))
  } catch {
    return NO_LIMITS
  }
}

export function parseLimits(document: unknown): RelayLimits {
  const limitation = (document as { limitation?: unknown } | null | undefined)?.limitation
  if (typeof limitation !== 'object' || limitation === null) return NO_LIMITS
  const stated = limitation as { max_message_length?: unknown; max_limit?: unknown; default_limit?: unknown }
  const limits = [positive(stated.max_limit), positive(stated.default_limit)].filter((limit) => limit !== undefined)
  return {
    maxMessageLength: positive(stated.max_message_length),
    maxLimit: limits.length === 0 ? undefined : Math.min(...limits),
  }
}
