/** Offers of machines: newest of an address, not expired, filtered, the cheapest first; and what a node may ask for one. */
import { expect, test } from 'vitest'
import { chooseOffers, type OfferFilter } from '../../../src/customer/machines/offers.ts'
import { parseLeaseQuote } from '../../../src/customer/machines/quote.ts'
import { buildOffer, type RuntimeOffer } from '../../../src/nostr/control/offers.ts'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'

const NOW_S = 1_800_000_000
const [A, B] = ['aa'.repeat(32), 'bb'.repeat(32)]

function offer(pubkey: string, more: Partial<RuntimeOffer> = {}, createdAtS = NOW_S): NostrEvent {
  const template = buildOffer(
    {
      runtimeClass: 'small',
      provider: 'incus',
      region: 'eu',
      protocols: ['acp'],
      priceMsatsPerHour: 1000n,
      minLeaseS: 60,
      maxLeaseS: 3600,
      capacity: { free: 1, total: 2 },
      resources: { vcpuCount: 1 },
      isolated: true,
      mints: ['https://mint.example'],
      ...more,
    },
    createdAtS,
  )
  return { ...identify(pubkey, template), sig: '00'.repeat(64) }
}

const chosen = (events: readonly NostrEvent[], filter: OfferFilter = {}) =>
  chooseOffers(events, filter, NOW_S * 1000).map(({ server, runtimeClass, priceMsatsPerHour }) => [server, runtimeClass, priceMsatsPerHour])

test('takes the newest of an address, none that has expired, the cheapest first', () => {
  const events = [
    offer(A, { priceMsatsPerHour: 900n }, NOW_S - 60),
    offer(A, { priceMsatsPerHour: 2000n }),
    offer(B),
    offer(B, { runtimeClass: 'old' }, NOW_S - 86_400),
  ]
  expect(chosen(events)).toEqual([
    [B, 'small', 1000n],
    [A, 'small', 2000n],
  ])
})

test.each<[string, OfferFilter, number]>([
  ['region', { region: 'mars' }, 0],
  ['protocol', { protocol: 'pi' }, 0],
  ['protocol that is there', { protocol: 'acp' }, 2],
  ['price', { maxMsatsPerHour: 1000n }, 1],
  ['class', { runtimeClass: 'big' }, 0],
  ['provider', { provider: 'local' }, 0],
  ['server', { server: A }, 1],
])('filters by %s', (_name, filter, count) => {
  expect(chosen([offer(A), offer(B, { priceMsatsPerHour: 5000n })], filter)).toHaveLength(count)
})

test('leaves out what is full, unless asked', () => {
  const full = offer(A, { capacity: { free: 0, total: 2 } })
  expect(chosen([full])).toEqual([])
  expect(chosen([full], { full: true })).toHaveLength(1)
})

test('one node takes no more than its share of what is looked at', () => {
  const flood = Array.from({ length: 80 }, (_, n) => offer(A, { runtimeClass: `c${n}`, priceMsatsPerHour: 1n }))
  const found = chosen([...flood, offer(B)])
  expect(found).toHaveLength(51)
  expect(found.at(-1)).toEqual([B, 'small', 1000n])
})

test('strangers publish what they like under the kind', () => {
  const broken = { ...offer(A), content: 'no json' }
  const noPrice = { ...offer(B), tags: offer(B).tags.filter(([name]) => name !== 'price_msats_per_hour') }
  expect(chosen([broken, noPrice])).toEqual([])
})

test('a quote is read as far as it can be, and what asks for no amount asks for nothing', () => {
  const progress = { payment_required: true, amount_msats: 5000, invoice: 'lnbc1', mints: ['m'], lock_pubkey: `02${A}`, expires_at: NOW_S }
  expect(parseLeaseQuote(progress)).toEqual({
    amountMsats: 5000n,
    invoice: 'lnbc1',
    mints: ['m'],
    lockPubkey: `02${A}`,
    expiresAt: NOW_S * 1000,
  })
  for (const other of [null, {}, { provider: 'local' }, { ...progress, amount_msats: -1 }, 'text']) {
    expect(parseLeaseQuote(other)).toBeUndefined()
  }
  const odd = { ...progress, lock_pubkey: 'x', mints: [5, 'm'], lease_seconds: 'long', expires_at: 'soon' }
  expect(parseLeaseQuote(odd)).toEqual({ amountMsats: 5000n, invoice: 'lnbc1', mints: ['m'] })
})
