/** How a conversation looks: streamed words, tools and errors, each on lines of its own. */
import type { Output } from '../../control/client.ts'
import type { managedRoutes } from '../../control/contract/managed.ts'
import { plain } from '../terminal/output.ts'

export type Message = Output<typeof managedRoutes.listen>['messages'][number]

export interface Sink {
  write(text: string): void
}

export class Transcript {
  readonly #sink: Sink
  /** Whether the cursor stands behind words that go on. */
  #isOpen = false
  #isEmpty = true

  constructor(sink: Sink) {
    this.#sink = sink
  }

  /** Whether nothing was shown yet that says anything. */
  get isEmpty(): boolean {
    return this.#isEmpty
  }

  show(message: Message): void {
    for (const { kind, text } of message.shown) {
      const words = plain(text)
      if (words.trim() !== '') this.#isEmpty = false
      if (kind === 'delta') {
        this.#sink.write(words)
        this.#isOpen = !words.endsWith('\n')
        continue
      }
      this.endLine()
      if (kind === 'text') this.#sink.write(`${message.own ? '> ' : ''}${words.trimEnd()}\n`)
      else if (kind === 'tool') this.#sink.write(`  [tool] ${words}\n`)
      else if (kind === 'error') this.#sink.write(`! ${words}\n`)
      else this.#sink.write(`  (${message.is_end ? 'said nothing: ' : ''}${words})\n`)
    }
    if (message.is_end) this.endLine()
  }

  endLine(): void {
    if (this.#isOpen) this.#sink.write('\n')
    this.#isOpen = false
  }
}

/** What a typed or pasted piece is: more lines where it ends in a backslash, or where they came at once. Pure. */
export function joinLines(lines: readonly string[]): { readonly text: string; readonly isOpen: boolean } {
  const last = lines.at(-1) ?? ''
  const isOpen = /(?:^|[^\\])(?:\\\\)*\\$/.test(last)
  const text = lines.map((line, i) => (i < lines.length - 1 || isOpen ? line.replace(/\\$/, '') : line)).join('\n')
  return { text, isOpen }
}

type Order =
  | { readonly kind: 'prompt' | 'follow_up' | 'steer' | 'abort'; readonly text: string }
  | { readonly kind: 'quit' }
  /** For the person alone; empty where there is nothing to say. */
  | { readonly kind: 'note'; readonly text: string }

/** What a piece asks for. @param isRunning the agent may be in a turn @param isWaitedFor in one that was begun here. Pure. */
export function orderIn(piece: string, { isRunning, isWaitedFor }: { isRunning: boolean; isWaitedFor: boolean }): Order {
  const order = piece.trim()
  const steer = /^\/steer(?:\s+(.*))?$/s.exec(order)
  if (order === '') return { kind: 'note', text: '' }
  if (order === '/quit') return { kind: 'quit' }
  if (order === '/abort') return isRunning ? { kind: 'abort', text: '' } : { kind: 'note', text: 'no turn is running: nothing to abort' }
  if (steer === null) return { kind: isWaitedFor ? 'follow_up' : 'prompt', text: piece }
  const text = (steer[1] ?? '').trim()
  if (text === '') return { kind: 'note', text: 'say where to: /steer TEXT' }
  return isRunning ? { kind: 'steer', text } : { kind: 'note', text: 'no turn is running: nothing to steer; say it without /steer' }
}
