/** Handlers of the routes about alerts. */

import type { alertsRoutes } from '../../control/contract/alerts.ts'
import type { Handlers } from '../../control/route.ts'
import { lastRefusedLetter } from '../../store/nostr/letters.ts'
import { readAlerts } from '../owner/alerts.ts'
import { ownerOf } from '../owner/owner.ts'
import type { ReadServices, Services } from '../services.ts'

type Routes = typeof alertsRoutes

export function alertsReadHandlers(read: Pick<ReadServices, 'store' | 'config'>): Pick<Handlers<Routes>, 'listAlerts'> {
  return {
    listAlerts: () => {
      const { store } = read
      const config = read.config()
      const owner = ownerOf(config, { owns: () => false })
      const refused = owner.pubkey === undefined ? undefined : lastRefusedLetter(store, owner.pubkey)
      return {
        owner: owner.pubkey === undefined ? null : config.owner.npub,
        problem: owner.pubkey === undefined ? (owner.problem ?? null) : (refused?.reason ?? null),
        muted: [...config.alerts.mute],
        alerts: readAlerts(store),
      }
    },
  }
}

export function alertsHandlers({ parts }: Pick<Services, 'parts'>): Pick<Handlers<Routes>, 'testAlerts'> {
  return { testAlerts: () => parts.alerts.get().test() }
}
