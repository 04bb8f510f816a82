/** What strangers may have open before they pay: bounded in all, the oldest and cheapest go first. */
import { expect, test } from 'vitest'
import { type Asker, Gate, type GateRules } from '../../../src/provider/jobs/gate.ts'

const RULES: GateRules = { maxInvoices: 10, maxBytes: 10_000, workBits: 16, maxFree: 10 }
let n = 0
const asker = (change: Partial<Asker> = {}): Asker => {
  n++
  return { id: `job${n}`, pubkey: `key${n}`, what: 'invoice', bytes: 100, work: 0, priceMsats: 2000n, ...change }
}
const gateOf = (change: Partial<GateRules> = {}) => new Gate(() => ({ ...RULES, ...change }))

test('so many invoices of strangers are open and no more, however many keys ask', () => {
  const gate = gateOf()
  const verdicts = Array.from({ length: 100 }, (_, i) => gate.ask(asker(), 1000 + i))
  expect(verdicts.filter(({ type }) => type === 'enter')).toHaveLength(10)
  expect(verdicts.at(-1)).toEqual({ type: 'full', workBits: 16 })
})

test('who proves work has room of its own, and more is asked as that fills', () => {
  const gate = gateOf()
  for (let i = 0; i < 20; i++) gate.ask(asker(), 1000)
  expect(gate.ask(asker({ work: 15 }), 1000)).toEqual({ type: 'full', workBits: 16 })
  const worked = Array.from({ length: 10 }, () => gate.ask(asker({ work: 30 }), 1000))
  expect(worked.every(({ type }) => type === 'enter')).toBe(true)
  expect(gate.ask(asker({ work: 16 }), 1000)).toEqual({ type: 'full', workBits: 24 })
})

test('an invoice keeps its place for a minute; then the cheapest goes first, of those the oldest', () => {
  const gate = gateOf({ maxInvoices: 3 })
  const [dear, cheap, cheapLater] = [asker({ priceMsats: 9000n }), asker({ priceMsats: 1000n }), asker({ priceMsats: 1000n })]
  gate.ask(dear, 0)
  gate.ask(cheap, 1)
  gate.ask(cheapLater, 2)
  expect(gate.ask(asker(), 59_999).type).toBe('full')
  expect(gate.ask(asker(), 60_010)).toEqual({ type: 'enter', evict: cheap.id })
  expect(gate.ask(asker(), 60_011)).toEqual({ type: 'enter', evict: cheapLater.id })
  expect(gate.ask(asker(), 60_012)).toEqual({ type: 'enter', evict: dear.id })
  expect(gate.ask(asker(), 60_013).type).toBe('full')
})

test('bytes are bounded in all', () => {
  const gate = gateOf()
  const verdicts = Array.from({ length: 8 }, () => gate.ask(asker({ bytes: 3000 }), 1000).type)
  expect(verdicts).toEqual(['enter', 'enter', 'enter', 'full', 'full', 'full', 'full', 'full'])
  expect(gate.ask(asker({ bytes: 500 }), 1000).type).toBe('enter')
  expect(gate.ask(asker({ bytes: 20_000, work: 60 }), 1000).type).toBe('full')
})

test('where it is crowded one key does not take it all', () => {
  const gate = gateOf({ maxInvoices: 100 })
  const greedy = Array.from({ length: 80 }, () => gate.ask(asker({ pubkey: 'greedy' }), 1000).type)
  expect(greedy.filter((type) => type === 'enter')).toHaveLength(51)
  expect(gate.ask(asker(), 1000).type).toBe('enter')
})

test('free work of strangers has a share while somebody pays, and all there is while nobody does', () => {
  const gate = gateOf({ maxFree: 1_000_000, maxBytes: 1e9 })
  const served = (at: number) =>
    Array.from({ length: 1000 }, () => gate.ask(asker({ what: 'free' }), at).type).filter((type) => type === 'enter').length
  expect(served(1000)).toBe(1000)
  gate.paying(2000)
  expect(served(2000)).toBe(200)
  expect(served(3000)).toBe(20)
  expect(served(32_001)).toBe(1000)
})

test('a place that was given back is free again, and load is told for a while after the last who found no room', () => {
  const gate = gateOf({ maxInvoices: 1 })
  const first = asker()
  gate.ask(first, 1000)
  expect(gate.asked(1000)).toBeUndefined()
  expect(gate.ask(asker(), 1000).type).toBe('full')
  expect(gate.asked(60_000)).toBe(16)
  gate.leave(first.id)
  gate.leave(first.id)
  expect(gate.ask(asker(), 1000).type).toBe('enter')
  expect(gate.asked(61_001)).toBeUndefined()
})

test('refusals are answered as long as they are few', () => {
  const gate = gateOf()
  const answered = Array.from({ length: 6000 }, (_, i) => gate.mayAnswer(1000 + i * 10)).filter(Boolean).length
  expect(answered).toBeGreaterThan(1500)
  expect(answered).toBeLessThan(1700)
})
