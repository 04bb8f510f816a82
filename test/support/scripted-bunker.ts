/** A remote signer (NIP-46) made of nostr-tools alone, which does what it is told: also wrongly, twice, or not at all. */
import { decrypt as decrypt04, encrypt as encrypt04 } from 'nostr-tools/nip04'
import { decrypt, encrypt, getConversationKey } from 'nostr-tools/nip44'
import { SimplePool } from 'nostr-tools/pool'
import { type EventTemplate, finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'

const KIND = 24_133

export interface BunkerAsked {
  readonly id: string
  readonly method: string
  readonly params: readonly string[]
}

export interface BunkerSaid {
  readonly id: string
  readonly result?: string
  readonly error?: string
}

/** What it answers in place of what is right; undefined: what is right, an empty list: nothing. */
export type Misbehaviour = (asked: BunkerAsked, right: BunkerSaid) => readonly (BunkerSaid | string)[] | undefined

export class ScriptedBunker {
  readonly pubkey: string
  readonly url: string
  readonly asked: BunkerAsked[] = []
  misbehave: Misbehaviour = () => undefined
  /** Deaf and mute. */
  isAway = false
  /** Requests that came while it was. */
  ignored = 0
  /** The key that signs its answers. */
  answersBy: Uint8Array
  readonly #relay: string
  readonly #own = generateSecretKey()
  readonly #secret = Buffer.from(generateSecretKey()).toString('hex').slice(0, 16)
  readonly #pool = new SimplePool()
  readonly #heard = new Set<string>()
  #user: Uint8Array
  #client: string | undefined

  private constructor(relay: string, user: Uint8Array) {
    this.#relay = relay
    this.#user = user
    this.answersBy = this.#own
    this.pubkey = getPublicKey(user)
    this.url = `bunker://${getPublicKey(this.#own)}?relay=${encodeURIComponent(relay)}&secret=${this.#secret}`
  }

  static async start(relay: string, user = generateSecretKey()): Promise<ScriptedBunker> {
    const bunker = new ScriptedBunker(relay, user)
    await bunker.#pool.ensureRelay(relay)
    bunker.#pool.subscribeMany([relay], { kinds: [KIND], '#p': [getPublicKey(bunker.#own)], limit: 0 } as never, {
      onevent: (event) => void bunker.#hear(event),
    })
    // It hears from now on only: its subscription is to be there first.
    await bunker.#pool.querySync([relay], { kinds: [1], limit: 1 })
    return bunker
  }

  /** It signs for another key from now on. */
  become(user: Uint8Array): void {
    this.#user = user
  }

  stop(): void {
    this.#pool.destroy()
  }

  /** Says a right answer after all. */
  allow(right: BunkerSaid): void {
    if (this.#client !== undefined) void this.#say(this.#client, right)
  }

  count(method: string): number {
    return this.asked.filter((asked) => asked.method === method).length
  }

  async #hear(event: { id: string; pubkey: string; content: string }): Promise<void> {
    if (this.isAway) this.ignored++
    if (this.isAway || this.#heard.has(event.id)) return
    this.#heard.add(event.id)
    const asked = JSON.parse(decrypt(event.content, getConversationKey(this.#own, event.pubkey))) as BunkerAsked
    this.asked.push(asked)
    const right = this.#rightly(asked, event.pubkey)
    for (const said of this.misbehave(asked, right) ?? [right]) await this.#say(event.pubkey, said)
  }

  #rightly({ id, method, params }: BunkerAsked, from: string): BunkerSaid {
    const [first = '', second = ''] = params
    if (method === 'connect') {
      // Good once, as others have it: also for who brought it before.
      if (this.#client !== undefined || second !== this.#secret) return { id, error: 'invalid secret' }
      this.#client = from
      return { id, result: 'ack' }
    }
    if (this.#client !== from) return { id, error: 'unauthorized' }
    try {
      return { id, result: this.#done(method, first, second) }
    } catch (error) {
      return { id, error: String(error) }
    }
  }

  #done(method: string, first: string, second: string): string {
    switch (method) {
      case 'get_public_key':
        return getPublicKey(this.#user)
      case 'sign_event':
        return JSON.stringify(finalizeEvent(JSON.parse(first) as EventTemplate, this.#user))
      case 'nip44_encrypt':
        return encrypt(second, getConversationKey(this.#user, first))
      case 'nip44_decrypt':
        return decrypt(second, getConversationKey(this.#user, first))
      case 'nip04_encrypt':
        return encrypt04(this.#user, first, second)
      case 'nip04_decrypt':
        return decrypt04(this.#user, first, second)
      default:
        throw new Error('unknown method')
    }
  }

  async #say(to: string, said: BunkerSaid | string): Promise<void> {
    const text = typeof said === 'string' ? said : JSON.stringify({ result: '', error: '', ...said })
    const content = typeof said === 'string' ? said : encrypt(text, getConversationKey(this.answersBy, to))
    const event = finalizeEvent({ kind: KIND, created_at: Math.floor(Date.now() / 1000), tags: [['p', to]], content }, this.answersBy)
    await Promise.allSettled(this.#pool.publish([this.#relay], event))
  }
}
