/** Frames of one connection, handled in slices so that other work gets its turn, and the socket held back while too many wait. */
import type { Clock } from '../../base/clock.ts'
import { parseFrame, type RelayFrame } from './frames.ts'

/** How long frames are handled before other work gets its turn. */
const SLICE_MS = 8
/** The socket is not read further while so many frames wait. */
const PAUSE_FRAMES = 2000
const RESUME_FRAMES = 200
/** Nor while they hold so many bytes: a frame may be large. */
const PAUSE_BYTES = 16 * 1024 * 1024

export interface InboxOwner {
  readonly clock: Clock
  onFrame(frame: RelayFrame): void
  pause(): void
  resume(): void
}

export class FrameInbox {
  readonly #owner: InboxOwner
  #waiting: Buffer[] = []
  #bytes = 0
  #scheduled = false
  #paused = false

  constructor(owner: InboxOwner) {
    this.#owner = owner
  }

  /** The socket is held back, so silence says nothing about the peer. */
  get paused(): boolean {
    return this.#paused
  }

  push(data: Buffer): void {
    this.#waiting.push(data)
    this.#bytes += data.length
    if ((this.#waiting.length > PAUSE_FRAMES || this.#bytes > PAUSE_BYTES) && !this.#paused) {
      this.#paused = true
      this.#owner.pause()
    }
    this.#schedule()
  }

  /** Drops what waits: the connection is gone. */
  clear(): void {
    this.#waiting = []
    this.#bytes = 0
    this.#paused = false
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => this.#drain())
  }

  #drain(): void {
    const waiting = this.#waiting
    const { clock } = this.#owner
    const until = clock.elapsedMs() + SLICE_MS
    let at = 0
    do {
      const data = waiting[at]
      if (data === undefined) break
      at++
      const frame = parseFrame(data.toString('utf8'))
      if (frame !== undefined) this.#owner.onFrame(frame)
      // A handler may have ended the connection, which drops what is left.
    } while (this.#waiting === waiting && clock.elapsedMs() < until)
    this.#scheduled = false
    if (this.#waiting !== waiting) {
      if (this.#waiting.length > 0) this.#schedule()
      return
    }
    for (const { length } of waiting.splice(0, at)) this.#bytes -= length
    if (this.#paused && waiting.length < RESUME_FRAMES && this.#bytes < PAUSE_BYTES / 2) {
      this.#paused = false
      this.#owner.resume()
    }
    if (waiting.length > 0) this.#schedule()
  }
}
