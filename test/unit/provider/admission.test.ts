/** Admission as a table: each rule by itself, and which comes first when several apply. */
import { expect, test } from 'vitest'
import { msats } from '../../../src/base/amounts.ts'
import {
  type Envelope,
  type EnvelopeRules,
  judgeEnvelope,
  judgeOrder,
  judgeToken,
  type OrderFacts,
} from '../../../src/provider/jobs/admission.ts'

const ME = 'aa'.repeat(32)
const OTHER = 'bb'.repeat(32)
const NOW_S = 1_800_000_000

const envelope: Envelope = {
  kind: 5001,
  pubkey: OTHER,
  createdAtS: NOW_S,
  expiresAtS: undefined,
  addressees: [ME],
  encrypted: false,
  tagCount: 3,
  bytes: 100,
}
const rules: EnvelopeRules = { me: ME, nowS: NOW_S, maxAgeS: 3600, maxSkewS: 300, maxInputBytes: 1000, isServed: (kind) => kind === 5001 }

test.each<[string, Partial<Envelope>, string]>([
  ['as it should be', {}, 'pass'],
  ['to anyone', { addressees: [] }, 'pass'],
  ['to us and others', { addressees: [OTHER, ME] }, 'pass'],
  ['at the edge of age', { createdAtS: NOW_S - 3600 }, 'pass'],
  ['at the edge of skew', { createdAtS: NOW_S + 300 }, 'pass'],
  ['too old', { createdAtS: NOW_S - 3601 }, 'refuse'],
  ['too old, to anyone', { createdAtS: NOW_S - 3601, addressees: [] }, 'ignore'],
  ['from the future', { createdAtS: NOW_S + 301 }, 'ignore'],
  ['expired this second', { expiresAtS: NOW_S }, 'ignore'],
  ['expired and too old', { expiresAtS: NOW_S - 1, createdAtS: 0 }, 'ignore'],
  ['our own', { pubkey: ME }, 'ignore'],
  ['to another', { addressees: [OTHER] }, 'ignore'],
  ['encrypted to nobody', { encrypted: true, addressees: [] }, 'ignore'],
  ['a kind not served, to us', { kind: 5050 }, 'pass'],
  ['a kind not served, to anyone', { kind: 5050, addressees: [] }, 'ignore'],
  ['no request', { kind: 6001 }, 'ignore'],
  ['huge, to us', { bytes: 10_000_000 }, 'refuse'],
  ['huge, to anyone', { bytes: 10_000_000, addressees: [] }, 'ignore'],
  ['of a thousand tags', { tagCount: 1000 }, 'refuse'],
  ['of a thousand tags, to anyone', { tagCount: 1000, addressees: [] }, 'ignore'],
])('a request %s', (_what, change, verdict) => {
  expect(judgeEnvelope({ ...envelope, ...change }, rules).type).toBe(verdict)
})

const order = { kind: 5001, deadline: NOW_S * 1000 + 1, bidMsats: undefined, token: undefined }
const facts: OrderFacts = {
  nowMs: NOW_S * 1000,
  backend: 'ok',
  fault: undefined,
  priceMsats: msats(2000),
  hasMint: true,
  expectsMint: false,
  cancelled: false,
  openOfCustomer: 0,
  refundsCaused: 0,
  freeToday: 0,
  waiting: 0,
  perCustomerLimit: 10,
  freePerDay: 0,
  queueLimit: 10,
}
const free = { priceMsats: msats(0) }

test.each<[string, Partial<typeof facts>, object, object]>([
  ['priced', {}, {}, { type: 'quote', underBid: false }],
  ['priced, bid below', {}, { bidMsats: msats(1999) }, { type: 'quote', underBid: true }],
  ['priced, bid exactly', {}, { bidMsats: msats(2000) }, { type: 'quote', underBid: false }],
  ['priced, with a token', {}, { token: 'cashuB' }, { type: 'redeem' }],
  ['free', free, {}, { type: 'run' }],
  ['free, with a token', free, { token: 'cashuB' }, { type: 'run' }],
  ['free without a mint', { ...free, hasMint: false }, {}, { type: 'run' }],
  ['priced without a mint', { hasMint: false }, {}, { type: 'refuse', code: 'no_mint' }],
  ['without a backend', { backend: 'none' }, {}, { type: 'refuse', code: 'kind_unsupported' }],
  ['with the backend down', { backend: { down: 'at http://10.0.0.1' } }, {}, { type: 'refuse', code: 'backend_unavailable' }],
  ['with a fault', { fault: { code: 'param_invalid', message: '' } }, {}, { type: 'refuse', code: 'param_invalid' }],
  ['after many refunds of its own doing', { refundsCaused: 5 }, {}, { type: 'refuse', code: 'rate_limited' }],
  ['over the customer’s limit', { openOfCustomer: 10 }, {}, { type: 'refuse', code: 'rate_limited' }],
  ['over the free quota', { ...free, freePerDay: 3, freeToday: 3 }, {}, { type: 'refuse', code: 'rate_limited' }],
  ['priced, over the free quota', { freePerDay: 3, freeToday: 3 }, {}, { type: 'quote' }],
  ['cancelled', { cancelled: true }, {}, { type: 'cancelled' }],
  ['at its deadline', {}, { deadline: NOW_S * 1000 }, { type: 'refuse', code: 'job_expired' }],
  ['with the queue full', { waiting: 10 }, {}, { type: 'refuse', code: 'overloaded' }],
  [
    'a fault before the limit',
    { fault: { code: 'param_invalid', message: '' }, openOfCustomer: 10 },
    {},
    { type: 'refuse', code: 'param_invalid' },
  ],
  ['the limit before a cancel', { cancelled: true, openOfCustomer: 10 }, {}, { type: 'refuse', code: 'rate_limited' }],
])('an order %s', (_what, change, orderChange, verdict) => {
  expect(judgeOrder({ ...order, ...orderChange }, { ...facts, ...change })).toMatchObject(verdict)
})

test('the reason of a backend that is down is not told', () => {
  expect(JSON.stringify(judgeOrder(order, { ...facts, backend: { down: 'at http://10.0.0.1' } }))).not.toContain('10.0.0.1')
})

const token = { unit: 'sat', netSats: 2n, lock: 'ours' as const, isPrivate: false }
test.each<[string, object, string | undefined]>([
  ['as it should be', {}, undefined],
  ['unlocked in private', { lock: 'none', isPrivate: true }, undefined],
  ['unlocked in public', { lock: 'none' }, 'token_bare'],
  ['of another', { lock: 'other' }, 'token_locked'],
  ['of another in private', { lock: 'other', isPrivate: true }, 'token_locked'],
  ['worth too little', { netSats: 1n }, 'token_amount'],
  ['in another unit', { unit: 'usd' }, 'token_invalid'],
])('a token %s', (_what, change, code) => {
  expect(judgeToken({ ...token, ...change }, msats(1001))?.code).toBe(code)
})
