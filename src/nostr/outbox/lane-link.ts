/** A lane's hold on its relay, given up for a while when the relay cannot be reached. */
import type { Clock } from '../../base/clock.ts'
import type { Hold } from '../relay/pool.ts'
import type { Relay } from '../relay/relay.ts'
import { isAhead } from './lane-queue.ts'

/** A relay that somebody named and that cannot be reached gives up its place in the pool for so long. */
const REST_MS = 30_000

export interface LaneLinkDeps {
  readonly clock: Clock
  /** Its place is wanted by others: it rests when the relay cannot be reached. */
  readonly mayRest: boolean
  hold(): Hold | undefined
  onUp(): void
  onDown(): void
}

export class LaneLink {
  readonly #deps: LaneLinkDeps
  #hold: Hold | undefined
  #unlisten: () => void = () => {}
  #restsUntil = 0
  #whyResting: string | null = null

  constructor(deps: LaneLinkDeps) {
    this.#deps = deps
  }

  /** As far as it is held now. */
  get relay(): Relay | undefined {
    return this.#hold?.relay
  }

  /** The relay could not be reached and is not tried for a while. */
  get isResting(): boolean {
    return this.#hold === undefined && isAhead(this.#restsUntil, this.#deps.clock.now())
  }

  /** Why the relay is not there, as far as that is known; null where it is. */
  get whyDown(): string | null {
    if (this.relay?.connected === true) return null
    return this.relay?.reason ?? this.#whyResting
  }

  /** Holds the relay from now on; undefined while it rests, or where there is no room. */
  reach(): Relay | undefined {
    if (this.#hold === undefined && !this.isResting) {
      const { hold, onUp, onDown } = this.#deps
      this.#hold = hold()
      this.#unlisten = this.#hold?.relay.listen({ onUp, onDown, onFailed: () => this.#rest() }) ?? (() => {})
    }
    return this.relay
  }

  leave(): void {
    this.#unlisten()
    this.#hold?.release()
    this.#hold = undefined
  }

  #rest(): void {
    // An address that is refused is reported by the lane's next turn.
    if (!this.#deps.mayRest || this.relay?.refused !== undefined) return
    this.#whyResting = this.relay?.reason ?? null
    this.leave()
    this.#restsUntil = this.#deps.clock.now() + REST_MS
  }
}
