/** What of a model's words is its answer: reasoning and calls of tools in every form that models write, and answers that are not whole. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readCompletion } from '../../../src/inference/completion.ts'
import { separateReasoning } from '../../../src/inference/reasoning.ts'

describe('reasoning in the text', () => {
  test.each<[string, string, string]>([
    ['no block', 'POST: a', 'POST: a'],
    ['a block before the answer', '<think>\nPOST: no\n</think>\nPOST: a', 'POST: a'],
    ['another name', '<reasoning>POST: no</reasoning>POST: a', 'POST: a'],
    ['another case, spaces, attributes', '< Thinking depth="2" >POST: no</ THINKING >POST: a', 'POST: a'],
    ['text before it', 'Well.\n<think>POST: no</think>\nPOST: a', 'Well.\n\nPOST: a'],
    ['opened in the prompt', 'POST: no\n</think>\nPOST: a', 'POST: a'],
    ['closed by another name', '<thinking>POST: no</think>POST: a', 'POST: a'],
    ['a closing tag spoken of within', '<think>then </think> and\nPOST: no</think>POST: a', 'POST: a'],
    ['one inside the other', '<think>x <think>POST: no</think> POST: no</think>POST: a', 'POST: a'],
    ['several', '<think>1</think>POST: a\n<think>POST: no</think>POST: b', 'POST: a\nPOST: b'],
    ['Magistral', '[THINK]POST: no[/THINK]POST: a', 'POST: a'],
    ['Kimi', '◁think▷POST: no◁/think▷POST: a', 'POST: a'],
    ['Seed', '<seed:think>POST: no</seed:think>POST: a', 'POST: a'],
    ['gpt-oss', '<|channel|>analysis<|message|>POST: no<|end|><|start|>assistant<|channel|>final<|message|>POST: a<|return|>', 'POST: a'],
    ['an empty tag', '<think/>POST: a', 'POST: a'],
    ['a tag that is spoken of', 'POST: models write `<think>` first', 'POST: models write `<think>` first'],
    ['comparisons', 'if a < think and b > c', 'if a < think and b > c'],
  ])('%s', (_what, text, answer) => {
    expect(separateReasoning(text)).toMatchObject({ answer, isOpen: false })
  })

  test.each([
    '<think>POST: no',
    'POST: said first\n<think>POST: no',
    '<think>a</think>POST: no\n<reasoning>b',
    '<|channel|>analysis<|message|>POST: no',
    '<THINK>\nPOST: no',
  ])('no answer comes after a block that stays open: %j', (text) => {
    expect(separateReasoning(text)).toMatchObject({ answer: '', isOpen: true })
  })

  test('calls of tools written as text are blocks where they are asked for', () => {
    const text = '<tool_call>{"a":"\nPOST: no"}</tool_call>\nPOST: a'
    expect(separateReasoning(text, ['reasoning', 'tools']).answer).toBe('POST: a')
    expect(separateReasoning(text).answer).toBe(text)
  })

  test('whatever stands within a block stays out of the answer, in time that grows with the text', () => {
    const noise = fc.array(fc.constantFrom('<', '>', 'think', '<think>', '</think>', ' ', '/', 'x', '[THINK]', '<|channel|>'), {
      maxLength: 60,
    })
    fc.assert(
      fc.property(noise, (parts) => {
        const { answer, reasoning, isOpen } = separateReasoning(`<think>${parts.join('')}SECRET</think>SAID`)
        expect(answer.endsWith('SAID') && !answer.includes('SECRET') && reasoning.includes('SECRET') && !isOpen).toBe(true)
      }),
    )
    expect(separateReasoning(`<think>${'< '.repeat(200_000)}</think>x`).answer).toBe('x')
    expect(separateReasoning(`<${' '.repeat(400_000)}`).isOpen).toBe(false)
  })
})

const said = (message: object, finish_reason?: string | null, more: object = {}): string =>
  JSON.stringify({ choices: [{ message, finish_reason }], ...more })

describe('a completion', () => {
  test.each<[string, string, object]>([
    ['reasoning_content', said({ content: 'a', reasoning_content: 'POST: no' }, 'stop'), { content: 'a', reasoning: 'POST: no' }],
    ['reasoning', said({ content: 'a', reasoning: 'POST: no' }, 'stop'), { content: 'a', reasoning: 'POST: no' }],
    ['reasoning without an answer', said({ content: null, reasoning: 'POST: no' }, 'stop'), { content: '', reasoning: 'POST: no' }],
    ['parts', said({ content: [{ type: 'text', text: 'a' }, { type: 'output_text', text: 'b' }, 'c'] }, 'stop'), { content: 'abc' }],
    [
      'parts that think',
      said(
        {
          content: [
            { type: 'thinking', thinking: [{ type: 'text', text: 'POST: no' }] },
            { type: 'text', text: 'a' },
          ],
        },
        'stop',
      ),
      { content: 'a', reasoning: 'POST: no' },
    ],
    ['parts with a tag across them', said({ content: ['<think>POST: no</th', 'ink>a'] }, 'stop'), { content: 'a' }],
  ])('%s', (_what, body, expected) => {
    const answer = readCompletion(body, 100)
    expect(answer).toMatchObject(expected)
    expect(answer.lack).toBeUndefined()
  })

  test.each<[string, string, string]>([
    ['length', said({ content: 'POST: no' }, 'length'), 'cut'],
    ['max_tokens', said({ content: 'POST: no' }, 'MAX_TOKENS'), 'cut'],
    ['no reason and as long as it may be', said({ content: 'POST: no' }, null, { usage: { completion_tokens: 100 } }), 'cut'],
    ['an open block', said({ content: '<think>POST: no' }, 'stop'), 'cut'],
    ['content_filter', said({ content: 'POST: no' }, 'content_filter'), 'withheld'],
    ['a refusal', said({ content: null, refusal: 'I will not' }, 'stop'), 'withheld'],
    ['tool_calls', said({ content: 'POST: no', tool_calls: [{ function: { name: 'f' } }] }, 'tool_calls'), 'tools'],
    ['calls that are not named as the reason', said({ content: 'POST: no', tool_calls: [{}] }, 'stop'), 'tools'],
    ['an old call', said({ content: 'POST: no', function_call: { name: 'f' } }, 'stop'), 'tools'],
    [
      'a part that calls',
      said(
        {
          content: [
            { type: 'text', text: 'POST: no' },
            { type: 'tool_use', name: 'f' },
          ],
        },
        'stop',
      ),
      'tools',
    ],
    ['a reason that nobody knows', said({ content: 'POST: no' }, 'abort'), 'other'],
  ])('is not whole: %s', (_what, body, kind) => {
    expect(readCompletion(body, 100).lack?.kind).toBe(kind)
  })

  test('that is streamed although nobody asked is put together, and is cut unless it says that it ends', () => {
    const chunk = (delta: object, finish_reason: string | null = null) =>
      `data: ${JSON.stringify({ choices: [{ delta, finish_reason }] })}\n\n`
    const body = `: hello\n${chunk({ role: 'assistant', reasoning_content: 'PO' })}${chunk({ reasoning_content: 'ST: no' })}${chunk({ content: 'POST' })}${chunk({ content: ': a' })}`
    expect(readCompletion(`${body}${chunk({}, 'stop')}data: [DONE]\n\n`, 100)).toMatchObject({ content: 'POST: a', reasoning: 'POST: no' })
    expect(readCompletion(`${body}${chunk({}, 'stop')}data: [DONE]\n\n`, 100).lack).toBeUndefined()
    expect(readCompletion(body, 100).lack?.kind).toBe('cut')
    expect(readCompletion(`${body}${chunk({}, 'length')}data: [DONE]\n\n`, 100).lack?.kind).toBe('cut')
    expect(() => readCompletion(`${body}data: {"error":{"message":"out of memory"}}\n\n`, 100)).toThrowError(/out of memory/)
  })

  test.each([
    ['{"error":{"message":"no credit"}}', 'no credit'],
    ['{"error":"no credit"}', 'no credit'],
    ['{"choices":[{"error":{"message":"no credit"},"message":{"content":"POST: no"}}]}', 'no credit'],
    ['{"detail":[{"msg":"field required"}]}', 'field required'],
    ['{"message":"no such route"}', 'no such route'],
    ['<html>', 'no chat completion'],
  ])('is none: %s', (body, words) => {
    expect(() => readCompletion(body, 100)).toThrowError(
      expect.objectContaining({ code: 'backend_failed', message: expect.stringContaining(words) }),
    )
  })
})
