/** The one way a daemon ends: what was opened last is closed first, within a deadline, once. */
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'

const SAME_SIGNAL_MS = 300

interface Closer {
  readonly name: string
  readonly close: () => void | Promise<void>
}

export class Shutdown {
  readonly #closers: Closer[] = []
  readonly #abort = new AbortController()
  readonly #logger: Logger
  #ended: Promise<boolean> | undefined
  readonly #begun = Promise.withResolvers<string>()
  /** Resolves with the reason when the end begins. */
  readonly begun = this.#begun.promise

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** Aborted as soon as the end begins. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /** Registers what must be closed; closers run in the reverse order. */
  onClose(name: string, close: () => void | Promise<void>): void {
    this.#closers.push({ name, close })
  }

  /** Asks for the end; the rest is `close`. May be called by signals and the socket, any number of times. */
  request(reason: string): void {
    if (this.#abort.signal.aborted) return
    this.#abort.abort(reason)
    this.#begun.resolve(reason)
  }

  /** Runs every closer. @returns whether all of them succeeded in time. */
  close(deadlineMs: number): Promise<boolean> {
    this.#ended ??= this.#closeAll(deadlineMs)
    return this.#ended
  }

  async #closeAll(deadlineMs: number): Promise<boolean> {
    const deadline = Date.now() + deadlineMs
    let isClean = true
    for (const closer of this.#closers.reverse()) {
      const error = await closeWithin(closer, Math.max(100, deadline - Date.now()))
      if (error === undefined) continue
      isClean = false
      this.#logger.error({ part: closer.name, error }, 'could not be closed cleanly')
    }
    return isClean
  }
}

/** @returns what went wrong, if anything. */
async function closeWithin(closer: Closer, ms: number): Promise<string | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve('took too long'), ms)
  })
  const work = Promise.resolve()
    .then(() => closer.close())
    .then(
      () => undefined,
      (error: unknown) => messageOf(error),
    )
  // In real time: the process ends, whatever a part waits for.
  const error = await Promise.race([work, late])
  clearTimeout(timer)
  return error
}

/**
 * SIGTERM and SIGINT ask for the end, a second one ends the process as if we had not listened; SIGHUP reloads.
 * @returns a function that stops listening.
 */
export function listenToSignals(shutdown: Shutdown, onHangup: () => void): () => void {
  let firstAt: number | undefined
  const onEnd = (signal: NodeJS.Signals) => {
    if (firstAt === undefined) {
      firstAt = performance.now()
      return shutdown.request(signal)
    }
    // A terminal tells a whole group, and whoever started us may pass the same signal on: that is one.
    if (performance.now() - firstAt < SAME_SIGNAL_MS) return
    stop()
    process.kill(process.pid, signal)
  }
  const stop = () => {
    process.off('SIGTERM', onEnd)
    process.off('SIGINT', onEnd)
    process.off('SIGHUP', onHangup)
  }
  process.on('SIGTERM', onEnd)
  process.on('SIGINT', onEnd)
  process.on('SIGHUP', onHangup)
  return stop
}
