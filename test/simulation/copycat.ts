/** Whoever reads relays for nutzaps (NIP-61) and publishes what it finds as its own: whole or in part, for the same key or another. */
import { randomBelow, seededRandom } from '../../src/base/random.ts'
import { createSigner } from '../../src/nostr/keys/signer.ts'
import { tagValues } from '../../src/nostr/nips/nip01.ts'
import { NUTZAP_KIND } from '../../src/nostr/nips/nip61.ts'
import type { NostrEvent } from '../../src/nostr/types.ts'
import type { World } from './world.ts'

/** What a nutzap had on the wire. */
export interface SeenNutzap {
  readonly id: string
  readonly recipient: string
  readonly secrets: readonly string[]
}

export class Copycat {
  readonly #signer
  readonly #send: (frame: string) => void
  readonly #random
  readonly #others: () => readonly string[]
  readonly seen = new Map<string, SeenNutzap>()

  /** @param others keys that would like to have them too */
  constructor(world: World, seed: number, others: () => readonly string[]) {
    this.#random = seededRandom(seed + 2 ** 28)
    this.#signer = createSigner(new Uint8Array(32).fill(22), this.#random)
    this.#others = others
    this.#send = world.visitRelays((frame) => this.#hear(frame))
    this.#send(JSON.stringify(['REQ', 'nutzaps', { kinds: [NUTZAP_KIND] }]))
  }

  #hear(frame: string): void {
    const [type, , event] = JSON.parse(frame) as [string, string, NostrEvent]
    if (type !== 'EVENT' || event.pubkey === this.#signer.pubkey || this.seen.has(event.id)) return
    const proofs = tagValues(event, 'proof')
    const secrets = proofs.map((proof) => (JSON.parse(proof) as { secret: string }).secret)
    const recipient = tagValues(event, 'p')[0] ?? ''
    this.seen.set(event.id, { id: event.id, recipient, secrets })
    const kept = proofs.slice(0, 1 + randomBelow(this.#random, proofs.length))
    for (const to of [recipient, ...this.#others()]) {
      const tags = event.tags.flatMap((tag) => {
        if (tag[0] === 'p') return [['p', to]]
        return tag[0] === 'proof' && !kept.includes(tag[1] ?? '') ? [] : [tag]
      })
      this.#send(JSON.stringify(['EVENT', this.#signer.sign({ kind: NUTZAP_KIND, created_at: event.created_at, tags, content: 'mine' })]))
    }
  }
}
