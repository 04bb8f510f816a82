/** An identity whose key is held by a bunker: what it answers is checked before anything is made of it. */
import { PylonError } from '../../base/errors.ts'
import type { Random } from '../../base/random.ts'
import type { EncryptionScheme } from '../keys/encryption.ts'
import { isHex64 } from '../nips/nip01.ts'
import type { BunkerMethod } from '../nips/nip46.ts'
import type { Verifier } from '../reading/verify.ts'
import type { EventTemplate, NostrEvent, Signer } from '../types.ts'
import { isPayload, payloadIn, signedAsAsked } from './signed-answer.ts'

export interface RemoteSignerDeps {
  readonly pubkey: string
  readonly random: Random
  readonly verifier: Verifier
  /** Asks its bunker. @throws bunker_unreachable, bunker_refused, bunker_approval, bunker_key_changed */
  ask(method: BunkerMethod, params: readonly string[]): Promise<string>
}

export class RemoteSigner implements Signer {
  readonly pubkey: string
  readonly random: Random
  readonly #deps: RemoteSignerDeps

  constructor(deps: RemoteSignerDeps) {
    this.#deps = deps
    this.pubkey = deps.pubkey
    this.random = deps.random
  }

  /** @throws bunker_answer_invalid, and as `ask` */
  async sign({ kind, created_at, tags, content }: EventTemplate): Promise<NostrEvent> {
    const template = { kind, created_at, tags, content }
    const answer = await this.#deps.ask('sign_event', [JSON.stringify({ ...template, pubkey: this.pubkey })])
    return signedAsAsked(answer, this.pubkey, template, this.#deps.verifier)
  }

  async nip44Encrypt(peer: string, plaintext: string): Promise<string> {
    return payloadIn(await this.#deps.ask('nip44_encrypt', [peer, plaintext]), 'nip44')
  }

  nip44Decrypt(peer: string, payload: string): Promise<string> {
    return this.#decrypt('nip44', peer, payload)
  }

  async nip04Encrypt(peer: string, plaintext: string): Promise<string> {
    return payloadIn(await this.#deps.ask('nip04_encrypt', [peer, plaintext]), 'nip04')
  }

  nip04Decrypt(peer: string, payload: string): Promise<string> {
    return this.#decrypt('nip04', peer, payload)
  }

  /** What a stranger wrote wrongly is no work for the bunker. */
  async #decrypt(scheme: EncryptionScheme, peer: string, payload: string): Promise<string> {
    if (!isHex64(peer) || !isPayload(payload, scheme)) throw new PylonError('decrypt_failed', 'The content is not encrypted as it says.')
    return await this.#deps.ask(`${scheme}_decrypt`, [peer, payload])
  }
}
