/** How an answer in text becomes a thought: a JSON object with actions, or the line grammar. Pure. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import type { Thought } from './brain.ts'
import { parseLines, type RawAction } from './grammar.ts'

const MAX_THOUGHT_CHARS = 8000
/** What a server sends beyond this, whatever it was asked for, is not read. */
const MAX_ANSWER_CHARS = 256_000

const jsonAnswer = z.object({
  thought: z.string().optional(),
  actions: z.array(z.looseObject({ type: z.string() })).max(200),
})

/**
 * @param allowJson whether an object `{thought?, actions: [{type, ...}]}` is taken too. What begins as one and is none is never
 *   read as lines: the words of others that it quotes might look like actions.
 * @throws brain_failed for a broken object
 */
export function readAnswer(answer: string, allowJson: boolean): Thought {
  if (allowJson && answer.trimStart().startsWith('{')) {
    const parsed = jsonAnswer.safeParse(parseJson(answer))
    if (!parsed.success) throw new PylonError('brain_failed', `The brain answered with JSON that is broken: ${problemOf(parsed.error)}.`)
    const actions: RawAction[] = parsed.data.actions
    return { text: (parsed.data.thought ?? '').slice(0, MAX_THOUGHT_CHARS), actions, problems: [], costMsats: 0n }
  }
  const lines = parseLines(answer.slice(0, MAX_ANSWER_CHARS))
  return { text: lines.thought.slice(0, MAX_THOUGHT_CHARS), actions: lines.actions, problems: lines.problems.slice(0, 20), costMsats: 0n }
}

function problemOf(error: z.ZodError): string {
  const issue = error.issues[0]
  return issue === undefined || issue.path.length === 0 ? 'it is cut off or no valid JSON' : `${issue.path.join('.')} ${issue.message}`
}
