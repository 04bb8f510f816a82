/** An agent that speaks the Agent Client Protocol (v1) over its stdio. */
import { systemClock } from '../../base/clock.ts'
import type { ProcessGroup } from '../../base/processes.ts'
import { AcpClient } from '../../inference/acp-client.ts'
import { type Agent, MAX_AGENT_MESSAGE_BYTES, type PromptOptions, type Turn, TurnRecord } from './agent.ts'
import { ConversationBook } from './conversation-book.ts'

/** How long an agent may take to answer a cancel. */
const CANCEL_GRACE_MS = 3000
const STOP_REASONS = ['end_turn', 'max_tokens', 'max_turn_requests', 'refusal', 'cancelled'] as const

export class AcpAgent implements Agent {
  readonly #client: AcpClient
  readonly #book: ConversationBook
  /** Of the agent's sessions those that it has open in this life. */
  readonly #open = new Set<string>()
  /** The agent's session id to the turn that runs in it; what it tells again of a session that it loads is nobody's turn. */
  readonly #turns = new Map<string, TurnRecord>()

  constructor(child: ProcessGroup, cwd: string, book = new ConversationBook()) {
    this.#book = book
    this.#client = new AcpClient(child, {
      cwd,
      // Nobody sits there to be asked, and the runtime is the fence: what the agent may reach, it may do.
      permit: () => ['allow_once', 'allow_always'],
      listener: (session) => this.#turns.get(session),
      maxMessageBytes: MAX_AGENT_MESSAGE_BYTES,
      cancelGrace: (giveUp) => systemClock.after(CANCEL_GRACE_MS, giveUp),
    })
  }

  async start(signal: AbortSignal): Promise<void> {
    await this.#client.initialize(signal)
  }

  async prompt(sessionId: string, message: string, signal: AbortSignal, options?: PromptOptions): Promise<Turn> {
    const record = new TurnRecord(options)
    try {
      const session = await this.#session(sessionId, signal)
      signal.throwIfAborted()
      this.#turns.set(session, record)
      const reason = await this.#client.prompt(session, message, signal).finally(() => this.#turns.delete(session))
      // The answer to a cancelled turn says `cancelled`; what the caller hears is why it was.
      if (reason === 'cancelled') signal.throwIfAborted()
      // Agents say more than the protocol knows.
      return record.turn(STOP_REASONS.find((known) => known === reason) ?? 'end_turn')
    } catch (error) {
      signal.throwIfAborted()
      throw error
    }
  }

  async #session(sessionId: string, signal: AbortSignal): Promise<string> {
    const known = this.#book.get(sessionId)
    const session = known !== undefined && this.#open.has(known) ? known : await this.#client.openSession(signal, known)
    this.#open.add(session)
    this.#book.note(sessionId, session)
    return session
  }
}
