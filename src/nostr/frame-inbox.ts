/** Frames of one connection, handled in slices so that other work gets its turn, and the socket held back while too many wait. */
import { parseFrame, type RelayFrame } from './relay-frames.ts'

/** How long frames are handled before other work gets its turn. */
const SLICE_MS = 8
/** The socket is not read further while so many frames wait. */
const PAUSE_FRAMES = 2000
const RESUME_FRAMES = 200

export interface InboxOwner {
  onFrame(frame: RelayFrame): void
  pause(): void
  resume(): void
}

export class FrameInbox {
  readonly #owner: InboxOwner
  #waiting: Buffer[] = []
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
    if (this.#waiting.length > PAUSE_FRAMES && !this.#paused) {
      this.#paused = true
      this.#owner.pause()
    }
    this.#schedule()
  }

  /** Drops what waits: the connection is gone. */
  clear(): void {
    this.#waiting = []
    this.#paused = false
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => this.#drain())
  }

  #drain(): void {
    const waiting = this.#waiting
    const until = performance.now() + SLICE_MS
    let at = 0
    do {
      const data = waiting[at]
      if (data === undefined) break
      at++
      const frame = parseFrame(data.toString('utf8'))
      if (frame !== undefined) this.#owner.onFrame(frame)
      // A handler may have ended the connection, which drops what is left.
    } while (this.#waiting === waiting && performance.now() < until)
    this.#scheduled = false
    if (this.#waiting !== waiting) {
      if (this.#waiting.length > 0) this.#schedule()
      return
    }
    waiting.splice(0, at)
    if (this.#paused && waiting.length < RESUME_FRAMES) {
      this.#paused = false
      this.#owner.resume()
    }
    if (waiting.length > 0) this.#schedule()
  }
}
