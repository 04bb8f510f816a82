/** The built-in backend of kind 5001: an extractive summary, without any model. */
import { PylonError } from '../../base/errors.ts'
import type { Backend, JobParams } from './backend.ts'
import { type SummaryLength, summarize, wordsOf } from './textrank.ts'

const DEFAULT_LENGTH: SummaryLength = { unit: 'sentences', count: 3 }
const MAX_SENTENCES = 1000
const MAX_WORDS = 100_000
/** A paragraph is taken for so many sentences. */
const SENTENCES_PER_PARAGRAPH = 3

/**
 * Param `length`: `3`, `3 sentences`, `100 words`, `2 paragraphs` (one value or two).
 * @throws param_invalid
 */
export function parseLength(params: JobParams): SummaryLength {
  const raw = params['length']?.join(' ').trim().toLowerCase()
  if (raw === undefined || raw === '') return DEFAULT_LENGTH
  const match = /^(\d{1,6})\s*(sentences?|words?|paragraphs?)?$/.exec(raw)
  const count = Number(match?.[1])
  const unit = match?.[2] ?? 'sentences'
  const limit = unit.startsWith('word') ? MAX_WORDS : MAX_SENTENCES
  if (match === null || count < 1 || count > limit) {
    throw new PylonError('param_invalid', `The param length must be like "3 sentences" or "100 words", from 1 to ${limit}.`)
  }
  if (unit.startsWith('word')) return { unit: 'words', count }
  return { unit: 'sentences', count: unit.startsWith('paragraph') ? count * SENTENCES_PER_PARAGRAPH : count }
}

function checkOutput(output: string | undefined): void {
  if (output !== undefined && output !== 'text/plain' && output !== 'text/markdown') {
    throw new PylonError('param_invalid', 'The output of this kind is text/plain; leave the output tag out or ask for that.')
  }
}

function checkInput(input: string): void {
  if (wordsOf(input.slice(0, 10_000)).length < 2) {
    throw new PylonError('input_invalid', 'There is nothing to summarise: send a text of at least two words.')
  }
}

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

export function createSummaryBackend(): Backend {
  return {
    name: 'summary',
    inline: true,
    kinds: () => [5001],
    check(work) {
      parseLength(work.params)
      checkOutput(work.output)
      if (work.input !== undefined) checkInput(work.input)
    },
    async run(work, signal) {
      const length = parseLength(work.params)
      checkInput(work.input)
      return summarize(work.input, length, async () => {
        await nextTurn()
        signal.throwIfAborted()
      })
    },
    health: () => ({ state: 'ok', models: [] }),
    probe: () => Promise.resolve(),
  }
}
