/**
 * In which order messages of one sender are handed out: in the order of sending. Who numbers what it says (the `seq` tag, as we do)
 * is followed over epochs; of others the generation of their ratchet tells the order within an epoch.
 */
import type { HeldMessage, SenderRow } from '../store/sessions/messages.ts'

export type Place = Pick<HeldMessage, 'said' | 'epoch' | 'generation'>

const MAX_NUMBER = 2 ** 40

/** The number in a `seq` tag, or null. */
export function numberOf(tags: readonly (readonly string[])[]): number | null {
  const text = tags.find(([name]) => name === 'seq')?.[1]
  if (text === undefined || !/^[1-9]\d{0,12}$/.test(text)) return null
  const number = Number(text)
  return number <= MAX_NUMBER ? number : null
}

/**
 * Whether a message is the next of its sender, comes after one that is still to come, or comes late.
 * @param joinedEpoch in which we came: of what was said before we know nothing
 */
export function placeOf(place: Place, cursor: SenderRow | undefined, joinedEpoch: number): 'next' | 'early' | 'late' {
  if (cursor === undefined) {
    const isFirst = place.said === null ? place.generation === 0 : place.said === 1
    return isFirst || (place.epoch === joinedEpoch && place.generation === 0) ? 'next' : 'early'
  }
  if (place.said !== null && cursor.nextSaid !== null) return compare(place.said, cursor.nextSaid)
  if (place.epoch < cursor.epoch) return 'late'
  return compare(place.generation, place.epoch === cursor.epoch ? cursor.nextGeneration : 0)
}

const compare = (is: number, next: number): 'next' | 'early' | 'late' => (is === next ? 'next' : is > next ? 'early' : 'late')

/** The cursor once this was handed out. */
export function cursorAfter(place: Place, cursor: SenderRow | undefined): SenderRow {
  const nextSaid = place.said === null ? null : Math.max(place.said + 1, cursor?.nextSaid ?? 0)
  if (cursor !== undefined && place.epoch < cursor.epoch) return { ...cursor, nextSaid: nextSaid ?? cursor.nextSaid }
  const former = cursor?.epoch === place.epoch ? cursor.nextGeneration : 0
  return { nextSaid, epoch: place.epoch, nextGeneration: Math.max(former, place.generation + 1) }
}

/**
 * What of one sender's messages can be handed out now.
 * @param held in the order of sending
 * @param isOverdue whether what is missing before this one is waited for no longer
 */
export function handOut<M extends Place>(
  held: readonly M[],
  cursor: SenderRow | undefined,
  joinedEpoch: number,
  isOverdue: (message: M) => boolean,
): { out: M[]; passed: number; cursor: SenderRow | undefined } {
  const out: M[] = []
  let passed = 0
  let at = cursor
  for (const message of held) {
    const place = placeOf(message, at, joinedEpoch)
    if (place === 'early' && !isOverdue(message)) break
    if (place === 'early') passed++
    out.push(message)
    at = cursorAfter(message, at)
  }
  return { out, passed, cursor: at }
}
