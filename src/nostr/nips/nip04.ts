/** NIP-04: kind 4 direct messages, for peers that know nothing newer. */
import { PylonError } from '../../base/errors.ts'
import type { EventTemplate, NostrEvent, Signer } from '../types.ts'
import { tagValue } from './nip01.ts'

export const DM_KIND = 4

export async function buildDm04(signer: Signer, to: string, text: string, createdAtS: number, replyTo?: string): Promise<EventTemplate> {
  const tags = [['p', to], ...(replyTo === undefined ? [] : [['e', replyTo]])]
  return { kind: DM_KIND, created_at: createdAtS, tags, content: await signer.nip04Encrypt(to, text) }
}

/** The text of a kind 4 event to or from this key. @throws event_invalid, decrypt_failed */
export async function openDm04(signer: Signer, event: NostrEvent): Promise<{ from: string; to: string; text: string }> {
  const to = tagValue(event, 'p')
  if (event.kind !== DM_KIND || to === undefined) throw new PylonError('event_invalid', 'This is not a kind 4 message.')
  const mine = event.pubkey === signer.pubkey
  if (!mine && to !== signer.pubkey) throw new PylonError('event_invalid', 'This message is for someone else.')
  return { from: event.pubkey, to, text: await signer.nip04Decrypt(mine ? to : event.pubkey, event.content) }
}
