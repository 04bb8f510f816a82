/** Tells a model's scratch paper from its answer, pure: reasoning in tags or channels, and calls of tools written as text. */

export interface Separated {
  /** What is meant for others; empty when the answer ends within its reasoning. */
  readonly answer: string
  readonly reasoning: string
  /** Whether the text ends inside a block: the answer itself never came. */
  readonly isOpen: boolean
}

type Family = 'reasoning' | 'tools'

interface Marker {
  readonly family: Family
  /** `end` closes what is open and is noise elsewhere; `empty` is noise everywhere. */
  readonly does: 'open' | 'close' | 'end' | 'empty'
  readonly from: number
  readonly to: number
}

const THINKING = 'think|thinking|thoughts?|reasoning|reflection|analysis|scratch_?pad|(?:inner_?)?monologue|antthinking'
const TOOLS = 'tool_calls?|tool_use|tool_code|tool_response|function_calls?|invoke'

/** Each alternative is one way in which some model marks a block. Groups: slash and name and end of a tag, then the other spellings. */
const MARKERS = new RegExp(
  [
    `<\\s{0,5}(?<slash>/?)\\s{0,5}(?:[a-z]{1,20}:)?(?:(?<think>${THINKING})|(?<tool>${TOOLS}))(?:\\s{1,5}[\\w-]{1,40}\\s{0,5}=[^<>]{0,200}?)?\\s{0,5}(?<selfclosed>/?)\\s{0,5}>`,
    '(?<open>\\[think\\]|\u25c1think\u25b7|<\\|(?:begin_of_thought|start_thinking|thinking)\\|>)',
    '(?<close>\\[/think\\]|\u25c1/think\u25b7|<\\|(?:end_of_thought|end_thinking|/thinking)\\|>)',
    '(?<channel><\\|channel\\|>\\s{0,5}(?:analysis|commentary)[^<]{0,200}(?:<\\|constrain\\|>[^<]{0,50})?<\\|message\\|>)',
    '(?<final>(?:<\\|start\\|>\\s{0,5}assistant\\s{0,5})?<\\|channel\\|>\\s{0,5}final[^<]{0,50}<\\|message\\|>)',
    '(?<end><\\|(?:end|call|return)\\|>)',
    '(?<toolsopen>\\[tool_calls\\]|<\uff5ctool\u2581calls\u2581begin\uff5c>)',
    '(?<toolsclose>\\[/tool_calls\\]|<\uff5ctool\u2581calls\u2581end\uff5c>)',
  ].join('|'),
  'gi',
)

/**
 * A block that was opened lasts until it is closed, whatever stands in it. What is closed and was never opened began before the
 * text did: some servers open the block in the prompt. A tag between backticks is spoken of, not used.
 */
export function separateReasoning(text: string, families: readonly Family[] = ['reasoning']): Separated {
  const kept: string[] = []
  const reasoning: string[] = []
  let inside: Family | undefined
  let from = 0
  for (const marker of markersOf(text)) {
    if (!families.includes(marker.family)) continue
    if (inside !== undefined && (marker.family !== inside || marker.does === 'open' || marker.does === 'empty')) continue
    const before = text.slice(from, marker.from)
    from = marker.to
    if (inside !== undefined) {
      reasoning.push(before)
      inside = undefined
    } else if (marker.does === 'close') reasoning.push(...kept.splice(0), before)
    else {
      kept.push(before)
      if (marker.does === 'open') inside = marker.family
    }
  }
  const rest = text.slice(from)
  if (inside === undefined) return { answer: [...kept, rest].join('').trim(), reasoning: joined(reasoning), isOpen: false }
  return { answer: '', reasoning: joined([...kept, ...reasoning, rest]), isOpen: true }
}

const joined = (parts: readonly string[]): string =>
  parts
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .join('\n')

function* markersOf(text: string): Generator<Marker> {
  for (const match of text.matchAll(MARKERS)) {
    const to = match.index + match[0].length
    if (text[match.index - 1] === '`' && text[to] === '`') continue
    const groups = match.groups ?? {}
    const family = groups['tool'] ?? groups['toolsopen'] ?? groups['toolsclose']
    yield { family: family === undefined ? 'reasoning' : 'tools', does: deedOf(groups), from: match.index, to }
  }
}

function deedOf(groups: Readonly<Record<string, string | undefined>>): Marker['does'] {
  if (groups['end'] !== undefined) return 'end'
  if (groups['selfclosed'] === '/') return 'empty'
  const closing = groups['close'] ?? groups['final'] ?? groups['toolsclose']
  return groups['slash'] === '/' || closing !== undefined ? 'close' : 'open'
}
