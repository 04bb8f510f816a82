/** Every cause of a movement of sats has words, also those whose ids have a form of their own. */
import { expect, it } from 'vitest'
import { causeWords } from '../../../src/daemon/routes/cause-words.ts'
import * as keys from '../../../src/store/keys.ts'
import type { Cause } from '../../../src/store/money/ledger.ts'

// A type that is not here does not compile.
const TYPES: Readonly<Record<Cause['type'], true>> = {
  job: true,
  purchase: true,
  tick: true,
  action: true,
  zap: true,
  lease: true,
  owner: true,
  transfer: true,
}

it('every type has words of its own', () => {
  const words = (Object.keys(TYPES) as Cause['type'][]).map((type) => causeWords({ type, id: 'x' }))
  expect(new Set(words).size).toBe(words.length)
  for (const one of words) expect(one).toMatch(/^[a-z].{3,}/)
})

it('every form of a cause has words, and no two the same', () => {
  const causes = Object.entries(keys).filter(([name, form]) => form instanceof keys.KeyForm && /Cause$/.test(name))
  expect(causes.length).toBeGreaterThan(1)
  const plain = causeWords({ type: 'owner', id: 'x' })
  const words = causes.map(([, form]) => causeWords({ type: 'owner', id: (form as keys.KeyForm).of('x') }))
  expect(words).not.toContain(plain)
  expect(new Set(words).size).toBe(words.length)
})

it('ids with a form say what they are for', () => {
  const of = (type: Cause['type'], id: string) => causeWords({ type, id })
  expect(of('owner', keys.payoutKey.of('1'))).toContain('payout')
  expect(of('purchase', keys.rentalKey.of('1'))).toContain('rented')
  expect(of('transfer', keys.rotationKey.of('1'))).toContain('keyset')
  expect(of('transfer', keys.gatherKey('k', 'https://mint.test', 1))).toContain('small coins')
  expect(of('owner', 'restore')).toContain('restore')
})
