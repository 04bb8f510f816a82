/** What happens in the node, for those that listen on /v1/events now; nothing is kept. */
import { EventEmitter, on } from 'node:events'
import { type Clock, rfc3339 } from '../base/clock.ts'

export interface NodeEvent {
  readonly type: string
  readonly at: string
  readonly [field: string]: unknown
}

export class Events {
  readonly #emitter = new EventEmitter().setMaxListeners(0)
  readonly #clock: Clock

  constructor(clock: Clock) {
    this.#clock = clock
  }

  emit(type: string, fields: Record<string, unknown> = {}): void {
    this.#emitter.emit('event', { type, at: rfc3339(this.#clock.now()), ...fields } satisfies NodeEvent)
  }

  /** The steps that a commit holds (`transition_job:ready`), as they are on disk. */
  onCommit(labels: readonly string[]): void {
    if (this.#emitter.listenerCount('event') === 0) return
    for (const label of labels) {
      const at = label.indexOf(':')
      if (at > 0) this.emit(label.slice(0, at), { state: label.slice(at + 1) })
    }
  }

  /** From now until the signal. */
  async *listen(signal: AbortSignal): AsyncGenerator<NodeEvent> {
    try {
      for await (const [event] of on(this.#emitter, 'event', { signal })) yield event as NodeEvent
    } catch (error) {
      if (!signal.aborted) throw error
    }
  }
}
