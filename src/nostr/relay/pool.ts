/** The relays that are connected: the node's own for ever, others while somebody holds them, and some once more for one key. */

import type { Keyring, Signer } from '../types.ts'
import { Relay, type RelayDeps } from './relay.ts'
import { tryRelayUrl } from './relay-url.ts'

/** Connections to relays that strangers named, at most. */
const MAX_FOREIGN = 64
/** Connections that one key has for itself, at most. */
const MAX_KEYED = 256
/** A foreign relay that nobody holds is kept so long, since answers come in bursts. */
const LINGER_MS = 60_000

export interface Hold {
  readonly relay: Relay
  release(): void
}

interface Entry {
  readonly relay: Relay
  readonly type: 'own' | 'foreign' | 'keyed'
  holds: number
  cancelLinger: () => void
}

export interface PoolDeps extends Omit<RelayDeps, 'identity' | 'forOneKey'> {
  readonly keyring: Keyring
}

export class RelayPool {
  readonly #deps: PoolDeps
  readonly #own: ReadonlySet<string>
  readonly #entries = new Map<string, Entry>()
  #isStarted = false

  /** @param own normal URLs. */
  constructor(own: readonly string[], deps: PoolDeps) {
    this.#deps = deps
    this.#own = new Set(own)
    for (const url of own) this.#add(url, url, 'own')
  }

  start(): void {
    this.#isStarted = true
    for (const { relay } of this.#entries.values()) relay.start()
  }

  isOwn(url: string): boolean {
    return this.#own.has(url)
  }

  ownRelays(): Relay[] {
    return [...this.#entries.values()].flatMap((entry) => (entry.type === 'own' ? [entry.relay] : []))
  }

  /**
   * The relay, connecting if need be; undefined for what is no relay URL, or when too many foreign ones are held.
   * @param pubkey for a connection that is made as this key alone: some relays know one key a connection
   */
  hold(text: string, pubkey?: string): Hold | undefined {
    const url = tryRelayUrl(text)
    if (url === undefined) return undefined
    const name = pubkey === undefined ? url : `${url} ${pubkey}`
    const entry = this.#entries.get(name) ?? this.#admit(name, url, pubkey)
    if (entry === undefined) return undefined
    entry.holds++
    entry.cancelLinger()
    entry.relay.recheck()
    let held = true
    return {
      relay: entry.relay,
      release: () => {
        if (!held) return
        held = false
        this.#release(name, entry)
      },
    }
  }

  #release(name: string, entry: Entry): void {
    entry.holds--
    if (entry.type === 'own' || entry.holds > 0) return
    entry.cancelLinger = this.#deps.scope.after('linger', LINGER_MS, () => this.#drop(name, entry))
  }

  #drop(name: string, entry: Entry): void {
    entry.cancelLinger()
    entry.relay.close()
    this.#entries.delete(name)
  }

  #admit(name: string, url: string, pubkey: string | undefined): Entry | undefined {
    if (this.#deps.scope.isClosing) return undefined
    const type = pubkey === undefined ? 'foreign' : 'keyed'
    const others = [...this.#entries].filter(([, entry]) => entry.type === type)
    if (others.length >= (type === 'foreign' ? MAX_FOREIGN : MAX_KEYED)) {
      const idle = others.find(([, entry]) => entry.holds === 0)
      if (idle === undefined) return undefined
      this.#drop(idle[0], idle[1])
    }
    return this.#add(name, url, type, pubkey)
  }

  #add(name: string, url: string, type: Entry['type'], pubkey?: string): Entry {
    const { keyring, scope } = this.#deps
    const identity = (): Signer | undefined => {
      if (keyring.locked) return undefined
      if (pubkey !== undefined) return keyring.owns(pubkey) ? keyring.signer(pubkey) : undefined
      return type === 'own' ? keyring.node() : undefined
    }
    const relay = new Relay(url, { ...this.#deps, scope: scope.child(name), identity, forOneKey: type === 'keyed' })
    const entry: Entry = { relay, type, holds: 0, cancelLinger: () => {} }
    this.#entries.set(name, entry)
    if (this.#isStarted) relay.start()
    return entry
  }
}
