/** The extractive summary: what it picks, in many scripts, and what it costs. */
import { expect, test } from 'vitest'
import { createSummaryBackend, parseLength } from '../../../src/provider/backends/summary.ts'
import { sentencesOf, summarize, wordsOf } from '../../../src/provider/backends/textrank.ts'
import { htmlToText } from '../../../src/provider/jobs/html.ts'

const nothing = () => Promise.resolve()
const TEXT =
  'Cats are small animals. Cats sleep most of the day and small cats sleep even more. The weather was fine. ' +
  'Small animals like cats sleep because hunting costs small animals much. A train left at noon.'

test('keeps the central sentences in the order of the text, and is deterministic', async () => {
  const summary = await summarize(TEXT, { unit: 'sentences', count: 2 }, nothing)
  expect(summary).toBe(
    'Cats sleep most of the day and small cats sleep even more. Small animals like cats sleep because hunting costs small animals much.',
  )
  expect(await summarize(TEXT, { unit: 'sentences', count: 2 }, nothing)).toBe(summary)
})

test('a length in words is kept to, but at least one sentence is given', async () => {
  const words = async (count: number) => wordsOf(await summarize(TEXT, { unit: 'words', count }, nothing)).length
  expect(await words(1)).toBeGreaterThan(0)
  expect(await words(20)).toBeLessThanOrEqual(20)
  expect(await words(10_000)).toBe(wordsOf(TEXT).length)
})

test.each([
  ['Chinese', '今天天气很好。我们去公园散步。公园里有很多花。', 3],
  ['Japanese', '今日は天気がいい。公園へ行きます。', 2],
  ['Hindi', 'यह पहला वाक्य है। यह दूसरा वाक्य है।', 2],
  ['Russian', 'Это первое предложение. Это второе.', 2],
  ['Arabic', 'هل هذا سؤال؟ هذه جملة ثانية.', 2],
])('finds the sentences of %s', async (_language, text, count) => {
  expect(sentencesOf(text)).toHaveLength(count)
  expect(wordsOf(text).length).toBeGreaterThan(count)
})

test.each([
  ['wrapped text', 'The relay\nkeeps events. The mint\r\nkeeps sats.', ['The relay keeps events.', 'The mint keeps sats.']],
  [
    'paragraphs',
    'A heading without a stop\n\nThe relay keeps events.\n \nNo more',
    ['A heading without a stop', 'The relay keeps events.', 'No more'],
  ],
  [
    'items',
    'We sell\n- words in rows\n* and more\n2. of them\n# Heading',
    ['We sell', '- words in rows', '* and more', '2. of them', '# Heading'],
  ],
])('a line break is a space inside a paragraph: %s', (_what, text, sentences) => {
  expect(sentencesOf(text)).toEqual(sentences)
})

test('HTML that is wrapped keeps its paragraphs whole', () => {
  expect(htmlToText('<p>One\nsentence.</p>\n<p>Two</p>')).toBe('One sentence.\n\nTwo')
})

test.each([
  [{}, { unit: 'sentences', count: 3 }],
  [{ length: ['5'] }, { unit: 'sentences', count: 5 }],
  [{ length: ['100 words'] }, { unit: 'words', count: 100 }],
  [{ length: ['2', 'paragraphs'] }, { unit: 'sentences', count: 6 }],
  [{ length: ['1 Sentence'] }, { unit: 'sentences', count: 1 }],
])('length %j', (params, expected) => {
  expect(parseLength(params)).toEqual(expected)
})

test.each(['0', '-1', '1.5', 'ten', '1001', '5 pages', '9'.repeat(400)])('length %j is refused', (length) => {
  expect(() => parseLength({ length: [length] })).toThrowError(expect.objectContaining({ code: 'param_invalid' }))
})

test.each(['', ' ', 'word', '!!! ... ???', '\u0000'])('input %j is refused', (input) => {
  const check = () => createSummaryBackend().check({ kind: 5001, params: {}, output: undefined, input })
  expect(check).toThrowError(expect.objectContaining({ code: 'input_invalid' }))
})

test('long and hostile texts are worked through in steps', async () => {
  const texts = [
    'The same words come again and again here. '.repeat(5000),
    'x'.repeat(200_000),
    'a '.repeat(100_000),
    `${'('.repeat(50_000)} word. Another.`,
    '\uD83D'.repeat(40_000),
    '\n \n\t'.repeat(40_000),
    'a\n'.repeat(60_000),
  ]
  for (const text of texts) {
    let pauses = 0
    const summary = await summarize(text, { unit: 'sentences', count: 3 }, async () => void pauses++)
    expect(summary.length).toBeLessThanOrEqual(text.length)
    expect(pauses).toBeGreaterThan(0)
  }
})

test('HTML becomes its text', () => {
  const html =
    '<html><head><title>T</title></head><body><script>if (a < b) alert("x")</script><p>One &amp; two</p><!-- no --><p>Three&nbsp;&#8364; &#x41;</p></body>'
  expect(htmlToText(html)).toBe('One & two\n\nThree € A')
})

test.each(['<'.repeat(100_000), '<script'.repeat(30_000), '<!--'.repeat(50_000), '&#'.repeat(50_000), '<p>'.repeat(60_000)])(
  'hostile HTML %# costs no more than its length',
  (html) => {
    expect(htmlToText(html).length).toBeLessThanOrEqual(html.length)
  },
)
