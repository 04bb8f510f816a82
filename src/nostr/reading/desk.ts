/** One relay as the feeds see it: the connection that all share, and one more for each key that the relay wants to see by itself. */
import type { Clock } from '../../base/clock.ts'
import type { Hold, RelayPool } from '../relay/pool.ts'
import type { Keyring } from '../types.ts'
import { Board } from './board.ts'
import type { Feed } from './feed.ts'

export interface DeskDeps {
  readonly pool: RelayPool
  readonly clock: Clock
  readonly keyring: Keyring
}

interface Place {
  readonly hold: Hold
  readonly board: Board
}

export class Desk {
  readonly url: string
  readonly #deps: DeskDeps
  readonly #shared: Place
  readonly #keyed = new Map<string, Place>()
  readonly #feeds = new Map<Feed, Place>()
  /** Keys, by group, that the shared connection does not serve. */
  readonly #apart = new Set<string>()
  readonly #unlisten: () => void

  /** @param hold of the shared connection; released with the desk */
  constructor(hold: Hold, deps: DeskDeps) {
    this.url = hold.relay.url
    this.#deps = deps
    this.#shared = { hold, board: this.#board(hold, (feeds) => this.#onDenied(feeds)) }
    this.#unlisten = hold.relay.listen({
      onChallenge: () => {
        for (const feed of this.#feeds.keys()) this.#place(feed)
      },
    })
  }

  get isEmpty(): boolean {
    return this.#feeds.size === 0
  }

  get feeds(): Iterable<Feed> {
    return this.#feeds.keys()
  }

  add(feed: Feed): void {
    this.#place(feed)
  }

  remove(feed: Feed): void {
    const place = this.#feeds.get(feed)
    this.#feeds.delete(feed)
    place?.board.remove(feed)
    this.#tidy()
  }

  /** Asks again for everything. */
  reopen(): void {
    for (const place of [this.#shared, ...this.#keyed.values()]) place.board.reopen()
  }

  close(): void {
    this.#unlisten()
    for (const { board, hold } of [this.#shared, ...this.#keyed.values()]) {
      board.close()
      hold.release()
    }
    this.#keyed.clear()
    this.#feeds.clear()
  }

  #board(hold: Hold, onDenied: (feeds: ReadonlySet<Feed>) => void): Board {
    return new Board({ relay: hold.relay, clock: this.#deps.clock, onDenied })
  }

  /** Puts a feed where it belongs by what is known of the relay. */
  #place(feed: Feed): void {
    const now = this.#feeds.get(feed)
    const to = (this.#needsOwn(feed) ? this.#own(feed.owner ?? '') : undefined) ?? this.#shared
    if (now === to) return
    now?.board.remove(feed)
    this.#feeds.set(feed, to)
    to.board.add(feed)
  }

  /**
   * Whether the feed needs a connection that is made as its key. A relay that asks who we are may serve private events to that key
   * alone, and may know only one key a connection, both without a word: what is not served cannot be seen.
   */
  #needsOwn(feed: Feed): boolean {
    const { relay } = this.#shared.hold
    if (feed.owner === undefined || feed.owner === relay.identity?.pubkey) return false
    return this.#apart.has(`${feed.owner} ${feed.group}`) || (feed.isPrivate && relay.challenged)
  }

  #own(pubkey: string): Place | undefined {
    const known = this.#keyed.get(pubkey)
    if (known !== undefined) return known
    const hold = this.#deps.pool.hold(this.url, pubkey)
    if (hold === undefined) return undefined
    const place = { hold, board: this.#board(hold, () => {}) }
    this.#keyed.set(pubkey, place)
    return place
  }

  /** The shared connection is not good enough for these: shown their key, if it is one, and else each on its own. */
  #onDenied(feeds: ReadonlySet<Feed>): void {
    const { relay } = this.#shared.hold
    const apart = [...feeds].filter((feed) => feed.owner !== undefined && feed.owner !== relay.identity?.pubkey)
    const [owner, ...others] = new Set(apart.map((feed) => feed.owner ?? ''))
    const { keyring } = this.#deps
    if (owner === undefined || keyring.locked) return
    const move = () => {
      for (const feed of apart) {
        this.#apart.add(`${feed.owner} ${feed.group}`)
        if (this.#feeds.has(feed)) this.#place(feed)
      }
    }
    if (others.length > 0 || !relay.challenged || relay.isProven(owner)) move()
    else
      void relay.auth(keyring.signer(owner)).then((proven) => {
        if (!proven) move()
      })
  }

  #tidy(): void {
    for (const [pubkey, place] of this.#keyed) {
      if (place.board.size > 0) continue
      this.#keyed.delete(pubkey)
      place.board.close()
      place.hold.release()
    }
  }
}
