/** NIP-11: the limits that a relay states. */
import { isDeepStrictEqual } from 'node:util'
import type { Dialer } from '../../base/dialer.ts'
import { parseJson } from '../../base/json.ts'
import type { Scope } from '../../base/scope.ts'

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

interface LimitsDeps {
  readonly scope: Scope
  readonly dialer: Dialer
  readonly url: string
  onChange(): void
}

/** The limits of one relay, asked for again once they are old. */
export class LimitsSource {
  readonly #deps: LimitsDeps
  readonly #waiting = new Set<() => void>()
  #askedAt: number | undefined
  #isAsking = false
  now = NO_LIMITS
  /** NIP-77 was refused, failed or not answered: not tried again for as long as the limits are believed. */
  negentropyFailed = false

  constructor(deps: LimitsDeps) {
    this.#deps = deps
  }

  refresh(): void {
    const { scope } = this.#deps
    const now = scope.clock.now()
    if (this.#isAsking || (this.#askedAt !== undefined && Math.abs(now - this.#askedAt) < MAX_AGE_MS)) return
    this.#askedAt = now
    this.#isAsking = true
    scope.spawn('limits', (signal) => this.#ask(signal))
  }

  /** Calls `tell` once nothing is being asked. @returns stops that */
  whenKnown(tell: () => void): () => void {
    if (!this.#isAsking) tell()
    else this.#waiting.add(tell)
    return () => this.#waiting.delete(tell)
  }

  async #ask(signal: AbortSignal): Promise<void> {
    const { dialer, url, onChange } = this.#deps
    const limits = await fetchLimits(dialer, url, signal)
    this.#isAsking = false
    if (limits === undefined) this.#askedAt = undefined
    else {
      this.negentropyFailed = false
      if (!isDeepStrictEqual(limits, this.now)) {
        this.now = limits
        onChange()
      }
    }
    for (const tell of [...this.#waiting]) tell()
  }
}

/** Asks once; a relay without a usable document states no limits. Undefined where it could not be asked. */
async function fetchLimits(dialer: Dialer, url: string, signal: AbortSignal): Promise<RelayLimits | undefined> {
  try {
    const response = await dialer.fetch(url.replace(/^ws/, 'http'), {
      headers: { accept: 'application/nostr+json' },
      timeoutMs: TIMEOUT_MS,
      maxBytes: MAX_BYTES,
      namedByStranger: 'relay',
      signal,
    })
    return parseLimits(parseJson(response.text))
  } catch {
    // It is a relay all the same.
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
