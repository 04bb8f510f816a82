/** NIP-13: proof of work in an event id. */
import type { IdentifiedEvent } from '../types.ts'

/** Bits of work that an event commits to and has; an id that is low by luck, without a target, proves nothing. The id must have been checked. */
export function workOf(event: Pick<IdentifiedEvent, 'id' | 'tags'>): number {
  const target = event.tags.find((tag) => tag[0] === 'nonce')?.[2]
  if (target === undefined || !/^\d{1,3}$/.test(target)) return 0
  return Math.min(Number(target), leadingZeroBits(event.id))
}

export function leadingZeroBits(hex: string): number {
  const zeros = /^0*/.exec(hex)?.[0].length ?? 0
  const next = hex[zeros]
  return zeros * 4 + (next === undefined ? 0 : Math.clz32(Number.parseInt(next, 16)) - 28)
}
