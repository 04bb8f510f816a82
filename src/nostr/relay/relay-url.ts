/** Relay URLs in one normal form, so that one relay is one connection. */
import { PylonError } from '../../base/errors.ts'

const MAX_CHARS = 512

/** Lower-case host, no credentials, no fragment, no trailing slash on an empty path; undefined for what is no relay URL. */
export function tryRelayUrl(text: string): string | undefined {
  if (text.length > MAX_CHARS || !URL.canParse(text)) return undefined
  const url = new URL(text)
  if ((url.protocol !== 'ws:' && url.protocol !== 'wss:') || url.hostname === '') return undefined
  if (url.username !== '' || url.password !== '' || url.hash !== '') return undefined
  const path = url.pathname === '/' ? '' : url.pathname.replace(/\/+$/, '')
  return `${url.protocol}//${url.host}${path}${url.search}`
}

/** @throws relay_invalid */
export function relayUrl(text: string): string {
  const url = tryRelayUrl(text)
  if (url === undefined)
    throw new PylonError('relay_invalid', `${JSON.stringify(text.slice(0, 100))} is not a relay URL (ws:// or wss://).`)
  return url
}

/** The relay URLs of a list, normal and once each, up to `limit`; what is none is left out. */
export function relayUrls(list: readonly (string | undefined)[], limit = 20): string[] {
  const urls = new Set<string>()
  for (const text of list) {
    const url = text === undefined ? undefined : tryRelayUrl(text)
    if (url !== undefined && urls.size < limit) urls.add(url)
  }
  return [...urls]
}
