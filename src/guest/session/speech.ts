/**
 * What an agent says in one turn, as messages: text in pieces, tools as they are called; gathered, so that relays are not flooded.
 *
 *     events --> pieces (text runs together, cut to size) --one each PACE_MS--> say
 */
import type { Json } from '../../base/json.ts'
import type { Scope } from '../../base/scope.ts'
import type { EnvelopeBody } from '../../session/envelope.ts'
import type { AgentEvent } from '../agents/agent.ts'

const PACE_MS = 250
const MAX_PIECE_BYTES = 4096
/** Of the text that follows the pieces as a whole: it must fit one message of a relay. */
const MAX_WHOLE_BYTES = 24 * 1024
const MAX_LAST_PIECE_BYTES = 16 * 1024
/** Tools of one turn that wait to be told; more are left out. */
const MAX_WAITING = 100
const MAX_TOOL_CHARS = 4096

export interface SpeechDeps {
  readonly scope: Scope
  /** Resolves when it is stored. */
  say(body: EnvelopeBody): Promise<void>
}

export class Speech {
  readonly #deps: SpeechDeps
  readonly #waiting: EnvelopeBody[] = []
  #speaking: Promise<void> | undefined
  #isOver = false
  #wake: (() => void) | undefined
  #failure: { readonly error: unknown } | undefined

  constructor(deps: SpeechDeps) {
    this.#deps = deps
  }

  hear(event: AgentEvent): void {
    if (this.#isOver) return
    switch (event.type) {
      case 'text':
        this.#text(event.text)
        break
      case 'tool_call':
        this.#tool({ type: 'tool_call', call_id: event.callId, tool_name: event.name, input: short(event.input) })
        break
      case 'tool_update':
        this.#tool({
          type: 'tool_call_update',
          call_id: event.callId,
          status: event.status,
          ...(event.output === undefined ? {} : { output: short(event.output) }),
        })
        break
      default:
        return
    }
    this.#speaking ??= this.#speak()
  }

  /**
   * Tells the rest: tools, and what is missing of a long text.
   * @returns the whole of a short text, which is to be said with the end of the turn @throws as `say` does
   */
  async finish(reply: string): Promise<EnvelopeBody[]> {
    const isShort = Buffer.byteLength(reply) <= MAX_WHOLE_BYTES
    const rest = await this.#stop()
    for (const body of rest) {
      if (body.type !== 'text_delta') await this.#deps.say(body)
      else if (!isShort) await this.#inPieces(body.delta)
    }
    return isShort && reply !== '' ? [{ type: 'assistant_text', text: reply }] : []
  }

  /** Tells what is left of a turn that was ended. @throws as `say` does */
  async breakOff(): Promise<void> {
    for (const body of await this.#stop()) {
      if (body.type === 'text_delta') await this.#inPieces(body.delta)
      else await this.#deps.say(body)
    }
  }

  async #inPieces(text: string): Promise<void> {
    for (let left = text; left !== ''; ) {
      const piece = cut(left, MAX_LAST_PIECE_BYTES)
      left = left.slice(piece.length)
      await this.#deps.say({ type: 'text_delta', delta: piece })
      if (left !== '') await this.#deps.scope.sleep(PACE_MS)
    }
  }

  /** @returns what was not told yet @throws as `say` did */
  async #stop(): Promise<readonly EnvelopeBody[]> {
    this.#isOver = true
    this.#wake?.()
    await this.#speaking
    if (this.#failure !== undefined) throw this.#failure.error
    return this.#waiting
  }

  #text(text: string): void {
    const last = this.#waiting.at(-1)
    if (last?.type === 'text_delta') this.#waiting[this.#waiting.length - 1] = { type: 'text_delta', delta: last.delta + text }
    else this.#waiting.push({ type: 'text_delta', delta: text })
  }

  #tool(body: EnvelopeBody): void {
    if (this.#waiting.length < MAX_WAITING) this.#waiting.push(body)
  }

  async #speak(): Promise<void> {
    const { scope, say } = this.#deps
    try {
      // What comes in one go is one piece.
      await scope.sleep(0)
      for (let body = this.#next(); body !== undefined; body = this.#next()) {
        await say(body)
        if (this.#isOver) break
        await this.#pause()
      }
    } catch (error) {
      this.#failure ??= { error }
      return
    }
    this.#speaking = undefined
  }

  /** Until the next piece may go, or the turn is over: its end waits for nothing. */
  async #pause(): Promise<void> {
    await this.#deps.scope.hear<void>(PACE_MS, (tell) => {
      this.#wake = tell
      return () => {
        this.#wake = undefined
      }
    })
  }

  #next(): EnvelopeBody | undefined {
    const first = this.#isOver ? undefined : this.#waiting.shift()
    if (first?.type !== 'text_delta') return first
    const piece = cut(first.delta, MAX_PIECE_BYTES)
    if (piece.length < first.delta.length) this.#waiting.unshift({ type: 'text_delta', delta: first.delta.slice(piece.length) })
    return { type: 'text_delta', delta: piece }
  }
}

/** As much of the beginning as fits, no character in two. */
function cut(text: string, maxBytes: number): string {
  if (Buffer.byteLength(text) <= maxBytes) return text
  const bytes = Buffer.from(text)
  let end = maxBytes
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.subarray(0, end).toString('utf8')
}

function short(value: Json): Json {
  const text = JSON.stringify(value)
  return text.length <= MAX_TOOL_CHARS ? value : `${text.slice(0, MAX_TOOL_CHARS)}...`
}
