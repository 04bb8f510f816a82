/** NIP-42: proving a key to a relay. */
import type { EventTemplate } from '../types.ts'

export const AUTH_KIND = 22_242

export function authTemplate(relay: string, challenge: string, createdAtS: number): EventTemplate {
  return {
    kind: AUTH_KIND,
    created_at: createdAtS,
    tags: [
      ['relay', relay],
      ['challenge', challenge],
    ],
    content: '',
  }
}
