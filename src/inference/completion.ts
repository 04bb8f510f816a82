/** Reads what an OpenAI-compatible server answered to a chat, whole or as a stream: the answer, the reasoning, and whether it is whole. Pure. */

import { z } from 'zod'
import { PylonError } from '../base/errors.ts'
import { given } from '../base/given.ts'
import { asRecord, type Json, parseJson } from '../base/json.ts'
import { separateReasoning } from './reasoning.ts'

/** Why an answer is not whole: cut at a length, withheld, a call of tools, or something else that the server names. */
export type Lack = 'cut' | 'withheld' | 'tools' | 'other'

export interface ChatAnswer {
  /** What is meant for others, without any reasoning; empty when it never came. */
  readonly content: string
  readonly reasoning: string
  /** Absent when the answer is whole. */
  readonly lack?: { readonly kind: Lack; readonly words: string }
}

const choice = z.looseObject({
  index: z.number().nullish(),
  message: z.looseObject({}).nullish(),
  delta: z.looseObject({}).nullish(),
  finish_reason: z.string().nullish(),
})
const count = z.int().nonnegative().optional().catch(undefined)
const completion = z.looseObject({
  choices: z.array(choice),
  usage: z.looseObject({ completion_tokens: count }).nullish().catch(undefined),
})
type Completion = z.infer<typeof completion>

const REASONING_FIELDS = ['reasoning_content', 'reasoning', 'thinking', 'reasoning_text', 'thoughts']
const WHOLE = new Set(['stop', 'stop_sequence', 'eos', 'eos_token', 'end_turn', 'end', 'complete', 'completed', 'done', 'finished'])
const LACKS: Readonly<Record<string, Lack>> = {
  ...Object.fromEntries(['length', 'max_tokens', 'max_output_tokens', 'model_length', 'incomplete'].map((word) => [word, 'cut'])),
  ...Object.fromEntries(['content_filter', 'safety', 'recitation', 'refusal', 'sensitive'].map((word) => [word, 'withheld'])),
  ...Object.fromEntries(['tool_calls', 'tool_call', 'tool_use', 'function_call'].map((word) => [word, 'tools'])),
}
const MAX_WORDS = 300
/** No marker of reasoning is longer. */
const MAX_MARKER = 300

/** @throws backend_failed, with the server's words where it has some */
export function readCompletion(body: string, maxTokens: number | undefined): ChatAnswer {
  const value = isStream(body) ? joinStream(body) : parseJson(body)
  const parsed = completion.safeParse(value)
  const first = parsed.data?.choices.find((one) => (one.index ?? 0) === 0)
  const said =
    wordsOf(asRecord(value as Json)['error']) || wordsOf(first?.['error'] as Json) || (first === undefined ? errorWords(value) : '')
  if (said !== undefined && said !== '') {
    throw new PylonError('backend_failed', `The model server answered with an error: ${said.slice(0, MAX_WORDS)}`)
  }
  const message = first?.message
  if (!parsed.success || first === undefined || message === undefined || message === null) {
    throw new PylonError('backend_failed', 'The model server answered with something that is no chat completion.')
  }
  const parts = partsOf(message['content'] as Json)
  const { answer, reasoning, isOpen } = separateReasoning(parts.text)
  const fields = REASONING_FIELDS.map((name) => partsOf(message[name] as Json)).map((one) => one.text || one.reasoning)
  const usage = parsed.data.usage
  const refusal = typeof message['refusal'] === 'string' ? message['refusal'] : parts.refusal
  const lack = lackOf(first.finish_reason ?? undefined, {
    hasTools: isCall(message['tool_calls']) || isCall(message['function_call']) || parts.hasTools,
    isOpen,
    isFull: maxTokens !== undefined && (usage?.completion_tokens ?? 0) >= maxTokens,
    refusal,
  })
  return {
    content: answer,
    reasoning: [...fields, parts.reasoning, reasoning].filter((text) => text !== '').join('\n'),
    ...given({ lack }),
  }
}

/** A call of tools never lets the text beside it count: it is said before the answer. */
function lackOf(
  reason: string | undefined,
  facts: { readonly hasTools: boolean; readonly isOpen: boolean; readonly isFull: boolean; readonly refusal: string },
): ChatAnswer['lack'] {
  const word = reason?.toLowerCase() ?? ''
  const named = LACKS[word]
  if (named === 'cut' || (facts.isFull && !WHOLE.has(word))) {
    const where = facts.isOpen ? 'within its reasoning' : 'at its greatest length'
    return { kind: 'cut', words: `the answer was cut off ${where} (finish_reason ${word || 'missing'})` }
  }
  if (named === 'withheld' || facts.refusal !== '') {
    const words = facts.refusal === '' ? '' : `: ${facts.refusal.slice(0, MAX_WORDS)}`
    return { kind: 'withheld', words: `the model or its server withholds the answer (finish_reason ${word || 'missing'})${words}` }
  }
  if (named === 'tools' || facts.hasTools) return { kind: 'tools', words: 'the model calls tools, and it was given none' }
  if (facts.isOpen) return { kind: 'cut', words: 'the answer ends within its reasoning' }
  if (word !== '' && !WHOLE.has(word))
    return { kind: 'other', words: `the answer did not end by itself (finish_reason ${word.slice(0, 40)})` }
  return undefined
}

const isCall = (value: unknown): boolean => (Array.isArray(value) ? value.length > 0 : typeof value === 'object' && value !== null)

interface Parts {
  readonly text: string
  readonly reasoning: string
  readonly refusal: string
  readonly hasTools: boolean
}

