/** What differs between providers of managed agents; all else is one flow. */
import { messageOf } from '../../base/errors.ts'
import type { ControlProvider } from '../../nostr/control/vocabulary.ts'

export interface ProviderHooks {
  /** Whether the runtime is handed its welcome beside the relays; `required`: it hears of it in no other way. */
  readonly processWelcome: 'required' | 'helps' | 'none'
  /** What to look at when it cannot be reached or refuses. */
  readonly nextStep: string
}

const HOOKS: Readonly<Record<ControlProvider, ProviderHooks>> = {
  local: { processWelcome: 'helps', nextStep: 'pylon doctor' },
  incus: { processWelcome: 'helps', nextStep: 'pylon doctor; the Incus of this node is named by runtimes.incus' },
  microvm: {
    processWelcome: 'none',
    nextStep: 'start the spawner, or name another with --spawner-url (this node lists them in runtimes.microvm.spawner_urls)',
  },
  fly: { processWelcome: 'none', nextStep: 'check runtimes.fly.app_name and runtimes.fly.token_file' },
  workers: { processWelcome: 'required', nextStep: 'check runtimes.workers.base_url and its token' },
}

export const hooksOf = (provider: ControlProvider): ProviderHooks => HOOKS[provider]

/** Why a provision failed, with what to do; the words of the node stand first, they name the address. */
export function whyNotProvisioned(provider: ControlProvider, isOwnNode: boolean, error: unknown): string {
  const words = messageOf(error).replace(/[.\s]+$/, '')
  if (!isOwnNode) return words
  const own = words.replace(/^npub1\w* says \w+: /, 'this node: ')
  // The hint of the node is the next step then.
  return own.includes('pylon runtime run') ? own : `${own}. Next: ${hooksOf(provider).nextStep}`
}
