/** Whether a bunker did what it was asked: it is trusted with its key, and with nothing else. */
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import type { EncryptionScheme } from '../keys/encryption.ts'
import { identify, isHex64, parseEvent } from '../nips/nip01.ts'
import type { Verifier } from '../reading/verify.ts'
import type { EventTemplate, NostrEvent } from '../types.ts'

/** NIP-44 version 2 and NIP-04, as what is to be sent to others must look. */
const NIP44_PAYLOAD = /^A[A-Za-z0-9+/]{130,}={0,2}$/
const NIP04_PAYLOAD = /^[A-Za-z0-9+/]+={0,2}\?iv=[A-Za-z0-9+/]{22}==$/

const invalid = (what: string): PylonError =>
  new PylonError('bunker_answer_invalid', `The bunker answered with ${what}; nothing of it was used.`)

/** The event exactly as it was asked for, with a signature that holds. @throws bunker_answer_invalid */
export function signedAsAsked(answer: string, pubkey: string, template: EventTemplate, verifier: Verifier): NostrEvent {
  const asked = identify(pubkey, template)
  const signed = eventIn(answer)
  if (signed.pubkey !== pubkey) throw invalid('an event of another key')
  if (signed.kind !== asked.kind) throw invalid('an event of another kind')
  if (signed.created_at !== asked.created_at) throw invalid('an event of another time')
  if (signed.content !== asked.content) throw invalid('an event of another content')
  if (JSON.stringify(signed.tags) !== JSON.stringify(asked.tags)) throw invalid('an event of other tags')
  if (signed.id !== asked.id) throw invalid('an event of a wrong id')
  const event = { ...asked, sig: signed.sig }
  if (!verifier.verify(event)) throw invalid('a signature that does not hold')
  return event
}

function eventIn(answer: string): NostrEvent {
  try {
    return parseEvent(parseJson(answer))
  } catch {
    throw invalid('what is no signed event')
  }
}

/** @throws bunker_answer_invalid */
export function pubkeyIn(answer: string): string {
  if (!isHex64(answer)) throw invalid('what is no public key')
  return answer
}

export const isPayload = (text: string, scheme: EncryptionScheme): boolean =>
  (scheme === 'nip44' ? NIP44_PAYLOAD : NIP04_PAYLOAD).test(text)

/** @throws bunker_answer_invalid */
export function payloadIn(answer: string, scheme: EncryptionScheme): string {
  if (!isPayload(answer, scheme)) throw invalid('what is no encrypted text')
  return answer
}