/** Content is a text, or parts, each a text or an object with a type. */
function partsOf(content: Json | undefined): Parts {
  const found = { text: '', reasoning: '', refusal: '', hasTools: false }
  for (const part of Array.isArray(content) ? content : [content ?? null]) {
    if (typeof part === 'string') {
      found.text += part
      continue
    }
    const fields = asRecord(part)
    const type = typeof fields['type'] === 'string' ? fields['type'] : 'text'
    const words = textOf(fields['text'] ?? fields['thinking'] ?? fields['reasoning'] ?? fields['summary'] ?? fields['content'])
    if (/think|reason|thought/.test(type) || fields['thought'] === true) found.reasoning += words
    else if (type === 'refusal') found.refusal += textOf(fields['refusal']) || words
    else if (/tool|function/.test(type)) found.hasTools = true
    else if (type === 'text' || type === 'output_text') found.text += words
  }
  return found
}

function textOf(value: Json | undefined, depth = 0): string {
  if (typeof value === 'string') return value
  if (typeof value !== 'object' || value === null || depth > 3) return ''
  if (Array.isArray(value)) return value.map((part) => textOf(part, depth + 1)).join('')
  return textOf(value['text'] ?? value['value'], depth + 1)
}

/** The words of an error as servers write it, or undefined where there is none. */
export function errorWords(value: unknown): string | undefined {
  const body = asRecord(value as Json)
  for (const name of ['error', 'detail', 'errors', 'message']) {
    const words = wordsOf(body[name])
    if (words !== '') return words.slice(0, MAX_WORDS)
  }
  return undefined
}

function wordsOf(value: Json | undefined, depth = 0): string {
  if (typeof value === 'string') return value.trim()
  if (typeof value !== 'object' || value === null || depth > 3) return ''
  if (Array.isArray(value)) {
    const words = value.slice(0, 5).map((one) => wordsOf(one, depth + 1))
    return words.filter((word) => word !== '').join('; ')
  }
  const said = ['message', 'msg', 'detail', 'type', 'code'].map((name) => wordsOf(value[name], depth + 1))
  return said.find((word) => word !== '') ?? ''
}

const isStream = (body: string): boolean => /^\s*(?:(?:data|event|id|retry):|:)/.test(body)

/** Servers that stream although they were asked not to: the pieces as one completion. One that stops without saying that it ends is cut. */
function joinStream(body: string): unknown {
  const message: Record<string, unknown> = { content: [], tool_calls: [] }
  let all: Completion | undefined
  let reason: string | undefined
  let isDone = false
  for (const line of body.split(/\r\n|\r|\n/)) {
    const data = /^data:\s?(.*)$/.exec(line)?.[1]?.trim()
    if (data === undefined || data === '') continue
    if (data === '[DONE]') {
      isDone = true
      break
    }
    const value = parseJson(data)
    if (wordsOf(asRecord(value as Json)['error']) !== '') return value
    const chunk = completion.safeParse(value).data
    const piece = chunk?.choices.find((one) => (one.index ?? 0) === 0)
    if (chunk !== undefined) all = { ...all, ...chunk, usage: chunk.usage ?? all?.usage }
    reason = piece?.finish_reason ?? reason
    addPiece(message, piece?.delta ?? piece?.message ?? {})
  }
  const ended = reason ?? (isDone ? undefined : 'incomplete')
  return all === undefined ? undefined : { ...all, choices: [{ message, finish_reason: ended }] }
}

/** The answer's own words in a stream, as they come; what is marked as reasoning by tags is held back until its end. */
export class DeltaReader {
  readonly #onDelta: (text: string) => void
  #line = ''
  #held = ''
  #hasBegun = false

  constructor(onDelta: (text: string) => void) {
    this.#onDelta = onDelta
  }

  add(text: string): void {
    const lines = (this.#line + text).split(/\r\n|\r|\n/)
    this.#line = lines.pop() ?? ''
    for (const line of lines) {
      const chunk = completion.safeParse(parseJson(/^data:\s?(.*)$/.exec(line)?.[1] ?? '')).data
      const piece = chunk?.choices.find((one) => (one.index ?? 0) === 0)
      const words = partsOf(piece?.delta?.['content'] as Json).text
      if (words !== '') this.#tell(words)
    }
  }

  /** Something in brackets may be the beginning of a block of reasoning: told once it is known to be none, or is over. */
  #tell(words: string): void {
    if (this.#hasBegun) {
      this.#onDelta(words)
      return
    }
    this.#held += words
    if (/^\s*[<[\u25c1]/.test(this.#held)) {
      const { answer, reasoning, isOpen } = separateReasoning(this.#held)
      if (isOpen || (reasoning === '' && this.#held.length < MAX_MARKER)) return
      this.#held = answer
    }
    if (this.#held.trim() === '') return
    this.#onDelta(this.#held)
    this.#hasBegun = true
  }
}

function addPiece(message: Record<string, unknown>, delta: Record<string, unknown>): void {
  const { content, tool_calls: calls } = delta
  if (content !== null && content !== undefined) (message['content'] as unknown[]).push(...(Array.isArray(content) ? content : [content]))
  if (Array.isArray(calls)) (message['tool_calls'] as unknown[]).push(...calls)
  if (isCall(delta['function_call'])) message['function_call'] = delta['function_call']
  for (const name of [...REASONING_FIELDS, 'refusal']) {
    const piece = partsOf(delta[name] as Json).text
    if (piece !== '') message[name] = `${String(message[name] ?? '')}${piece}`
  }
}
