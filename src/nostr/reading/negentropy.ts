/** NIP-77: which events a relay has that we do not, found by comparing sets instead of reading them. */
import type { Scope } from '../../base/scope.ts'
import type { Relay } from '../relay/relay.ts'
import type { Filter } from '../types.ts'

type Negentropy = InstanceType<typeof import('nostr-tools')['nip77']['Negentropy']>

/** Silence so long, and the relay is read page by page instead. */
const SILENCE_MS = 10_000
/** And when other requests leave no room for so long. */
const TURN_MS = 60_000
const MAX_ROUNDS = 200
/** Ids that are told to be missing here, at most; more than that is read page by page. */
const MAX_IDS = 50_000
const FRAME_BYTES = 60_000
const MIN_FRAME_BYTES = 4096
/** The frame around the hexadecimal text. */
const ENVELOPE_CHARS = 1000
const HEX = /^(?:[0-9a-f]{2})+$/i

/**
 * Ids that the relay has for the filter and `have` lacks; undefined where it cannot be found out this way: the relay refuses,
 * fails or is silent. @throws shutting_down
 */
export async function missingIds(
  scope: Scope,
  relay: Relay,
  filter: Filter,
  have: ReadonlyMap<string, number>,
): Promise<readonly string[] | undefined> {
  const room = Math.floor(((relay.limits.maxMessageLength ?? Number.POSITIVE_INFINITY) - ENVELOPE_CHARS) / 2)
  if (room < MIN_FRAME_BYTES) return undefined
  // Loaded by who meets such a relay: the package shows it only among all else that it has.
  const { nip77 } = await import('nostr-tools')
  const storage = new nip77.NegentropyStorageVector()
  for (const [id, createdAt] of have) storage.insert(createdAt, id)
  storage.seal()
  const negentropy = new nip77.Negentropy(storage, Math.min(FRAME_BYTES, room))
  const needed = new Set<string>()
  return await scope.hear<readonly string[] | undefined>(TURN_MS + MAX_ROUNDS * SILENCE_MS, (finish) => {
    let id: string | undefined
    let rounds = 0
    let cancelTimer = scope.after('turn', TURN_MS, () => finish(undefined))
    const wait = () => {
      cancelTimer()
      cancelTimer = scope.after('answer', SILENCE_MS, () => finish(undefined))
    }
    const onMessage = (hex: string) => {
      wait()
      const next = answerTo(negentropy, hex, needed)
      if (next === 'broken' || needed.size > MAX_IDS || ++rounds > MAX_ROUNDS) finish(undefined)
      else if (next === undefined) finish([...needed])
      else if (id !== undefined) relay.sendNeg(id, next)
    }
    const unlisten = relay.listen({ onDown: () => finish(undefined) })
    const cancelWait = relay.whenFree('once', () => {
      const fresh = relay.freshSubId()
      id = fresh
      wait()
      const opened = relay.openNeg(fresh, filter, negentropy.initiate(), {
        onEvent: () => {},
        onEose: () => finish(undefined),
        onClosed: () => finish(undefined),
        onNotice: () => finish(undefined),
        onNegMessage: onMessage,
      })
      if (!opened) finish(undefined)
    })
    return () => {
      cancelTimer()
      cancelWait()
      unlisten()
      if (id !== undefined) relay.closeReq(id, 'NEG-CLOSE')
    }
  })
}

/** What to say next; undefined when all is known. */
function answerTo(negentropy: Negentropy, hex: string, needed: Set<string>): string | undefined | 'broken' {
  if (!HEX.test(hex)) return 'broken'
  try {
    return negentropy.reconcile(hex, undefined, (id) => needed.add(id)) ?? undefined
  } catch {
    // The relay's message makes no sense to the library.
    return 'broken'
  }
}
