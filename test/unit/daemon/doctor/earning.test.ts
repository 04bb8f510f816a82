/** Why a provider earns nothing, in order, each with the next step. */
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { DEFAULT_CONFIG } from '../../../../src/base/config.ts'
import { type EarningFacts, whyNotEarning } from '../../../../src/daemon/doctor/earning-checks.ts'
import { enqueueEvent } from '../../../../src/store/nostr/outbox.ts'
import { announcedTo, hasEarned, jobsAsked, leasesAsked } from '../../../../src/store/selling/custom.ts'
import { openStore } from '../../../support/store.ts'
import { tempDir } from '../../../support/temp.ts'

const AT = Date.UTC(2026, 0, 1)
const FACTS: EarningFacts = {
  nowMs: AT,
  announced: [
    { relay: 'wss://a', state: 'accepted', words: null, at: AT },
    { relay: 'wss://b', state: 'rejected', words: 'blocked', at: AT },
  ],
  relays: [{ url: 'wss://a', provenAt: AT - 5000 }, { url: 'wss://b' }],
  asked: [
    { status: 'refused', code: 'bid_too_low', priced: true, jobs: 3 },
    { status: 'expired', code: null, priced: true, jobs: 2 },
  ],
  leases: 1,
  earnedMsats: 1000n,
  costsMsats: 2000n,
  kinds: [5001],
  config: DEFAULT_CONFIG,
}

const said = (facts: Partial<EarningFacts>) => whyNotEarning({ ...FACTS, ...facts }).map(({ name, message }) => `${name}: ${message}`)

it('tells in order where it is announced, who delivers, who asked, what was refused, not paid, priced and lost', () => {
  expect(said({})).toEqual([
    'earning: announced: At wss://a since 2026-01-01T00:00:00.000Z. Not at wss://b (rejected: blocked).',
    'earning: heard: These deliver: wss://a (5 s ago).',
    'earning: asked: 5 jobs and 1 machines were asked for in the last day.',
    'earning: refused: 3 jobs were refused or failed in the last day: 3 for bid_too_low.',
    'earning: not paid: 2 quotes of the last day were not paid.',
    'earning: prices: Priced: 5001 2 sats a job.',
    'earning: costs: Fees of the last 30 days came to 2 sats, income to 1.',
  ])
})

it('names what is missing, each with a next step', () => {
  const free = { ...DEFAULT_CONFIG, provider: { ...DEFAULT_CONFIG.provider, prices: { 5001: { amount_msats: 0, unit: 'job' as const } } } }
  const checks = whyNotEarning({
    ...FACTS,
    announced: [],
    relays: [{ url: 'wss://a' }],
    asked: [],
    leases: 0,
    costsMsats: 0n,
    config: free,
  })
  expect(checks.map(({ name, state }) => [name, state])).toEqual([
    ['earning: announced', 'warning'],
    ['earning: heard', 'warning'],
    ['earning: asked', 'warning'],
    ['earning: prices', 'warning'],
  ])
  for (const check of checks) expect(check.next_step).toMatch(/.{10,}/)
  expect(said({ announced: FACTS.announced.slice(1) })[0]).toContain('No relay has the announcement. Not at wss://b')
  expect(said({ kinds: [] })[0]).toContain('Nothing is sold now')
})

it('reads the newest announcement of the outbox, and what there is of jobs', async () => {
  const store = openStore(join(tempDir(), 'pylon.db'))
  const say = (id: string, relays: string[]) => {
    const event = { id: id.repeat(64), pubkey: 'a'.repeat(64), created_at: 1, kind: 31_990, tags: [], content: '' }
    return store.write(enqueueEvent({ key: 'announce:x:31990', event, relays, notAfter: AT, at: AT }))
  }
  await say('1', ['wss://old'])
  await say('2', ['wss://a', 'wss://b'])
  expect(announcedTo(store)).toEqual(['wss://a', 'wss://b'].map((relay) => ({ relay, state: 'pending', words: null, at: AT })))
  expect([jobsAsked(store, 0), leasesAsked(store, 0), hasEarned(store, 0)]).toEqual([[], 0, false])
  store.close()
})
