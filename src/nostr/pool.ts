/** The relays that are connected: the node's own for ever, others while somebody holds them. */
import type { RelayDeps } from './relay.ts'
import { Relay } from './relay.ts'
import { tryRelayUrl } from './relay-url.ts'

/** Connections to relays that strangers named, at most. */
const MAX_FOREIGN = 64
/** A foreign relay that nobody holds is kept so long, since answers come in bursts. */
const LINGER_MS = 60_000

export interface Hold {
  readonly relay: Relay
  release(): void
}

interface Entry {
  readonly relay: Relay
  readonly own: boolean
  holds: number
  cancelLinger: () => void
}

export class RelayPool {
  readonly #deps: RelayDeps
  readonly #own: ReadonlySet<string>
  readonly #entries = new Map<string, Entry>()
  #started = false

  /** @param own normal URLs. */
  constructor(own: readonly string[], deps: RelayDeps) {
    this.#deps = deps
    this.#own = new Set(own)
    for (const url of own) this.#add(url, true)
  }

  start(): void {
    this.#started = true
    for (const entry of this.#entries.values()) entry.relay.start()
  }

  close(): void {
    this.#started = false
    for (const entry of this.#entries.values()) {
      entry.cancelLinger()
      entry.relay.close()
    }
  }

  isOwn(url: string): boolean {
    return this.#own.has(url)
  }

  ownRelays(): Relay[] {
    return [...this.#entries.values()].flatMap((entry) => (entry.own ? [entry.relay] : []))
  }

  /** The relay, connecting if need be; undefined for what is no relay URL, or when too many foreign ones are held. */
  hold(text: string): Hold | undefined {
    const url = tryRelayUrl(text)
    if (url === undefined) return undefined
    const entry = this.#entries.get(url) ?? this.#admit(url)
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
        this.#release(url, entry)
      },
    }
  }

  #release(url: string, entry: Entry): void {
    entry.holds--
    if (entry.own || entry.holds > 0 || !this.#started) return
    entry.cancelLinger = this.#deps.clock.after(LINGER_MS, () => this.#drop(url, entry))
  }

  #drop(url: string, entry: Entry): void {
    entry.cancelLinger()
    entry.relay.close()
    this.#entries.delete(url)
  }

  #admit(url: string): Entry | undefined {
    if (this.#entries.size - this.#own.size >= MAX_FOREIGN) {
      const idle = [...this.#entries].find(([, entry]) => !entry.own && entry.holds === 0)
      if (idle === undefined) return undefined
      this.#drop(idle[0], idle[1])
    }
    return this.#add(url, false)
  }

  #add(url: string, own: boolean): Entry {
    const entry: Entry = { relay: new Relay(url, this.#deps), own, holds: 0, cancelLinger: () => {} }
    this.#entries.set(url, entry)
    if (this.#started) entry.relay.start()
    return entry
  }
}
