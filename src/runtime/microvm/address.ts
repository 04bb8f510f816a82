/** Where a vm-spawner may be: on a private network, whatever a request says. */
import { isIP } from 'node:net'
import { isPublicAddress } from '../../base/addresses.ts'
import { PylonError } from '../../base/errors.ts'

/**
 * Whether a host is one that a spawner may be at: loopback, RFC 1918, link-local, CGNAT, ULA, or a name that only a
 * private network resolves.
 */
export function isPrivateSpawnerHost(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, '').toLowerCase()
  if (isIP(name) !== 0) return !isPublicAddress(name) && !isNowhere(name)
  return name === 'localhost' || ['.internal', '.tailnet', '.tailnet.ts.net'].some((suffix) => name.endsWith(suffix))
}

/** Addresses that are neither public nor anybody's network: unspecified, multicast, reserved. */
function isNowhere(address: string): boolean {
  if (address.includes(':')) return !/^(::1$|f[cd]|fe[89ab]|::ffff:)/.test(address)
  const [first = 0, second = 0] = address.split('.').map(Number)
  const isPrivate =
    first === 10 ||
    first === 127 ||
    (first === 172 && second >= 16 && second < 32) ||
    (first === 192 && second === 168) ||
    (first === 169 && second === 254) ||
    (first === 100 && second >= 64 && second < 128)
  return !isPrivate
}

/** The spawner's URL without trailing slashes. @throws address_refused for one that is not on a private network */
export function privateSpawnerUrl(url: string): string {
  const trimmed = url.trim().replace(/\/+$/, '')
  let parsed: URL
  try {
    parsed = new URL(trimmed)
  } catch {
    throw new PylonError('address_refused', `${JSON.stringify(url).slice(0, 200)} is no URL of a vm-spawner: use http://HOST:PORT.`)
  }
  const isHttp = parsed.protocol === 'http:' || parsed.protocol === 'https:'
  if (!isHttp || parsed.username !== '' || parsed.password !== '' || !isPrivateSpawnerHost(parsed.hostname)) {
    throw new PylonError(
      'address_refused',
      `${trimmed} is refused as a vm-spawner: only private addresses (loopback, RFC 1918, link-local, 100.64/10, ULA, .internal, .tailnet) without credentials are used; list the spawner in runtimes.microvm.spawner_urls by such an address.`,
      { details: { url: trimmed } },
    )
  }
  return trimmed
}
