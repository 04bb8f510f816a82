/** How parts are whose state stands in the database, and what to do about it. */
import { rfc3339 } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import type { BunkerHealth } from '../nostr/bunker/bunker-client.ts'
import { heldValue } from '../store/money/held-value.ts'
import type { NwcWalletRow } from '../store/money/nwc-wallets.ts'
import { troubledPayouts } from '../store/money/payouts.ts'
import type { Store } from '../store/store.ts'
import { type Health, OK } from './health.ts'

export const NO_MINT = { reason: 'no_mint', nextStep: 'pylon wallet mints add URL' }

export function healthOf({ state, reason }: { state: Health['state']; reason?: string }, next: { nextStep?: string }): Health {
  return state === 'ok' ? OK : { state, reason: reason ?? 'unknown', ...next }
}

export function mintsHealth(store: Store): Health {
  const { mints } = heldValue(store)
  if (mints.length === 0) return { state: 'degraded', ...NO_MINT }
  const down = mints.filter((mint) => mint.state === 'down')
  if (down.length === 0) return OK
  return { state: 'degraded', reason: `mint_unreachable: ${down.map((mint) => mint.url).join(', ')}`, nextStep: 'pylon doctor' }
}

export function payoutsHealth(store: Store): Health {
  const [first] = troubledPayouts(store)
  if (first === undefined) return OK
  return { state: 'degraded', reason: `payout_failed: ${first.failure.message}`, nextStep: 'pylon wallet payout list' }
}

/** Without one nothing is wrong, unless sales are to be received there. */
export function lightningHealth(row: NwcWalletRow | undefined, { wallet }: Config): Health {
  if (row?.state === 'down') return { state: 'degraded', reason: `nwc_unreachable: ${row.reason ?? ''}`, nextStep: 'pylon doctor' }
  if (row !== undefined || wallet.receive_by !== 'nwc') return OK
  return {
    state: 'degraded',
    reason: 'nwc_missing: wallet.receive_by is nwc and no wallet is connected',
    nextStep: 'pylon wallet connect -',
  }
}

/** Keys whose bunker is no help now; what they are to sign waits. */
export function remoteKeysHealth(
  troubled: readonly { readonly pubkey: string; readonly health: Extract<BunkerHealth, { state: 'degraded' }> }[],
  nameOf: (pubkey: string) => string,
): Health {
  if (troubled.length === 0) return OK
  const reason = troubled
    .map(({ pubkey, health }) => `${health.code}: ${nameOf(pubkey)}: ${health.reason} (since ${rfc3339(health.since)})`)
    .join('; ')
  return { state: 'degraded', reason, nextStep: 'start the bunker, or allow it there what it refused' }
}
