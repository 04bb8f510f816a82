/** How an answer in text becomes a thought: a JSON object with actions, or the line grammar. Pure. */
import { z } from 'zod'
import { parseJson } from '../../base/json.ts'
import type { Thought } from './brain.ts'
import { parseLines, type RawAction } from './grammar.ts'

const MAX_THOUGHT_CHARS = 8000

const jsonAnswer = z.object({
  thought: z.string().optional(),
  actions: z.array(z.looseObject({ type: z.string() })).max(200),
})

/** @param allowJson whether an object `{thought?, actions: [{type, ...}]}` is taken too. */
export function readAnswer(answer: string, allowJson: boolean): Thought {
  const parsed = allowJson && answer.trimStart().startsWith('{') ? jsonAnswer.safeParse(parseJson(answer)) : undefined
  if (parsed?.success === true) {
    const actions: RawAction[] = parsed.data.actions
    return { text: (parsed.data.thought ?? '').slice(0, MAX_THOUGHT_CHARS), actions, problems: [], costMsats: 0n }
  }
  const lines = parseLines(answer)
  return { text: lines.thought.slice(0, MAX_THOUGHT_CHARS), actions: lines.actions, problems: lines.problems.slice(0, 20), costMsats: 0n }
}
