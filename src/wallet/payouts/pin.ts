/** What an address says of itself, fixed when its owner sets it: a payout goes nowhere else. */
import { PylonError } from '../../base/errors.ts'
import type { AddressPin } from '../../store/money/payouts.ts'
import type { PayParameters } from '../lightning/lnurl.ts'

/** As many sats as there can be. */
const MOST_SATS = 2_100_000_000_000_000n

/** @param url where LNURL-pay begins */
export function pinOf(url: string, { callback, identifier, nostrPubkey, maxMsats }: PayParameters): AddressPin {
  return {
    host: new URL(url).host,
    callbackHost: new URL(callback).host,
    identifier: identifier ?? null,
    nostrPubkey: nostrPubkey ?? null,
    mostSats: Number(maxMsats / 1000n < MOST_SATS ? maxMsats / 1000n : MOST_SATS),
  }
}

type Named = Exclude<keyof AddressPin, 'mostSats'>

const WORDS: Readonly<Record<Named, string>> = {
  host: 'its host',
  callbackHost: 'the host of its callback',
  identifier: 'whose address it says it is',
  nostrPubkey: 'its Nostr key',
}

/** @throws payout_address_changed naming what is another */
export function assertSamePin(pinned: AddressPin, now: AddressPin): void {
  const changed = (Object.keys(WORDS) as Named[]).filter((name) => pinned[name] !== now[name])
  if (changed.length === 0) return
  const said = changed.map((name) => `${WORDS[name]} was ${shown(pinned[name])} and is ${shown(now[name])}`)
  throw new PylonError(
    'payout_address_changed',
    `The address answers as another than when it was set: ${said.join('; ')}. Nothing was sent; look at it, then set it again: pylon wallet payout set`,
    { details: { changed } },
  )
}

const shown = (value: string | null): string => (value === null ? 'not said' : value.slice(0, 100))
