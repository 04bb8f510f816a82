/** Whether the peer of one connection still answers: it is pinged, and silence until the next ping is the end. */
import type { Clock } from '../../base/clock.ts'

const PING_MS = 30_000

export interface PingDeps {
  readonly clock: Clock
  ping(): void
  /** The socket is held back by us: silence says nothing. */
  isPaused(): boolean
  /** Nothing came since the last ping: the connection is dead, whatever the kernel believes. */
  onDead(): void
}

export class RelayPing {
  readonly #deps: PingDeps
  #isAwaited = false
  #cancel: () => void = () => {}

  constructor(deps: PingDeps) {
    this.#deps = deps
  }

  start(): void {
    this.#isAwaited = false
    this.#later()
  }

  stop(): void {
    this.#cancel()
  }

  /** Something came. */
  alive(): void {
    this.#isAwaited = false
  }

  #later(): void {
    const { clock, ping, isPaused, onDead } = this.#deps
    this.#cancel = clock.after(PING_MS, () => {
      if (this.#isAwaited && !isPaused()) {
        onDead()
        return
      }
      this.#later()
      this.#isAwaited = true
      ping()
    })
  }
}
