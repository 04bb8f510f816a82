/** NIP-11: the limits that a relay states. */
import { isDeepStrictEqual } from 'node:util'
import type { Clock } from '../../base/clock.ts'
import type { Dialer } from '../../base/dialer.ts'
import { parseJson } from '../../base/json.ts'

export interface RelayLimits {
  readonly maxMessageLength: number | undefined
  /** The most events in answer to one filter. What a relay gives where none is asked for may be far less, so one is always asked for. */
  readonly maxLimit: number | undefined
  /** Open requests of one connection. */
  readonly maxSubscriptions: number | undefined
  /** Filters of one request. */
  readonly maxFilters: number | undefined
  readonly maxSubidLength: number | undefined
  /** It offers NIP-77. */
  readonly negentropy: boolean
}

export const NO_LIMITS: RelayLimits = {
  maxMessageLength: undefined,
  maxLimit: undefined,
  maxSubscriptions: undefined,
  maxFilters: undefined,
  maxSubidLength: undefined,
  negentropy: false,
}

const TIMEOUT_MS = 5000
const MAX_BYTES = 65_536
const NEGENTROPY_NIP = 77
const MAX_AGE_MS = 3_600_000

const positive = (value: unknown): number | undefined =>
  typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : undefined

/** The limits of one relay, asked for again once they are old. */
export class LimitsSource {
  readonly #deps: { readonly dialer: Dialer; readonly clock: Clock; readonly url: string; onChange(): void }
  #askedAt: number | undefined
  now = NO_LIMITS
  /** Resolves once the last question is answered. */
  known: Promise<void> = Promise.resolve()
  /** NIP-77 was refused, failed or not answered: not tried again for as long as the limits are believed. */
  negentropyFailed = false

  constructor(deps: { dialer: Dialer; clock: Clock; url: string; onChange(): void }) {
    this.#deps = deps
  }

  refresh(): void {
    const { dialer, clock, url, onChange } = this.#deps
    const now = clock.now()
    if (this.#askedAt !== undefined && Math.abs(now - this.#askedAt) < MAX_AGE_MS) return
    this.#askedAt = now
    this.known = fetchLimits(dialer, url).then((limits) => {
      if (limits === undefined) {
        this.#askedAt = undefined
        return
      }
      this.negentropyFailed = false
      if (isDeepStrictEqual(limits, this.now)) return
      this.now = limits
      onChange()
    })
  }
}

/** Asks once; a relay without a usable document states no limits. Undefined where it could not be asked. */
async function fetchLimits(dialer: Dialer, url: string): Promise<RelayLimits | undefined> {
  try {
    const response = await dialer.fetch(url.replace(/^ws/, 'http'), {
      headers: { accept: 'application/nostr+json' },
      timeoutMs: TIMEOUT_MS,
      maxBytes: MAX_BYTES,
      namedByStranger: 'relay',
    })
    return parseLimits(parseJson(response.text))
  } catch {
    return undefined
  }
}

export function parseLimits(document: unknown): RelayLimits {
  if (typeof document !== 'object' || document === null) return NO_LIMITS
  const { limitation, supported_nips } = document as { limitation?: unknown; supported_nips?: unknown }
  const stated = (typeof limitation === 'object' && limitation !== null ? limitation : {}) as Record<string, unknown>
  return {
    maxMessageLength: positive(stated['max_message_length']),
    maxLimit: positive(stated['max_limit']),
    maxSubscriptions: positive(stated['max_subscriptions']),
    maxFilters: positive(stated['max_filters']),
    maxSubidLength: positive(stated['max_subid_length']),
    negentropy: Array.isArray(supported_nips) && supported_nips.includes(NEGENTROPY_NIP),
  }
}
