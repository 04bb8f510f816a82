/** What an agent tells about itself: kinds 0, 10002 and 10050, published when they change. */
import { hash } from 'node:crypto'
import { unixSeconds } from '../base/clock.ts'
import { identify } from '../nostr/nips/nip01.ts'
import { buildDmRelays, buildRelayList } from '../nostr/nips/nip65.ts'
import { type AgentRow, patchAgent } from '../store/agents.ts'
import { all } from '../store/commands.ts'
import { enqueueEvent } from '../store/outbox.ts'
import { type HostDeps, relaysOf } from './parts.ts'

const TTL_MS = 30 * 86_400_000

/** Publishes the profile when it differs from what was published last. Whether it did. */
export async function publishProfile(deps: HostDeps, agent: AgentRow): Promise<boolean> {
  const relays = relaysOf(deps, agent)
  // Only lud06: plain clients turn a lud16 into https, which a sandbox has not.
  const content = JSON.stringify({
    name: agent.name,
    about: agent.about,
    bot: true,
    ...(agent.lud06 === null ? {} : { lud06: agent.lud06 }),
  })
  const digest = hash('sha256', JSON.stringify([content, relays]))
  const [lastDigest, lastAt] = (agent.profileDigest ?? '').split(':')
  if (lastDigest === digest) return false
  // Of two revisions in one second relays keep the one with the lower id: each is a second later than the last.
  const createdAtS = Math.max(unixSeconds(deps.clock), Number(lastAt ?? 0) + 1)
  const at = deps.clock.now()
  const templates = [
    { kind: 0, created_at: createdAtS, tags: [], content },
    buildRelayList(relays, createdAtS),
    buildDmRelays(relays, createdAtS),
  ]
  await deps.store.write(
    all(
      patchAgent({ pubkey: agent.pubkey, patch: { profileDigest: `${digest}:${createdAtS}` } }),
      ...templates.map((template) =>
        enqueueEvent({
          key: `profile:${agent.pubkey}:${template.kind}`,
          event: identify(agent.pubkey, template),
          relays,
          notAfter: at + TTL_MS,
          at,
        }),
      ),
    ),
  )
  deps.nostr.nudgeOutbox()
  return true
}
