/** What the prompt server and a session ask of an agent, whatever protocol it speaks. */
import { given } from '../../base/given.ts'
import type { Json } from '../../base/json.ts'
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

/** What happens in a turn, as it happens. */
export type AgentEvent =
  | { readonly type: 'text' | 'thought' | 'notice'; readonly text: string }
  | { readonly type: 'tool_call'; readonly callId: string; readonly name: string; readonly input: Json }
  | { readonly type: 'tool_update'; readonly callId: string; readonly status: ToolStatus; readonly output?: Json }
export type ToolStatus = 'in_progress' | 'completed' | 'failed'

/** What can be said into a turn that runs, beside ending it. */
export type Interjection = 'steer' | 'follow_up'

export interface PromptOptions {
  /** Hears of the turn while it runs. */
  readonly onEvent?: (event: AgentEvent) => void
}

export interface Agent {
  /** Speaks first with the process: resolves when it answers, which is the readiness probe. @throws Error */
  start(signal: AbortSignal): Promise<void>
  /** One turn. Aborting asks the agent to stop and rejects with the signal's reason. @throws Error with the agent's words */
  prompt(sessionId: string, message: string, signal: AbortSignal, options?: PromptOptions): Promise<Turn>
  /**
   * Says something into the turn that runs; undefined where the protocol cannot.
   * @returns false where no turn of this session runs any more: then it is a prompt of its own
   */
  interject?(sessionId: string, kind: Interjection, message: string, signal: AbortSignal): Promise<boolean>
}

/** Gathers what an agent says in one turn, within bounds, and passes it on. */
export class TurnRecord {
  readonly #onEvent: (event: AgentEvent) => void
  #reply = ''
  readonly #events: PromptEvent[] = []
  /** Names of tools by their call, for the update that names none. */
  readonly #tools = new Map<string, string>()

  constructor({ onEvent }: PromptOptions = {}) {
    this.#onEvent = onEvent ?? (() => {})
  }

  text(text: string): void {
    const kept = text.slice(0, MAX_REPLY_CHARS - this.#reply.length)
    if (kept === '') return
    this.#reply += kept
    this.#onEvent({ type: 'text', text: kept })
  }

  /** Between two messages of one turn. */
  paragraph(): void {
    if (this.#reply !== '' && !this.#reply.endsWith('\n\n')) this.text('\n\n')
  }

  thought(text: string): void {
    this.#note({ type: 'thought', text })
    this.#onEvent({ type: 'thought', text: text.slice(0, MAX_EVENT_CHARS) })
  }

  notice(text: string): void {
    this.#note({ type: 'notice', text })
    this.#onEvent({ type: 'notice', text: text.slice(0, MAX_EVENT_CHARS) })
  }

  toolCall(callId: string, name: string, input: Json): void {
    if (this.#tools.size < MAX_EVENTS) this.#tools.set(callId, name)
    this.#note({ type: 'tool_call', name })
    this.#onEvent({ type: 'tool_call', callId, name, input })
  }

  toolUpdate(callId: string, status: ToolStatus, output?: Json): void {
    if (status !== 'in_progress') this.#note({ type: 'tool_result', text: status, ...given({ name: this.#tools.get(callId) }) })
    this.#onEvent({ type: 'tool_update', callId, status, ...given({ output }) })
  }

  #note(event: PromptEvent): void {
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
