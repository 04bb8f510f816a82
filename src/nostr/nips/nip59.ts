/** NIP-59 gift wraps and NIP-17 private messages: a rumor, sealed by its author, wrapped by a throwaway key. */
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { type Random, randomBelow } from '../../base/random.ts'
import { createSigner } from '../keys/signer.ts'
import type { Verifier } from '../reading/verify.ts'
import type { EventTemplate, IdentifiedEvent, LocalSigner, NostrEvent, Signer } from '../types.ts'
import { eventId, identify, parseEvent, parseIdentified, saltTag, tagValues } from './nip01.ts'

export const SEAL_KIND = 13
export const WRAP_KIND = 1059
export const EPHEMERAL_WRAP_KIND = 21_059
export const CHAT_KIND = 14
/** Seals and wraps are dated up to this far back. */
const MAX_BACKDATE_S = 2 * 24 * 3600

/** A rumor as its author seals it for one recipient, dated somewhere in the past two days. */
export async function sealRumor(author: Signer, rumor: IdentifiedEvent, recipient: string, nowS: number): Promise<NostrEvent> {
  const createdAtS = nowS - randomBelow(author.random, MAX_BACKDATE_S)
  const content = await author.nip44Encrypt(recipient, JSON.stringify(rumor))
  return await author.sign({ kind: SEAL_KIND, created_at: createdAtS, tags: [], content })
}

/** A wrap of a seal by a key that is thrown away. NIP-59 wants it dated back; a relay that refuses that gets one dated now. */
export function wrapSeal(seal: NostrEvent, recipient: string, nowS: number, random: Random, dated: 'back' | 'now' = 'back'): NostrEvent {
  const throwaway = freshSigner(random)
  return throwaway.sign({
    kind: WRAP_KIND,
    created_at: dated === 'now' ? nowS : nowS - randomBelow(random, MAX_BACKDATE_S),
    tags: [['p', recipient]],
    content: throwaway.nip44Encrypt(recipient, JSON.stringify(seal)),
  })
}

export function freshSigner(random: Random): LocalSigner {
  for (;;) {
    try {
      return createSigner(random.bytes(32), random)
    } catch {
      // Out of range with a chance of 2^-128: take another.
    }
  }
}

export interface DmOptions {
  readonly subject?: string
  /** The rumor id that this answers. */
  readonly replyTo?: string
}

/** A NIP-17 message: its rumor (whose id is the message's id), one wrap for each recipient and one for the author. */
export async function buildDm17(
  author: Signer,
  recipients: readonly string[],
  text: string,
  nowS: number,
  options: DmOptions = {},
): Promise<{ rumor: IdentifiedEvent; wraps: { recipient: string; event: NostrEvent; seal: NostrEvent }[] }> {
  const template: EventTemplate = {
    kind: CHAT_KIND,
    created_at: nowS,
    tags: [
      ...recipients.map((pubkey) => ['p', pubkey]),
      ...(options.replyTo === undefined ? [] : [['e', options.replyTo]]),
      ...(options.subject === undefined ? [] : [['subject', options.subject]]),
      saltTag(author.random),
    ],
    content: text,
  }
  const rumor = identify(author.pubkey, template)
  const everyone = [...new Set([...recipients, author.pubkey])]
  const wraps: { recipient: string; event: NostrEvent; seal: NostrEvent }[] = []
  for (const recipient of everyone) {
    const seal = await sealRumor(author, rumor, recipient, nowS)
    wraps.push({ recipient, seal, event: wrapSeal(seal, recipient, nowS, author.random) })
  }
  return { rumor, wraps }
}

function invalid(what: string): PylonError {
  return new PylonError('event_invalid', `The gift wrap is malformed: ${what}.`)
}

/**
 * Opens a wrap whose own signature was verified already. Checks in the order of NIP-59: the seal's kind and signature, that
 * the rumor's author sealed it, that it is unsigned, its id, and that it concerns this key. Deduplicate by `rumor.id`.
 * @param forWhom `anybody`: it need not name this key (welcomes to sessions name nobody)
 * @throws event_invalid, decrypt_failed
 */
export async function unwrap(
  signer: Signer,
  wrap: NostrEvent,
  verifier: Verifier,
  forWhom: 'named' | 'anybody' = 'named',
): Promise<IdentifiedEvent> {
  if (wrap.kind !== WRAP_KIND && wrap.kind !== EPHEMERAL_WRAP_KIND) throw invalid(`kind ${wrap.kind} is no wrap`)
  const seal = parseEvent(parseJson(await signer.nip44Decrypt(wrap.pubkey, wrap.content)))
  if (seal.kind !== SEAL_KIND) throw invalid('what is inside is no seal')
  if (!verifier.verify(seal)) throw invalid('the seal is not signed by its author')
  const inner = parseJson(await signer.nip44Decrypt(seal.pubkey, seal.content))
  const rumor = parseIdentified(withId(inner))
  if (rumor.pubkey !== seal.pubkey) throw invalid('the author of the rumor did not seal it')
  if (typeof inner === 'object' && inner !== null && 'sig' in inner) throw invalid('the rumor is signed')
  if (eventId(rumor) !== rumor.id) throw invalid('the id of the rumor is wrong')
  const isNamed = rumor.pubkey === signer.pubkey || tagValues(rumor, 'p').includes(signer.pubkey)
  if (forWhom === 'named' && !isNamed) throw invalid('the rumor is for someone else')
  return rumor
}

/** Some clients leave the rumor's id out; it follows from the rest. */
function withId(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || 'id' in value) return value
  const fields = value as IdentifiedEvent
  return { ...fields, id: eventId(fields) }
}
