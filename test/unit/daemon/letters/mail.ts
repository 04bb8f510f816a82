/** Letters of a node over the world of hosts: a relay in memory, a clock that is turned by hand, and people who write by NIP-17. */
import { unixSeconds } from '../../../../src/base/clock.ts'
import { Letters } from '../../../../src/daemon/letters/letters.ts'
import { eventId, identify } from '../../../../src/nostr/nips/nip01.ts'
import { buildDm17, CHAT_KIND, sealRumor, unwrap, WRAP_KIND, wrapSeal } from '../../../../src/nostr/nips/nip59.ts'
import { createVerifier } from '../../../../src/nostr/reading/verify.ts'
import type { IdentifiedEvent, LocalSigner, NostrEvent } from '../../../../src/nostr/types.ts'
import type { World } from '../../host/world.ts'

export const RELAY = 'ws://relay.test'

/** @param order `start: false` where handlers are still to come */
export function lettersOf({ deps, keyring }: World, { start = true }: { start?: boolean } = {}): Letters {
  const letters = new Letters({ ...deps, scope: deps.scope.child('letters'), signer: keyring.node(), isIntroduced: true })
  if (start) letters.start()
  return letters
}

export interface Written {
  readonly rumor: IdentifiedEvent
  readonly wrap: NostrEvent
}

/** As a client of the author would write it. @param order.atMs when it says that it was written */
export async function write(world: World, author: LocalSigner, text: string, order: { atMs?: number; to?: string } = {}): Promise<Written> {
  const to = order.to ?? world.keyring.node().pubkey
  const nowS = order.atMs === undefined ? unixSeconds(world.clock) : Math.floor(order.atMs / 1000)
  const { rumor, wraps } = await buildDm17(author, [to], text, nowS)
  const wrap = wraps.find(({ recipient }) => recipient === to)?.event
  if (wrap === undefined) throw new Error('there is no wrap')
  return { rumor, wrap }
}

/** The same rumor in another wrap. */
export async function wrapAgain(world: World, author: LocalSigner, rumor: IdentifiedEvent): Promise<NostrEvent> {
  const [to, nowS] = [world.keyring.node().pubkey, unixSeconds(world.clock)]
  return wrapSeal(await sealRumor(author, rumor, to, nowS), to, nowS, author.random)
}

/** A rumor that names one author, sealed by another. */
export async function forge(world: World, forger: LocalSigner, author: string, text: string): Promise<NostrEvent> {
  const [to, nowS] = [world.keyring.node().pubkey, unixSeconds(world.clock)]
  const rumor = identify(author, { kind: CHAT_KIND, created_at: nowS, tags: [['p', to]], content: text })
  if (eventId(rumor) !== rumor.id) throw new Error('the rumor is not even well made')
  return wrapSeal(await sealRumor(forger, rumor, to, nowS), to, nowS, forger.random)
}

/** What the node has said to somebody, oldest first, as relays hold it. */
export async function mailOf({ outside }: World, reader: LocalSigner): Promise<IdentifiedEvent[]> {
  const verifier = createVerifier()
  const toReader = outside.ofKind(WRAP_KIND).filter((wrap) => wrap.tags.some(([name, value]) => name === 'p' && value === reader.pubkey))
  return await Promise.all(toReader.map((wrap) => unwrap(reader, wrap, verifier)))
}

export const textsOf = async (world: World, reader: LocalSigner): Promise<string[]> =>
  (await mailOf(world, reader)).map(({ content }) => content)
