/** What may be spent, pure: lists, rails and which windows a spend must fit. */
import { describe, expect, it } from 'vitest'
import { DEFAULT_CONFIG, parseConfig } from '../../../../src/base/config.ts'
import { npubOf } from '../../../../src/nostr/nips/nip19.ts'
import { judgeSpend, type SpendLimits, type SpendOrder } from '../../../../src/wallet/policy/judge.ts'
import { bindSpend, holdsFor } from '../../../../src/wallet/policy/spends.ts'

const KEY = 'ab'.repeat(32)
const order: SpendOrder = { amountSats: 5n, rail: 'mint', counterparty: KEY, names: ['pay.example.com'], at: 0 }
const say = (limits: SpendLimits, change: Partial<SpendOrder> = {}) => {
  const verdict = judgeSpend({ ...order, ...change }, limits)
  return verdict.allowed ? 'allowed' : verdict.rule
}

describe('lists', () => {
  it.each([
    ['a key', { deny: [KEY] }, {}, 'deny'],
    ['a host, by its subdomain', { deny: ['example.com'] }, {}, 'deny'],
    ['no host that only ends so', { deny: ['ample.com'] }, {}, 'allowed'],
    ['a host, by an address there', { deny: ['Example.com'] }, { counterparty: 'ann@example.com', names: [] }, 'deny'],
    ['an address alone', { deny: ['bob@example.com'] }, { counterparty: 'ann@example.com', names: [] }, 'allowed'],
    ['those who are named alone', { allow: ['ef'.repeat(32)] }, {}, 'allow'],
    ['one of those', { allow: ['example.com'] }, {}, 'allowed'],
    ['nobody who is not known, where some are named', { allow: [KEY] }, { counterparty: undefined, names: [] }, 'allow'],
    ['moves within the home by no list of whom to pay', { allow: ['x.org'], rails: ['nwc'] }, { rail: 'own' }, 'allowed'],
    ['another rail', { rails: ['nwc'] }, {}, 'rail'],
    ['any wallet of the rail', { rails: ['nwc'] }, { rail: 'nwc:1' }, 'allowed'],
  ] as const)('mean %s', (_, limits, change, expected) => {
    expect(say(limits, change)).toBe(expected)
  })
})

it('asks for the windows that are limited, and no others', () => {
  const names = (limits: SpendLimits, change: Partial<SpendOrder> = {}) => {
    const verdict = judgeSpend({ ...order, ...change }, limits)
    return verdict.allowed ? verdict.windows.map(({ name }) => name) : []
  }
  expect(names({})).toEqual([])
  const limits = { perTxSats: 1n, perTickSats: 2n, perHourSats: 3n, perDaySats: 4n, perCounterpartySats: 5n }
  expect(names(limits)).toEqual(['per transaction', 'per hour', 'per day', 'per counterparty and day'])
  expect(names(limits, { tickId: 'tick' })).toContain('per tick')
})

describe('a spend is bound', () => {
  const config = () => DEFAULT_CONFIG
  const owner = { kind: 'node', pubkey: KEY } as const
  const agent = { kind: 'agent', pubkey: KEY } as const
  const expense = 'node/expense/zap' as const
  const bound = (cause: Parameters<typeof bindSpend>[1]['cause']['type'], more: object = {}) =>
    bindSpend({ config }, { owner, cause: { type: cause, id: '1' }, rail: 'mint', debitAccount: expense, ...more }).parties.map(
      ({ subject }) => subject,
    )

  it('by its cause where nobody says more, and never by nothing', () => {
    expect(bound('owner')).toEqual(['owner'])
    expect(bound('purchase')).toEqual(['customer'])
    expect(bound('job', { debitAccount: 'node/deposit/job:1' })).toEqual(['refund'])
    expect(bound('tick', { rail: 'own' })).toEqual(['own'])
    expect(() => bound('action')).toThrow('does not say whose limits')
    expect(() => bound('job')).toThrow('does not say whose limits')
    const move = { owner: agent, cause: { type: 'action', id: '1' }, rail: 'mint' } as const
    expect(() => bindSpend({ config }, move, { subject: KEY })).toThrow('without its limits')
  })

  it('by all of its parties, and by whom the home never pays', () => {
    const denying = () => parseConfig(`[wallet.policy]\ndeny = ["${npubOf('ef'.repeat(32))}"]`)
    const move = { owner: agent, cause: { type: 'action', id: '1' }, rail: 'mint' } as const
    const spend = { subject: 'nwc:1', limits: { perTxSats: 5n }, besides: [{ subject: KEY, limits: { perTxSats: 3n } }] }
    const operation = { operationId: 'op', at: 0, amountSats: 4n }
    expect(holdsFor(bindSpend({ config }, move, spend), operation)).toHaveLength(2)
    const toDenied = bindSpend({ config: denying }, move, { ...spend, counterparty: 'ef'.repeat(32) })
    expect(() => holdsFor(toDenied, operation)).toThrow('never paid')
    const refund = bindSpend({ config: denying }, { ...move, owner, debitAccount: 'node/deposit/job:1', cause: { type: 'job', id: '1' } })
    expect(holdsFor(refund, operation)).toEqual([])
  })
})
