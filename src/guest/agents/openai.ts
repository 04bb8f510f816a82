/** An agent that is a model behind an OpenAI-compatible endpoint: no process, its conversations kept as files. */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { z } from 'zod'
import { ensurePrivateDir, readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import { parseJson } from '../../base/json.ts'
import { type ChatMessage, chatStreamed, listModels, type OpenAiServer } from '../../inference/openai.ts'
import { type Agent, type PromptOptions, type Turn, TurnRecord } from './agent.ts'

/** Of one conversation: what the model is told again each time. */
const MAX_KEPT_MESSAGES = 60
const MAX_KEPT_CHARS = 60_000

const kept = z.array(z.object({ role: z.enum(['system', 'user', 'assistant']), content: z.string() }))

export interface OpenAiAgentOptions {
  readonly server: OpenAiServer
  /** Empty: the first that the server lists. */
  readonly model: string
  /** What it is told before everything else. */
  readonly system?: string | undefined
  /** Where its conversations are kept. */
  readonly dir: string
}

export class OpenAiAgent implements Agent {
  readonly #options: OpenAiAgentOptions
  #model: string

  constructor(options: OpenAiAgentOptions) {
    this.#options = options
    this.#model = options.model
  }

  /** @throws Error where the server has no model */
  async start(signal: AbortSignal): Promise<void> {
    ensurePrivateDir(this.#options.dir)
    if (this.#model !== '') return
    const [first] = await listModels(this.#options.server, signal)
    if (first === undefined) throw new Error(`${this.#options.server.baseUrl} has no model`)
    this.#model = first
  }

  async prompt(sessionId: string, message: string, signal: AbortSignal, options?: PromptOptions): Promise<Turn> {
    const { server, system } = this.#options
    const history = this.#history(sessionId)
    const asked: ChatMessage = { role: 'user', content: message }
    const messages = [...(system === undefined ? [] : [{ role: 'system', content: system } as const]), ...history, asked]
    const live = new TurnRecord(options)
    const answer = await chatStreamed(server, { model: this.#model, messages }, signal, (text) => live.text(text))
    if (answer.content === '') throw new Error(answer.lack?.words ?? 'the model said nothing')
    this.#keep(sessionId, [...history, asked, { role: 'assistant', content: answer.content }])
    // What came in pieces may hold what the answer leaves out.
    const record = new TurnRecord()
    record.text(answer.content)
    return record.turn(answer.lack?.kind === 'cut' ? 'max_tokens' : answer.lack?.kind === 'withheld' ? 'refusal' : 'end_turn')
  }

  #history(sessionId: string): readonly ChatMessage[] {
    const parsed = kept.safeParse(parseJson(readFileIfAny(this.#path(sessionId)) ?? '[]'))
    return parsed.success ? parsed.data : []
  }

  /** The newest of it, from a question on. */
  #keep(sessionId: string, messages: readonly ChatMessage[]): void {
    const recent = messages.slice(-MAX_KEPT_MESSAGES)
    while (recent.length > 2 && recent.reduce((sum, { content }) => sum + content.length, 0) > MAX_KEPT_CHARS) recent.shift()
    while (recent[0]?.role === 'assistant') recent.shift()
    writeFileAtomic(this.#path(sessionId), JSON.stringify(recent))
  }

  #path(sessionId: string): string {
    return join(this.#options.dir, `${createHash('sha256').update(sessionId).digest('hex').slice(0, 32)}.json`)
  }
}
