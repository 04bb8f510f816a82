/** Finding the key package of somebody who is to be brought into a group. */
import { unixSeconds } from '../base/clock.ts'
import { isPylonError, PylonError } from '../base/errors.ts'
import { relayUrls } from '../nostr/relay/relay-url.ts'
import type { NostrEvent } from '../nostr/types.ts'
import { assertUsable } from './mls/key-package.ts'
import type { SessionsDeps } from './types.ts'
import {
  KEY_PACKAGE_KIND,
  KEY_PACKAGE_RELAYS_KIND,
  keyPackageRelays,
  LEGACY_KEY_PACKAGE_KIND,
  readKeyPackageEvent,
} from './wire/key-package-event.ts'

const ASK_MS = 5000
const RETRY_MS = 1000
/** Of one peer, looked at in one go: each costs two signatures. */
const MAX_LOOKED_AT = 10
const MAX_RELAYS = 10

type KeyPackage = Awaited<ReturnType<typeof readKeyPackageEvent>>['keyPackage']

export interface FoundKeyPackage {
  readonly pubkey: string
  readonly eventId: string
  readonly keyPackage: KeyPackage
  /** Where it can be reached. */
  readonly relays: readonly string[]
}

export interface Wanted {
  readonly pubkey: string
  readonly relays: readonly string[]
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** Waits for one that can be used. @throws session_no_key_package, session_key_package_invalid (of the newest there is), shutting_down */
export async function findKeyPackage(deps: SessionsDeps, wanted: Wanted): Promise<FoundKeyPackage> {
  const { scope } = deps
  const endsAt = scope.clock.now() + wanted.timeoutMs
  for (;;) {
    wanted.signal?.throwIfAborted()
    const found = await look(deps, wanted)
    if ('keyPackage' in found) return found
    if (scope.clock.now() + RETRY_MS > endsAt) throw found
    await scope.sleep(RETRY_MS)
  }
}

async function look(deps: SessionsDeps, { pubkey, relays }: Wanted): Promise<FoundKeyPackage | PylonError> {
  const first = deps.via ?? relayUrls([...relays, ...deps.nostr.relays], MAX_RELAYS)
  const near = await ask(deps, pubkey, first)
  const list = near.find(({ kind }) => kind === KEY_PACKAGE_RELAYS_KIND)
  const named = list === undefined ? [] : keyPackageRelays(list)
  const further = deps.via === undefined ? named.filter((url) => !first.includes(url)) : []
  const events = further.length === 0 || near.some(isKeyPackage) ? near : [...near, ...(await ask(deps, pubkey, further))]
  const inOrder = events.filter(isKeyPackage).sort((a, b) => b.kind - a.kind || b.created_at - a.created_at)
  let fault: PylonError | undefined
  for (const event of inOrder.slice(0, MAX_LOOKED_AT)) {
    try {
      const { keyPackage } = await readKeyPackageEvent(event)
      await assertUsable(keyPackage, pubkey, unixSeconds(deps.scope.clock))
      const said = event.tags.find(([name]) => name === 'relays')?.slice(1) ?? []
      return { pubkey, eventId: event.id, keyPackage, relays: relayUrls([...relays, ...named, ...said], MAX_RELAYS) }
    } catch (error) {
      if (!isPylonError(error, 'session_key_package_invalid')) throw error
      fault ??= error
    }
  }
  const words = 'The peer has published no key package on the relays of this session; see that it runs and reaches one of them.'
  return fault ?? new PylonError('session_no_key_package', words, { details: { peer: pubkey, relays: first } })
}

const isKeyPackage = ({ kind }: NostrEvent): boolean => kind === KEY_PACKAGE_KIND || kind === LEGACY_KEY_PACKAGE_KIND

async function ask({ nostr }: SessionsDeps, pubkey: string, relays: readonly string[]): Promise<NostrEvent[]> {
  const filters = [
    { kinds: [KEY_PACKAGE_KIND, LEGACY_KEY_PACKAGE_KIND], authors: [pubkey], limit: 20 },
    { kinds: [KEY_PACKAGE_RELAYS_KIND], authors: [pubkey], limit: 1 },
  ]
  return (await nostr.query(filters, { relays, timeoutMs: ASK_MS })).events
}
