/** What of a tick's occasions goes to the next tick, pure: nothing that was heard is lost because a tick does only so much. */
import type { KeptHeard } from '../store/agents/heard.ts'
import type { PlannedAction } from '../store/agents/ticks.ts'
import type { Action } from './actions/action.ts'
import { zappedNote } from './messages.ts'

/** A tick that deals with nothing of what it heard tries again so often; then it is named and let go. */
const MAX_IDLE_PASSES = 3

export interface Left {
  /** Ids of what the next tick takes up. */
  readonly again: readonly string[]
  /** In words, for the log; empty when nothing is left. */
  readonly words: string
}

/**
 * @param left what the brain has not dealt with
 * @param actions all that it wants, in order; from `cap` on they are refused
 */
export function whatIsLeft(
  heard: readonly KeptHeard[],
  left: readonly string[],
  actions: readonly Pick<PlannedAction, 'type' | 'params' | 'refused'>[],
  cap: number,
): Left {
  const open = new Set([...left, ...unanswered(heard, actions, cap)])
  const rows = heard.filter((row) => open.has(row.id))
  const goesOn = rows.length < heard.length
  const again = rows.filter((row) => goesOn || row.passed < MAX_IDLE_PASSES)
  const lost = rows.length - again.length
  const words = [
    ...(again.length === 0 ? [] : [`[left for the next tick] ${countByType(again)}`]),
    ...(lost === 0 ? [] : [`[left unanswered] ${countByType(rows.filter((row) => !again.includes(row)))}: no tick came to it`]),
  ]
  return { again: again.map((row) => row.id), words: words.join('\n') }
}

/** What only actions beyond the cap would have answered. */
function unanswered(
  heard: readonly KeptHeard[],
  actions: readonly Pick<PlannedAction, 'type' | 'params' | 'refused'>[],
  cap: number,
): string[] {
  const read = actions.map((action) => (action.refused === undefined ? targetOf(action.params as Action) : undefined))
  const within = read.slice(0, cap)
  const beyond = read.slice(cap).filter((target) => target !== undefined)
  const notes = beyond.filter((target) => target.length === 64 && !within.includes(target))
  const open = heard.filter((row) => notes.includes(noteOf(row))).map((row) => row.id)
  for (const sender of new Set(beyond.filter((target) => target.startsWith(TO_KEY)))) {
    const messages = heard.filter((row) => row.type !== 'mention' && `${TO_KEY}${row.sender}` === sender)
    const done = within.filter((target) => target === sender).length
    // One message may answer several; several messages answer one each.
    const wanted = done === 0 ? messages.length : beyond.filter((target) => target === sender).length
    open.push(...messages.slice(done, done + wanted).map((row) => row.id))
  }
  return open
}

const TO_KEY = 'key:'

/** The note that an action answers, or the key it speaks to. */
function targetOf(action: Action): string | undefined {
  switch (action.type) {
    case 'reply':
    case 'react':
      return action.to
    case 'dm':
    case 'request_payment':
      return `${TO_KEY}${action.to}`
    case 'zap':
      return action.to.startsWith('event:') ? action.to.slice(6, 70) : `${TO_KEY}${action.to}`
    default:
      return undefined
  }
}

/** The note that answers to it name: of a zap the one that was zapped. */
const noteOf = (row: KeptHeard): string => (row.type === 'zap' ? (zappedNote(row.event) ?? row.id) : row.id)

function countByType(rows: readonly KeptHeard[]): string {
  const names = { mention: 'mention', dm: 'message', zap: 'zap' } as const
  return (['dm', 'zap', 'mention'] as const)
    .map((type) => ({ name: names[type], n: rows.filter((row) => row.type === type).length }))
    .filter(({ n }) => n > 0)
    .map(({ name, n }) => `${n} ${name}${n === 1 ? '' : 's'}`)
    .join(', ')
}
