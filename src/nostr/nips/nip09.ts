/** NIP-09: asking relays to delete what one has published. */
import type { EventTemplate } from '../types.ts'

export const DELETION_KIND = 5

/** @param targets tags that name what goes: `e` an event, `a` an address @param kind that they are of */
export const buildDeletion = (targets: readonly (readonly string[])[], kind: number, createdAtS: number, content = ''): EventTemplate => ({
  kind: DELETION_KIND,
  created_at: createdAtS,
  tags: [...targets, ['k', String(kind)]],
  content,
})
