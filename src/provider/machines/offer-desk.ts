/** Publishes what can be rented now, repeats it before it runs out, and takes it back when it is over. */
import { createHash } from 'node:crypto'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { buildOffer, buildWithdrawnOffer, OFFER_LIFETIME_S, type RuntimeOffer } from '../../nostr/control/offers.ts'
import { identify } from '../../nostr/nips/nip01.ts'
import type { Nostr } from '../../nostr/types.ts'
import { all, type Command } from '../../store/commands.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import { getSetting, putSetting } from '../../store/settings.ts'
import type { Store } from '../../store/store.ts'

/** Well before it expires. */
const REPEAT_MS = (OFFER_LIFETIME_S * 1000) / 2
const SETTING = 'runtime_offers'

/** By class: what was said last. */
type Said = Record<string, { digest: string; createdAtS: number }>

export interface OfferDesk {
  /** Says what differs from what was said; classes that are not in the list any more are withdrawn. */
  publish(offers: readonly RuntimeOffer[]): Promise<void>
}

export function createOfferDesk(deps: { store: Store; clock: Clock; nostr: Pick<Nostr, 'relays' | 'keyring' | 'nudgeOutbox'> }): OfferDesk {
  const { store, clock, nostr } = deps

  return {
    async publish(offers) {
      const pubkey = nostr.keyring.node().pubkey
      const said: Said = { ...getSetting<Said>(store, SETTING) }
      const at = clock.now()
      const commands: Command<unknown>[] = []
      const send = (runtimeClass: string, template: Parameters<typeof identify>[1]) =>
        commands.push(
          enqueueEvent({
            key: `runtime-offer:${pubkey}:${runtimeClass}:${template.kind}`,
            event: identify(pubkey, template),
            relays: nostr.relays,
            notAfter: at + OFFER_LIFETIME_S * 1000,
            at,
          }),
        )
      for (const offer of offers) {
        const last = said[offer.runtimeClass]
        const { tags, content } = buildOffer(offer, 0)
        const digest = createHash('sha256')
          .update(JSON.stringify([tags, content, nostr.relays]))
          .digest('hex')
        if (last?.digest === digest && last.createdAtS * 1000 + REPEAT_MS > at) continue
        // A replaceable event must be newer than the one it replaces, and than the deletion before it.
        const createdAtS = Math.max(unixSeconds(clock), (last?.createdAtS ?? 0) + 1)
        said[offer.runtimeClass] = { digest, createdAtS }
        send(offer.runtimeClass, buildOffer(offer, createdAtS))
      }
      for (const [runtimeClass, last] of Object.entries(said)) {
        if (last.digest === '' || offers.some((offer) => offer.runtimeClass === runtimeClass)) continue
        const createdAtS = Math.max(unixSeconds(clock), last.createdAtS + 1)
        said[runtimeClass] = { digest: '', createdAtS }
        send(runtimeClass, buildWithdrawnOffer({ runtimeClass }, pubkey, createdAtS))
      }
      if (commands.length === 0) return
      await store.write(all(...commands, putSetting({ key: SETTING, value: said, at })))
      nostr.nudgeOutbox()
    },
  }
}
