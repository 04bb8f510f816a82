/** Welcomes (MIP-02): an unsigned event of kind 444, sealed and wrapped for the one who is brought in. */
import { decode, encode, mlsMessageDecoder, mlsMessageEncoder, protocolVersions, type Welcome, wireformats } from 'ts-mls'
import { PylonError } from '../../base/errors.ts'
import { identify, tagValue } from '../../nostr/nips/nip01.ts'
import type { IdentifiedEvent } from '../../nostr/types.ts'

export const WELCOME_KIND = 444
const MAX_CONTENT_CHARS = 524_288

/** @param atS unix seconds */
export function welcomeRumor(p: {
  readonly author: string
  readonly welcome: Uint8Array
  readonly relays: readonly string[]
  readonly keyPackageEventId: string
  readonly atS: number
}): IdentifiedEvent {
  return identify(p.author, {
    kind: WELCOME_KIND,
    created_at: p.atS,
    tags: [
      ['relays', ...p.relays],
      ['e', p.keyPackageEventId],
      ['client', 'Pylon'],
      ['encoding', 'base64'],
    ],
    content: Buffer.from(p.welcome).toString('base64'),
  })
}

/** The MLS message of a welcome. */
export const welcomeBytes = (welcome: Welcome): Uint8Array =>
  encode(mlsMessageEncoder, { version: protocolVersions.mls10, wireformat: wireformats.mls_welcome, welcome })

/** @throws session_refused */
export function readWelcome(rumor: IdentifiedEvent): Welcome {
  const { content } = rumor
  if (content.length > MAX_CONTENT_CHARS) throw new PylonError('session_refused', 'The welcome is too long.')
  const isHex = tagValue(rumor, 'encoding') !== 'base64' && /^(?:[0-9a-f]{2})+$/i.test(content)
  let message: ReturnType<typeof decodeMessage>
  try {
    message = decodeMessage(Buffer.from(content, isHex ? 'hex' : 'base64'))
  } catch {
    // Bytes of somebody else: said below.
    message = undefined
  }
  if (message?.wireformat !== wireformats.mls_welcome) throw new PylonError('session_refused', 'The welcome is malformed.')
  return message.welcome
}

const decodeMessage = (bytes: Buffer) => decode(mlsMessageDecoder, Uint8Array.from(bytes))
