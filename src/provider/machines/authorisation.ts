/** Who may have a runtime and on what terms; fails closed; pure. */
import type { RuntimesConfig } from '../../base/config-runtimes.ts'
import { ControlError } from '../../nostr/control/vocabulary.ts'

/** `free`: own keys and the allowlist. `lease`: everybody else, for payment. */
export type Terms = 'free' | 'lease'

export interface Requester {
  readonly pubkey: string
  /** A key of this home, the customer's among them. */
  readonly isOwn: boolean
}

/** @param allowlist as 64 hex digits */
export function termsOf(requester: Requester, allowlist: ReadonlySet<string>): Terms {
  return requester.isOwn || allowlist.has(requester.pubkey) ? 'free' : 'lease'
}

/**
 * Whether strangers may run on a substrate.
 * @throws ControlError provision_unauthorized
 */
export function assertIsolation(terms: Terms, isolated: boolean, allowsUnisolated: boolean): void {
  if (terms === 'free' || isolated || allowsUnisolated) return
  throw new ControlError(
    'provision_unauthorized',
    'choose a class whose offer says isolated',
    'nothing isolates runtimes on this substrate, so it serves only the owner and the allowlist',
  )
}

/** `allow_unisolated` counts on the sandbox network alone. */
export const allowsUnisolated = (config: RuntimesConfig, network: 'sandbox' | 'live'): boolean =>
  config.allow_unisolated && network === 'sandbox'
