/** Agents that were found again by the words of their home: their keys and sats are back, the rest is for their owner to say. */
import type { Clock } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import { insertAgent, listAgents, moveAgent, wasAgent } from '../store/agents/agents.ts'
import { all } from '../store/commands.ts'
import type { Store } from '../store/store.ts'
import { parseSpawn } from './spec.ts'

export interface FoundAgent {
  readonly pubkey: string
  readonly accountIndex: number
  /** As its profile has it. */
  readonly name: string | undefined
}

const REASON = 'found by the words of this home: give it a brain, then resume it'

/** Paused, so that nothing is done in its name before its owner has looked. @returns its name; undefined where it is or was here */
export async function adoptAgent(
  { store, clock, config }: { readonly store: Store; readonly clock: Clock; readonly config: () => Config },
  { pubkey, accountIndex, name }: FoundAgent,
): Promise<string | undefined> {
  if (wasAgent(store, pubkey)) return undefined
  const taken = new Set(listAgents(store).map((agent) => agent.name))
  const wanted = (name ?? '').toLowerCase()
  const isFree = /^[a-z0-9_-]{1,32}$/.test(wanted) && !taken.has(wanted)
  const called = isFree ? wanted : `agent-${accountIndex}`
  const { agent } = parseSpawn({}, config())
  const at = clock.now()
  const step = { pubkey, reason: REASON, at, nextTickAt: null }
  await store.write(
    all(
      insertAgent({ agent: { ...agent, pubkey, npub: npubOf(pubkey), name: called, accountIndex }, at }),
      moveAgent({ ...step, from: 'spawning', to: 'dormant' }),
      moveAgent({ ...step, from: 'dormant', to: 'paused' }),
    ),
  )
  return called
}
