/** NIP-40: events that expire. */
import type { EventTemplate } from '../types.ts'
import { tagValue } from './nip01.ts'

/** Unix seconds, or undefined when the event never expires or the tag is no number. */
export function expirationOf(event: Pick<EventTemplate, 'tags'>): number | undefined {
  const value = tagValue(event, 'expiration')
  return value !== undefined && /^\d{1,15}$/.test(value) ? Number(value) : undefined
}

export function isExpired(event: Pick<EventTemplate, 'tags'>, nowS: number): boolean {
  const expiration = expirationOf(event)
  return expiration !== undefined && expiration <= nowS
}

export const expirationTag = (atS: number): string[] => ['expiration', String(Math.floor(atS))]
