/**
 * How the owner of a runtime learns the key of the agent inside: the guest says hello in a gift wrap (NIP-59), and proves by the
 * token that only its owner and its substrate know that the key is that of this runtime.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { asRecord, type Json, parseJson } from '../base/json.ts'
import type { EventTemplate, IdentifiedEvent } from '../nostr/types.ts'

export const HELLO_KIND = 24_914
const SCHEMA = 'agent.session.hello.v1'

export interface Hello {
  readonly runtimeId: string
  /** HMAC-SHA256 by the token, hex. */
  readonly proof: string
  readonly version: string
}

/** @param token as 64 hex digits; its text is the key */
export function helloProof(token: string, runtimeId: string, botPubkey: string): string {
  return createHmac('sha256', token).update(`hello\n${runtimeId}\n${botPubkey}`).digest('hex')
}

/** The rumor, for `identify` and a gift wrap to the owner. */
export function helloTemplate(from: {
  botPubkey: string
  runtimeId: string
  token: string
  owner: string
  version: string
  nowS: number
}): EventTemplate {
  const { botPubkey, runtimeId, token, owner, version, nowS } = from
  const content = { schema: SCHEMA, runtime_id: runtimeId, proof: helloProof(token, runtimeId, botPubkey), version }
  return { kind: HELLO_KIND, created_at: nowS, tags: [['p', owner]], content: JSON.stringify(content) }
}

/** Undefined for a rumor that is no hello. */
export function decodeHello(rumor: Pick<IdentifiedEvent, 'kind' | 'content'>): Hello | undefined {
  if (rumor.kind !== HELLO_KIND) return undefined
  const { schema, runtime_id, proof, version } = asRecord(parseJson(rumor.content) as Json | undefined)
  if (schema !== SCHEMA || typeof runtime_id !== 'string' || typeof proof !== 'string') return undefined
  return { runtimeId: runtime_id, proof, version: typeof version === 'string' ? version : '' }
}

export function isProven(hello: Hello, token: string, botPubkey: string): boolean {
  const wanted = Buffer.from(helloProof(token, hello.runtimeId, botPubkey))
  const given = Buffer.from(hello.proof)
  return given.length === wanted.length && timingSafeEqual(given, wanted)
}
