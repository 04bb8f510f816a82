/** The list of mints as an event that only its words can read: NUT-27 (kind 30078 of NIP-78, NIP-44 to itself). */
import { z } from 'zod'
import { isPylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { tagValue } from '../../nostr/nips/nip01.ts'
import type { Filter, LocalSigner, NostrEvent } from '../../nostr/types.ts'
import { normaliseMintUrl } from '../ecash/token.ts'

const KIND = 30_078
const NAME = 'mint-list'
/** Of one list, read or written. */
const MAX_MINTS = 100

const listSchema = z.object({ mints: z.array(z.unknown()).max(10_000) })

export const mintBackupFilter = (pubkey: string): Filter => ({ kinds: [KIND], authors: [pubkey], '#d': [NAME], limit: 10 })

/** @param createdAtS unix seconds */
export function buildMintBackup(signer: LocalSigner, mints: readonly string[], createdAtS: number): NostrEvent {
  const content = JSON.stringify({ mints: mints.slice(0, MAX_MINTS), timestamp: createdAtS })
  const tags = [
    ['d', NAME],
    ['client', 'pylon'],
  ]
  return signer.sign({ kind: KIND, created_at: createdAtS, tags, content: signer.nip44Encrypt(signer.pubkey, content) })
}

/** What the list says; undefined where it is none, or cannot be read. What is no URL of a mint is left out. */
function readMintBackup(signer: LocalSigner, event: NostrEvent): readonly string[] | undefined {
  if (event.pubkey !== signer.pubkey || event.kind !== KIND || tagValue(event, 'd') !== NAME) return undefined
  const parsed = listSchema.safeParse(parseJson(decrypted(signer, event.content) ?? ''))
  if (!parsed.success) return undefined
  return [...new Set(parsed.data.mints.flatMap(mintUrlIn))].slice(0, MAX_MINTS)
}

function decrypted(signer: LocalSigner, content: string): string | undefined {
  try {
    return signer.nip44Decrypt(signer.pubkey, content)
  } catch (error) {
    if (isPylonError(error, 'decrypt_failed')) return undefined
    throw error
  }
}

function mintUrlIn(value: unknown): string[] {
  if (typeof value !== 'string' || value.length > 2000) return []
  try {
    return [normaliseMintUrl(value)]
  } catch (error) {
    // One that another wallet wrote wrongly is no mint.
    if (isPylonError(error, 'token_invalid')) return []
    throw error
  }
}

/** The newest list of those that relays have. */
export function newestMintBackup(
  signer: LocalSigner,
  events: readonly NostrEvent[],
): { readonly mints: readonly string[]; readonly createdAtS: number } | undefined {
  const sorted = [...events].sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? -1 : 1))
  for (const event of sorted) {
    const mints = readMintBackup(signer, event)
    if (mints !== undefined) return { mints, createdAtS: event.created_at }
  }
  return undefined
}
