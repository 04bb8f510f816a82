/** What a relay may say (NIP-01, NIP-42, NIP-67, NIP-77), read from text; anything else is no frame. */
import { parseJson } from '../../base/json.ts'

export type RelayFrame =
  | { readonly type: 'EVENT'; readonly sub: string; readonly event: unknown }
  | { readonly type: 'EOSE'; readonly sub: string; readonly hint: string | undefined }
  | { readonly type: 'CLOSED'; readonly sub: string; readonly message: string }
  | { readonly type: 'OK'; readonly id: string; readonly ok: boolean; readonly message: string }
  | { readonly type: 'AUTH'; readonly challenge: string }
  | { readonly type: 'NOTICE'; readonly message: string }
  | { readonly type: 'NEG-MSG'; readonly sub: string; readonly hex: string }
  | { readonly type: 'NEG-ERR'; readonly sub: string; readonly message: string }

const MAX_MESSAGE_CHARS = 1000

const text = (value: unknown): string => (typeof value === 'string' ? value.slice(0, MAX_MESSAGE_CHARS) : '')

export function parseFrame(data: string): RelayFrame | undefined {
  const frame = parseJson(data)
  if (!Array.isArray(frame)) return undefined
  const [type, first, second, third] = frame as unknown[]
  if (typeof first !== 'string') return undefined
  switch (type) {
    case 'EVENT':
      return { type, sub: first, event: second }
    case 'EOSE':
      return { type, sub: first, hint: Array.isArray(second) && typeof second[0] === 'string' ? second[0] : undefined }
    case 'CLOSED':
      return { type, sub: first, message: text(second) }
    case 'OK':
      return typeof second === 'boolean' ? { type, id: first, ok: second, message: text(third) } : undefined
    case 'AUTH':
      return first.length <= MAX_MESSAGE_CHARS ? { type, challenge: first } : undefined
    case 'NOTICE':
      return { type, message: text(first) }
    case 'NEG-MSG':
      return typeof second === 'string' ? { type, sub: first, hex: second } : undefined
    case 'NEG-ERR':
      return { type, sub: first, message: text(second) }
    default:
      return undefined
  }
}

/** The machine-readable beginning of an OK or CLOSED message, e.g. `auth-required`; empty when there is none. */
export function prefixOf(message: string): string {
  return /^([a-z-]+):/.exec(message)?.[1] ?? ''
}
