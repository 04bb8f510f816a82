/** Where a key of ours is written to in private (kind 10050), for a key that says nothing else of itself. */
import { identify } from '../nips/nip01.ts'
import { DM_RELAYS_KIND } from '../nips/nip65.ts'
import type { IdentifiedEvent, Nostr } from '../types.ts'

/** The event to publish; `said` where there is one, `unsure` where nobody answered who should know: what is there stays. */
export async function dmRelaysToSay(
  nostr: Pick<Nostr, 'newestOf' | 'relays'>,
  pubkey: string,
  nowS: number,
): Promise<IdentifiedEvent | 'said' | 'unsure'> {
  const { events, isSure } = await nostr.newestOf(pubkey, [DM_RELAYS_KIND])
  if (events.has(DM_RELAYS_KIND)) return 'said'
  if (!isSure) return 'unsure'
  return identify(pubkey, { kind: DM_RELAYS_KIND, created_at: nowS, tags: nostr.relays.map((url) => ['relay', url]), content: '' })
}
