/** What an agent tells about itself: its profile (0), relay list (10002), DM relays (10050) and how it takes nutzaps (10019), merged into what its key said before. */
import type { SelfPublisher } from '../nostr/self/self.ts'
import type { AgentRow } from '../store/agents/agents.ts'
import { nutzapsOf } from '../wallet/nutzaps/offer.ts'
import { type HostDeps, relaysOf } from './parts.ts'

const TTL_MS = 30 * 86_400_000

/** Publishes what differs from what was published last. Whether it did. */
export async function publishProfile(deps: HostDeps, self: SelfPublisher, agent: AgentRow): Promise<boolean> {
  const { name, about, lud06, profile } = agent
  const outcome = await self.publish({
    pubkey: agent.pubkey,
    keyPrefix: `profile:${agent.pubkey}:`,
    ttlMs: TTL_MS,
    set: profile,
    defaults: { name, about, bot: true },
    // Only lud06: plain clients turn a lud16 into https, which a sandbox has not.
    lud06: lud06 ?? undefined,
    relays: relaysOf(deps, agent),
    nutzaps: deps.nutzaps === undefined ? undefined : nutzapsOf(deps, agent.pubkey),
    isOurs: agent.profileDigest !== null,
  })
  return outcome === 'published'
}
