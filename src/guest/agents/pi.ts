/** The pi coding agent in its `--mode rpc`: JSON lines over stdio, split on LF alone, one conversation at a time. */
import { StringDecoder } from 'node:string_decoder'
import { z } from 'zod'
import { type Json, parseJson } from '../../base/json.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { ProcessGroup } from '../../base/processes.ts'
import { type Agent, type Interjection, MAX_AGENT_MESSAGE_BYTES, type PromptOptions, type Turn, TurnRecord } from './agent.ts'
import { ConversationBook } from './conversation-book.ts'

const response = z.object({
  type: z.literal('response'),
  id: z.string().optional(),
  success: z.boolean(),
  error: z.string().optional(),
  data: z.unknown().optional(),
})

const state = z.object({
  isStreaming: z.boolean().optional(),
  pendingMessageCount: z.number().optional(),
  sessionFile: z.string().nullish(),
})

const assistant = z.object({
  role: z.literal('assistant'),
  content: z.union([z.string(), z.array(z.object({ type: z.string(), text: z.string().optional() }))]),
  stopReason: z.string().optional(),
  errorMessage: z.string().optional(),
})

const event = z.object({
  type: z.string(),
  id: z.string().optional(),
  method: z.string().optional(),
  toolName: z.string().optional(),
  toolCallId: z.string().optional(),
  args: z.json().optional(),
  result: z.json().optional(),
  isError: z.boolean().optional(),
  message: z.unknown().optional(),
  messages: z.array(z.unknown()).optional(),
  assistantMessageEvent: z.object({ type: z.string(), delta: z.string().optional() }).optional(),
  finalError: z.string().optional(),
})
type PiEvent = z.output<typeof event>

const toolResult = z.object({ content: z.array(z.object({ type: z.string(), text: z.string().optional() })) })

/** Dialogs that wait for an answer; nobody is there to give one. */
const DIALOGS = new Set(['select', 'confirm', 'input', 'editor'])
const CANCEL_GRACE_MS = 3000

export class PiAgent implements Agent {
  readonly #child: ProcessGroup
  readonly #waiting = new Map<string, { resolve(data: unknown): void; reject(error: Error): void }>()
  /** Our session id to the file that pi keeps it in. */
  readonly #files: ConversationBook
  /** One conversation at a time. */
  readonly #line = new KeyedQueue()
  #current: string | undefined
  #onEvent: ((event: PiEvent) => void) | undefined
  /** The session whose turn runs. */
  #speaking: string | undefined
  #nextId = 1
  #closed: Error | undefined

  constructor(child: ProcessGroup, files = new ConversationBook()) {
    this.#child = child
    this.#files = files
    readLines(child, (line) => this.#onLine(line))
    // Never rejects.
    void child.exited.then(() => this.#close(new Error('the agent has ended')))
  }

  async start(signal: AbortSignal): Promise<void> {
    await this.#command({ type: 'get_state' }, signal)
  }

  async prompt(sessionId: string, message: string, signal: AbortSignal, options?: PromptOptions): Promise<Turn> {
    return await this.#line.run('', () => this.#turn(sessionId, message, signal, options))
  }

  async #turn(sessionId: string, message: string, signal: AbortSignal, options?: PromptOptions): Promise<Turn> {
    signal.throwIfAborted()
    await this.#enter(sessionId, signal)
    const record = new TurnRecord(options)
    const ended = this.#turnEnd(record, signal)
    // The command may fail first; then its error is told.
    ended.catch(() => undefined)
    try {
      await this.#command({ type: 'prompt', message }, signal)
      this.#speaking = sessionId
      return await ended
    } finally {
      this.#onEvent = undefined
      this.#speaking = undefined
    }
  }

  /** pi takes it after the tool that runs (steer), or when it would end (follow_up): the turn goes on with it. */
  async interject(sessionId: string, kind: Interjection, message: string, signal: AbortSignal): Promise<boolean> {
    if (this.#speaking !== sessionId) return false
    await this.#command({ type: kind, message }, signal)
    return true
  }

  /** Resolves when pi has nothing more to do: an end that it will retry is none. */
  #turnEnd(record: TurnRecord, signal: AbortSignal): Promise<Turn> {
    return new Promise((resolve, reject) => {
      let retrying = false
      let last: Turn['stopReason'] = 'end_turn'
      let failure: string | undefined
      const settle = async () => {
        const now = state.safeParse(await this.#command({ type: 'get_state' }, signal)).data
        if (retrying || now?.isStreaming === true || (now?.pendingMessageCount ?? 0) > 0) return
        if (last === 'error') reject(new Error(failure ?? 'the agent reported an error'))
        else resolve(record.turn(last))
      }
      this.#onEvent = (event) => {
        if (event.type === 'auto_retry_start') retrying = true
        if (event.type === 'auto_retry_end') {
          retrying = false
          failure = event.finalError ?? failure
        }
        if (event.type === 'agent_start') retrying = false
        if (event.type === 'agent_end') {
          const end = lastAssistant(event.messages ?? [])
          last = stopReasonOf(end?.stopReason)
          failure = end?.errorMessage
          if (!record.said && end !== undefined) record.text(textOf(end.content))
        }
        recordEvent(record, event)
        if (event.type === 'agent_end' || (event.type === 'auto_retry_end' && last === 'error')) settle().catch(reject)
      }
      this.#onClosed = reject
      signal.addEventListener('abort', () => this.#abort(signal, reject), { once: true })
    })
  }

  #onClosed: ((error: Error) => void) | undefined

  #abort(signal: AbortSignal, reject: (reason: unknown) => void): void {
    const giveUp = () => reject(signal.reason)
    this.#command({ type: 'abort' }, AbortSignal.timeout(CANCEL_GRACE_MS)).then(giveUp, giveUp)
  }

  /** Makes the conversation the current one: a known one from its file, else a new one. */
  async #enter(sessionId: string, signal: AbortSignal): Promise<void> {
    if (this.#current === sessionId) return
    const file = this.#files.get(sessionId)
    // The first conversation is the one that pi starts with.
    const isBack = file !== undefined && (await this.#switch(file, signal))
    if (!isBack && this.#current !== undefined) await this.#command({ type: 'new_session' }, signal)
    this.#current = sessionId
    const now = state.safeParse(await this.#command({ type: 'get_state' }, signal)).data
    if (typeof now?.sessionFile !== 'string') return
    this.#files.note(sessionId, now.sessionFile)
  }

  /** @returns false where the file is no more */
  async #switch(file: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#command({ type: 'switch_session', sessionPath: file }, signal)
      return true
    } catch (error) {
      signal.throwIfAborted()
      if (this.#closed !== undefined) throw error
      return false
    }
  }

  #command(command: Record<string, unknown>, signal: AbortSignal): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#closed !== undefined) return reject(this.#closed)
      if (signal.aborted) return reject(signal.reason)
      const id = `pylon-${this.#nextId++}`
      const onAbort = () => done(() => reject(signal.reason))
      const done = (settle: () => void) => {
        this.#waiting.delete(id)
        signal.removeEventListener('abort', onAbort)
        settle()
      }
      signal.addEventListener('abort', onAbort, { once: true })
      this.#waiting.set(id, { resolve: (data) => done(() => resolve(data)), reject: (error) => done(() => reject(error)) })
      this.#send({ id, ...command })
    })
  }

