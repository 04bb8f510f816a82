/**
 * Extractive summaries by TextRank: R. Mihalcea and P. Tarau, "TextRank: Bringing Order into Texts", EMNLP 2004
 * (https://aclanthology.org/W04-3252/). Sentences are the vertices, an edge weighs |words in common| / (log|a| + log|b|),
 * weighted PageRank with d = 0.85 orders them. Deterministic; ties go to the earlier sentence.
 */

const DAMPING = 0.85
const MAX_ITERATIONS = 30
const CONVERGED = 1e-6
/** Sentences ranked against each other at most: bounds one step to a few milliseconds. */
const BLOCK = 64
/** Longer sentences are cut for ranking (never in the output), so that text without full stops costs no more. */
const MAX_WORDS = 100
/** Characters looked at between two pauses. */
const CHUNK_CHARS = 16_384

/** Scripts written without spaces: there the segmenter of ICU finds the words. */
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u
const WORD = /[\p{L}\p{N}]+(?:['’][\p{L}]+)?/gu

/** Made when there is something to cut: Intl reads its data then. */
const cut = (text: string, granularity: 'sentence' | 'word') => new Intl.Segmenter(undefined, { granularity }).segment(text)

interface Sentence {
  readonly index: number
  readonly text: string
  readonly words: readonly string[]
}

export interface SummaryLength {
  readonly unit: 'sentences' | 'words'
  readonly count: number
}

/** The words of a text, lower case. */
export function wordsOf(text: string): string[] {
  if (UNSPACED.test(text)) {
    return [...cut(text, 'word')].filter((segment) => segment.isWordLike).map((segment) => segment.segment.toLowerCase())
  }
  return (text.match(WORD) ?? []).map((word) => word.toLowerCase())
}

/** The sentences of a text in any language, in order, without those that hold no word. */
export function sentencesOf(text: string): string[] {
  const sentences: string[] = []
  for (const chunk of chunksOf(text)) sentences.push(...segment(chunk))
  return sentences
}

/**
 * The most central sentences in the order of the text. With unit words: as many as fit, at least one.
 * @param pause awaited between steps of a few milliseconds, so that long texts never hold the loop.
 */
export async function summarize(text: string, length: SummaryLength, pause: () => Promise<void>): Promise<string> {
  const sentences: Sentence[] = []
  let first = true
  for (const chunk of chunksOf(text)) {
    if (!first) await pause()
    first = false
    for (const sentence of segment(chunk)) {
      sentences.push({ index: sentences.length, text: sentence, words: wordsOf(sentence.slice(0, 4000)).slice(0, MAX_WORDS) })
    }
  }
  const ranked = await rankAll(sentences, pause)
  return pick(ranked, length)
    .sort((a, b) => a.index - b.index)
    .map((sentence) => sentence.text)
    .join(' ')
}

/** Blocks are ranked apart, and their best halves against each other, until one block is left. */
async function rankAll(sentences: readonly Sentence[], pause: () => Promise<void>): Promise<Sentence[]> {
  let pool = sentences
  const dropped: Sentence[] = []
  while (pool.length > BLOCK) {
    const winners: Sentence[] = []
    for (let start = 0; start < pool.length; start += BLOCK) {
      await pause()
      const ranked = rank(pool.slice(start, start + BLOCK))
      const half = Math.ceil(ranked.length / 2)
      winners.push(...ranked.slice(0, half))
      dropped.unshift(...ranked.slice(half))
    }
    pool = winners.sort((a, b) => a.index - b.index)
  }
  return [...rank(pool), ...dropped]
}

function rank(sentences: readonly Sentence[]): Sentence[] {
  const n = sentences.length
  const weights = similarities(sentences)
  const outSums = new Float64Array(n)
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) outSums[i] = at(outSums, i) + at(weights, i * n + j)
  let scores = new Float64Array(n).fill(1)
  for (let iteration = 0; iteration < MAX_ITERATIONS; iteration++) {
    const next = new Float64Array(n)
    let moved = 0
    for (let i = 0; i < n; i++) {
      let sum = 0
      for (let j = 0; j < n; j++) {
        const weight = at(weights, j * n + i)
        if (weight > 0) sum += (weight / at(outSums, j)) * at(scores, j)
      }
      next[i] = 1 - DAMPING + DAMPING * sum
      moved = Math.max(moved, Math.abs(at(next, i) - at(scores, i)))
    }
    scores = next
    if (moved < CONVERGED) break
  }
  return sentences
    .map((sentence, i) => ({ sentence, score: at(scores, i) }))
    .sort((a, b) => b.score - a.score || a.sentence.index - b.sentence.index)
    .map((entry) => entry.sentence)
}

/** Counts common words through an inverted index; symmetric, zero on the diagonal. */
function similarities(sentences: readonly Sentence[]): Float64Array {
  const n = sentences.length
  const weights = new Float64Array(n * n)
  const postings = new Map<string, number[]>()
  sentences.forEach((sentence, i) => {
    for (const word of new Set(sentence.words)) {
      const list = postings.get(word)
      if (list === undefined) postings.set(word, [i])
      else list.push(i)
    }
  })
  for (const list of postings.values()) {
    for (const i of list) for (const j of list) if (i !== j) weights[i * n + j] = at(weights, i * n + j) + 1
  }
  const logs = sentences.map((sentence) => Math.log(Math.max(1, sentence.words.length)))
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const norm = (logs[i] ?? 0) + (logs[j] ?? 0)
      weights[i * n + j] = norm > 0 ? at(weights, i * n + j) / norm : 0
    }
  }
  return weights
}

function at(array: Float64Array, index: number): number {
  return array[index] ?? 0
}

function pick(ranked: readonly Sentence[], length: SummaryLength): Sentence[] {
  if (length.unit === 'sentences') return ranked.slice(0, length.count)
  const picked: Sentence[] = []
  let left = length.count
  for (const sentence of ranked) {
    if (picked.length > 0 && sentence.words.length > left) continue
    picked.push(sentence)
    left -= sentence.words.length
    if (left <= 0) break
  }
  return picked
}

/** The line breaks of wrapped text: not before an empty line, nor before what looks like an item, a heading, a quote or a table row. */
const WRAPPED = /(?<=[^\n])\n(?![ \t]*(?:\n|(?:[-*+•#>|]+|\d{1,9}[.)])[ \t]))/g

function segment(chunk: string): string[] {
  const sentences: string[] = []
  const unwrapped = chunk.replaceAll('\r\n', '\n').replace(WRAPPED, ' ')
  for (const { segment: raw } of cut(unwrapped, 'sentence')) {
    const text = raw.replace(/\s+/g, ' ').trim()
    if (/[\p{L}\p{N}]/u.test(text)) sentences.push(text)
  }
  return sentences
}

const ENDS = ['\n\n', '. ', '.\n', '? ', '。']

/** Pieces of bounded size, cut at the end of a paragraph or sentence where there is one. */
function* chunksOf(text: string): Generator<string> {
  let start = 0
  while (start < text.length) {
    let end = Math.min(text.length, start + CHUNK_CHARS)
    if (end < text.length) {
      const window = text.slice(start, end)
      const cut = Math.max(...ENDS.map((end) => window.lastIndexOf(end) + end.length - 1))
      if (cut > CHUNK_CHARS / 2) end = start + cut + 1
      else if (/[\uD800-\uDBFF]/.test(text.charAt(end - 1))) end -= 1
    }
    yield text.slice(start, end)
    start = end
  }
}
