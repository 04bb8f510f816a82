/** How an answer in text becomes a thought: a JSON object with actions, or the line grammar. Pure. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { separateReasoning } from '../../inference/reasoning.ts'
import type { Thought } from './brain.ts'
import { parseLines, type RawAction } from './grammar.ts'

const MAX_THOUGHT_CHARS = 8000
/** More than this is no answer, whatever a server was asked for. */
const MAX_ANSWER_CHARS = 256_000

const jsonAnswer = z.object({
  thought: z.string().optional(),
  actions: z.array(z.looseObject({ type: z.string() })).max(200),
})

/**
 * Only what the answer says to others counts: not its reasoning, nor calls of tools that it writes as text.
 * @param allowJson whether an object `{thought?, actions: [{type, ...}]}` is taken too. What begins as one and is none is never
 *   read as lines: the words of others that it quotes might look like actions.
 * @throws brain_failed for a broken object, and for what ends within its reasoning
 */
export function readAnswer(text: string, allowJson: boolean): Omit<Thought, 'left'> {
  if (text.length > MAX_ANSWER_CHARS)
    throw new PylonError('brain_failed', `Nothing was done: the answer is over ${MAX_ANSWER_CHARS} characters.`)
  if (allowJson && text.trimStart().startsWith('{')) return readJson(text)
  const { answer, reasoning, isOpen } = separateReasoning(text, ['reasoning', 'tools'])
  if (isOpen) throw new PylonError('brain_failed', 'Nothing was done: the answer ends within its reasoning.')
  if (allowJson && answer.startsWith('{')) {
    const thought = readJson(answer)
    return { ...thought, text: joinThoughts(reasoning, thought.text) }
  }
  const lines = parseLines(answer)
  return { text: joinThoughts(reasoning, lines.thought), actions: lines.actions, problems: lines.problems.slice(0, 20), costMsats: 0n }
}

/** What stays for the owner to read. */
export function joinThoughts(reasoning: string, said: string): string {
  const room = Math.max(0, MAX_THOUGHT_CHARS - said.length - 1)
  return [reasoning.slice(0, room), said.slice(0, MAX_THOUGHT_CHARS)].filter((text) => text !== '').join('\n')
}

function readJson(text: string): Omit<Thought, 'left'> {
  const parsed = jsonAnswer.safeParse(parseJson(text))
  if (!parsed.success) throw new PylonError('brain_failed', `The brain answered with JSON that is broken: ${problemOf(parsed.error)}.`)
  const problems: string[] = []
  const actions = parsed.data.actions.flatMap((raw): RawAction[] => {
    const action = withoutReasoning(raw)
    if (action === undefined) problems.push(`${raw.type.slice(0, 40)}: its words are only reasoning`)
    return action === undefined ? [] : [action]
  })
  return { text: (parsed.data.thought ?? '').slice(0, MAX_THOUGHT_CHARS), actions, problems: problems.slice(0, 20), costMsats: 0n }
}

/** Programs that wrap a model may put all that it wrote into a field. Undefined when nothing of a text is left. */
function withoutReasoning(raw: RawAction): RawAction | undefined {
  const action: Record<string, unknown> & { type: string } = { ...raw }
  for (const [name, value] of Object.entries(raw)) {
    if (typeof value !== 'string' || name === 'type') continue
    const { answer, reasoning, isOpen } = separateReasoning(value)
    if (isOpen || (answer === '' && reasoning !== '')) return undefined
    if (reasoning !== '') action[name] = answer
  }
  return action
}

function problemOf(error: z.ZodError): string {
  const issue = error.issues[0]
  return issue === undefined || issue.path.length === 0 ? 'it is cut off or no valid JSON' : `${issue.path.join('.')} ${issue.message}`
}