  #send(message: Record<string, unknown>): void {
    this.#child.process.stdin?.write(`${JSON.stringify(message)}\n`)
  }

  #onLine(line: string): void {
    const value = parseJson(line)
    const answer = response.safeParse(value)
    if (answer.success) {
      const waiting = answer.data.id === undefined ? undefined : this.#waiting.get(answer.data.id)
      if (answer.data.success) waiting?.resolve(answer.data.data)
      else waiting?.reject(new Error((answer.data.error ?? 'the agent refused the command').slice(0, 1000)))
      return
    }
    const seen = event.safeParse(value)
    if (!seen.success) return
    if (seen.data.type === 'extension_ui_request' && DIALOGS.has(seen.data.method ?? '')) {
      this.#send({ type: 'extension_ui_response', id: seen.data.id, cancelled: true })
    } else this.#onEvent?.(seen.data)
  }

  #close(error: Error): void {
    this.#closed = error
    for (const waiting of [...this.#waiting.values()]) waiting.reject(error)
    this.#onClosed?.(error)
  }
}

function recordEvent(record: TurnRecord, event: PiEvent): void {
  const update = event.assistantMessageEvent
  if (event.type === 'message_start' && assistant.safeParse(event.message).success) record.paragraph()
  else if (update?.type === 'text_delta') record.text(update.delta ?? '')
  else if (update?.type === 'thinking_delta') record.thought(update.delta ?? '')
  else if (event.type === 'tool_execution_start') {
    record.toolCall(event.toolCallId ?? '', event.toolName ?? 'tool', event.args ?? null)
  } else if (event.type === 'tool_execution_end') {
    record.toolUpdate(event.toolCallId ?? '', event.isError === true ? 'failed' : 'completed', outputOf(event.result))
  } else if (event.type === 'auto_retry_start') record.notice('the agent tries again')
}

/** The text of a tool's result, where it has one. */
function outputOf(result: Json | undefined): Json | undefined {
  const parsed = toolResult.safeParse(result)
  const text = parsed.success ? parsed.data.content.flatMap((block) => (block.type === 'text' ? [block.text ?? ''] : [])).join('') : ''
  return text === '' ? result : text
}

function lastAssistant(messages: readonly unknown[]): z.output<typeof assistant> | undefined {
  return messages.map((message) => assistant.safeParse(message).data).findLast((message) => message !== undefined)
}

function textOf(content: z.output<typeof assistant>['content']): string {
  if (typeof content === 'string') return content
  return content.map((block) => (block.type === 'text' ? (block.text ?? '') : '')).join('')
}

function stopReasonOf(reason: string | undefined): Turn['stopReason'] {
  if (reason === 'length') return 'max_tokens'
  if (reason === 'aborted') return 'cancelled'
  return reason === 'error' ? 'error' : 'end_turn'
}

/** Calls `onLine` for each line that LF ends; U+2028 and U+2029 are no line ends here. A line over the cap ends the agent. */
function readLines(child: ProcessGroup, onLine: (line: string) => void): void {
  const decoder = new StringDecoder('utf8')
  let rest = ''
  child.process.stdout?.on('data', (chunk: Buffer) => {
    const lines = (rest + decoder.write(chunk)).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) onLine(line.endsWith('\r') ? line.slice(0, -1) : line)
    if (rest.length > MAX_AGENT_MESSAGE_BYTES) child.kill('SIGKILL')
  })
}
