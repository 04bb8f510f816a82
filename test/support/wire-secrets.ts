/** Every way in which something that must stay inside could stand in what passed over a wire. */
import { nsecOf } from '../../src/nostr/nips/nip19.ts'

/** A secret key: its bytes, as hex and as nsec, each also within something that is in base64. @param hex 64 digits */
export function formsOfKey(hex: string): string[] {
  const bytes = Buffer.from(hex, 'hex')
  return [hex, hex.toUpperCase(), ...formsOfText(nsecOf(bytes)), ...inBase64(bytes), ...inBase64(Buffer.from(hex))]
}

/** Words: as they are, and within something that is in base64. */
export function formsOfText(text: string): string[] {
  return [text, ...inBase64(Buffer.from(text))]
}

/** What of it stands in base64, wherever it begins; in both alphabets. */
function inBase64(bytes: Buffer): string[] {
  return [0, 1, 2].flatMap((before) => {
    const padded = Buffer.concat([Buffer.alloc(before), bytes])
    // The letters that hold bits of nothing else.
    const letters = padded.toString('base64').slice(Math.ceil((before * 8) / 6), Math.floor((padded.length * 8) / 6))
    return [letters, letters.replaceAll('+', '-').replaceAll('/', '_')]
  })
}
