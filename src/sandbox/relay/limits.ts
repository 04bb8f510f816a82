/** What the relay accepts at most, and the NIP-11 document that says so. */
import { VERSION } from '../../base/version.ts'

export const RELAY_LIMITS = {
  maxMessageBytes: 512 * 1024,
  maxSubscriptions: 64,
  maxFilters: 10,
  maxLimit: 500,
  maxSubscriptionIdLength: 64,
  maxTags: 2_000,
  /** How far `created_at` may lie ahead of our clock. */
  maxFutureSeconds: 900,
} as const

/** The NIP-11 document. */
export function relayDocument(): Record<string, unknown> {
  return {
    name: 'Pylon sandbox relay',
    description: 'A relay for trying and testing: play money, loopback only.',
    software: 'pylon sandbox',
    version: VERSION,
    supported_nips: [1, 9, 11, 40, 42, 45, 70],
    limitation: {
      max_message_length: RELAY_LIMITS.maxMessageBytes,
      max_subscriptions: RELAY_LIMITS.maxSubscriptions,
      max_filters: RELAY_LIMITS.maxFilters,
      max_limit: RELAY_LIMITS.maxLimit,
      default_limit: RELAY_LIMITS.maxLimit,
      max_subid_length: RELAY_LIMITS.maxSubscriptionIdLength,
      max_event_tags: RELAY_LIMITS.maxTags,
      min_pow_difficulty: 0,
      auth_required: false,
      payment_required: false,
      restricted_writes: false,
      created_at_upper_limit: RELAY_LIMITS.maxFutureSeconds,
    },
  }
}
