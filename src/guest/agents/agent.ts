/** What the prompt server asks of an agent process, whatever protocol it speaks. */
import type { PromptEvent, PromptResult } from '../../runtime/contract/prompt.ts'

/** One line or message of an agent may be this long, in bytes. */
export const MAX_AGENT_MESSAGE_BYTES = 8 * 1024 * 1024
/** What one turn may say; the rest is dropped. */
const MAX_REPLY_CHARS = 1024 * 1024
const MAX_EVENTS = 500
const MAX_EVENT_CHARS = 4000

export interface Turn {
  readonly reply: string
  readonly stopReason: PromptResult['stop_reason']
  readonly events: readonly PromptEvent[]
}

export interface Agent {
  /** Speaks first with the process: resolves when it answers, which is the readiness probe. @throws Error */
  start(signal: AbortSignal): Promise<void>
  /** One turn. Aborting asks the agent to stop and rejects with the signal's reason. @throws Error with the agent's words */
  prompt(sessionId: string, message: string, signal: AbortSignal): Promise<Turn>
}

/** Gathers what an agent says in one turn, within bounds. */
export class TurnRecord {
  #reply = ''
  readonly #events: PromptEvent[] = []

  text(text: string): void {
    this.#reply += text.slice(0, MAX_REPLY_CHARS - this.#reply.length)
  }

  /** Between two messages of one turn. */
  paragraph(): void {
    if (this.#reply !== '' && !this.#reply.endsWith('\n\n')) this.text('\n\n')
  }

  event(event: PromptEvent): void {
    if (this.#events.length >= MAX_EVENTS) return
    this.#events.push({ ...event, ...(event.text === undefined ? {} : { text: event.text.slice(0, MAX_EVENT_CHARS) }) })
  }

  get said(): boolean {
    return this.#reply !== ''
  }

  turn(stopReason: Turn['stopReason']): Turn {
    return { reply: this.#reply.trimEnd(), stopReason, events: this.#events }
  }
}
