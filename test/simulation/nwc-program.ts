/** A program elsewhere that uses a wallet by a connection string (NIP-47), and asks again as long as it is not answered. */
import { createSigner } from '../../src/nostr/keys/signer.ts'
import { tagValue } from '../../src/nostr/nips/nip01.ts'
import { buildNwcRequest, NWC_RESPONSE_KIND, type NwcResponse, openNwcResponse, parseNwcUri } from '../../src/nostr/nips/nip47.ts'
import type { LocalSigner, NostrEvent } from '../../src/nostr/types.ts'
import type { World } from './world.ts'

const AGAIN_MS = 10_000
/** So long; wallets do not hear older requests. */
const TIMES = 20

export class NwcProgram {
  readonly #world: World
  readonly #signer: LocalSigner
  readonly #walletPubkey: string
  readonly #answers = new Map<string, NostrEvent>()
  readonly #send: (frame: string) => void

  constructor(world: World, url: string) {
    const { secret, walletPubkey } = parseNwcUri(url)
    this.#world = world
    this.#signer = createSigner(new Uint8Array(Buffer.from(secret, 'hex')), world.chance)
    this.#walletPubkey = walletPubkey
    this.#send = world.visitRelays((frame) => this.#hear(frame))
    this.#send(JSON.stringify(['REQ', 'answers', { kinds: [NWC_RESPONSE_KIND], '#p': [this.#signer.pubkey] }]))
  }

  /** @returns undefined where no answer came */
  async ask(method: string, params: Record<string, unknown>): Promise<NwcResponse | undefined> {
    const { clock } = this.#world
    const nowS = Math.floor(clock.now() / 1000)
    const options = { encryption: 'nip44_v2' as const, createdAtS: nowS, expiresAtS: nowS + 280 }
    const request = this.#signer.sign(buildNwcRequest(this.#signer, this.#walletPubkey, { method, params }, options))
    for (let i = 0; i < TIMES && !this.#answers.has(request.id); i++) {
      for (let copy = 0; copy < 2; copy++) this.#send(JSON.stringify(['EVENT', request]))
      await clock.sleep(AGAIN_MS)
    }
    const answer = this.#answers.get(request.id)
    return answer === undefined ? undefined : openNwcResponse(this.#signer, answer)
  }

  #hear(frame: string): void {
    const [type, , event] = JSON.parse(frame) as [string, string, NostrEvent]
    if (type !== 'EVENT') return
    const request = tagValue(event, 'e') ?? ''
    const known = this.#answers.get(request)
    if (known !== undefined && known.id !== event.id) this.#world.failures.push(`the request ${request} was answered twice`)
    this.#answers.set(request, event)
  }
}
