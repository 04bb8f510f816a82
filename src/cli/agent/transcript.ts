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

  constructor(sink: Sink) {
    this.#sink = sink
  }

  show(message: Message): void {
    for (const { kind, text } of message.shown) {
      const words = plain(text)
      if (kind === 'delta') {
        this.#sink.write(words)
        this.#isOpen = !words.endsWith('\n')
        continue
      }
      this.endLine()
      if (kind === 'text') this.#sink.write(`${message.own ? '> ' : ''}${words.trimEnd()}\n`)
      else if (kind === 'tool') this.#sink.write(`  [tool] ${words}\n`)
      else if (kind === 'error') this.#sink.write(`! ${words}\n`)
      else this.#sink.write(`  (${words})\n`)
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
