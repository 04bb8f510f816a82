/** The life of a money operation: legal moves, and what evidence allows. */
import { describe, expect, it } from 'vitest'
import { systemRandom } from '../../../../src/base/random.ts'
import { OPERATION_STEPS, statesBefore } from '../../../../src/base/states.ts'
import { type Evidence, judge, nextTryMs } from '../../../../src/wallet/operations/machine.ts'

const none: Evidence = { inputs: 'none', quote: undefined, restored: 'none', refusal: undefined, outputsTaken: false, oldKeyset: false }

describe('states', () => {
  it('end for good, and fail only after something was sent', () => {
    expect(OPERATION_STEPS.completed).toEqual([])
    expect(OPERATION_STEPS.failed).toEqual([])
    expect(statesBefore(OPERATION_STEPS, 'failed')).toEqual(['submitted', 'unknown'])
  })
})

describe('judge', () => {
  it.each<[string, 'receive' | 'send' | 'mint' | 'melt', Partial<Evidence>, string]>([
    ['a swap that was done', 'receive', { inputs: 'spent', restored: 'all' }, 'complete'],
    ['a swap that never came through', 'send', { inputs: 'unspent' }, 'resubmit'],
    ['a swap that is refused with its inputs unspent', 'send', { inputs: 'unspent', refusal: 'no' }, 'fail'],
    ['a swap whose inputs somebody else spent', 'receive', { inputs: 'spent' }, 'fail'],
    ['a swap of which a part was spent elsewhere', 'send', { inputs: 'mixed', refusal: 'spent' }, 'fail'],
    ['a swap under way', 'send', { inputs: 'pending', refusal: 'pending' }, 'wait'],
    ['a swap signed in part', 'send', { inputs: 'spent', restored: 'some' }, 'complete'],
    [
      'a swap with outputs of another life',
      'send',
      { inputs: 'unspent', restored: 'all', refusal: 'signed', outputsTaken: true },
      'replan',
    ],
    ['a paid quote not yet minted', 'mint', { quote: 'PAID' }, 'resubmit'],
    ['a quote that was issued to us', 'mint', { quote: 'ISSUED', restored: 'all' }, 'complete'],
    ['a quote that was issued to somebody', 'mint', { quote: 'ISSUED' }, 'fail'],
    ['a paid quote that the mint will not mint', 'mint', { quote: 'PAID', refusal: 'no' }, 'wait'],
    [
      'a paid quote with outputs of another life',
      'mint',
      { quote: 'PAID', restored: 'all', refusal: 'signed', outputsTaken: true },
      'replan',
    ],
    ['a paid quote whose keyset went meanwhile', 'mint', { quote: 'PAID', refusal: 'inactive', oldKeyset: true }, 'replan'],
    ['a swap whose keyset went meanwhile', 'send', { inputs: 'unspent', refusal: 'inactive', oldKeyset: true }, 'replan'],
    [
      'a swap that was done before its keyset went',
      'send',
      { inputs: 'spent', restored: 'all', refusal: 'inactive', oldKeyset: true },
      'complete',
    ],
    [
      'a payment whose keyset went meanwhile',
      'melt',
      { quote: 'UNPAID', inputs: 'unspent', refusal: 'inactive', oldKeyset: true },
      'replan',
    ],
    ['a payment that arrived', 'melt', { quote: 'PAID', inputs: 'spent' }, 'complete'],
    ['a payment on its way', 'melt', { quote: 'PENDING', inputs: 'pending' }, 'wait'],
    [
      'a payment of which only the inputs tell that it is on its way',
      'melt',
      { quote: 'UNPAID', inputs: 'pending', refusal: 'no' },
      'wait',
    ],
    ['a payment that was on its way and failed', 'melt', { quote: 'UNPAID', inputs: 'unspent', acknowledged: true }, 'fail'],
    ['a payment that never started', 'melt', { quote: 'UNPAID', inputs: 'unspent' }, 'resubmit'],
    ['a payment that was refused', 'melt', { quote: 'UNPAID', inputs: 'unspent', refusal: 'no route' }, 'fail'],
    ['a refusal of a payment that is on its way after all', 'melt', { quote: 'PENDING', inputs: 'unspent', refusal: 'pending' }, 'wait'],
    ['a payment of spent inputs that was refused', 'melt', { quote: 'UNPAID', inputs: 'spent', refusal: 'spent' }, 'fail'],
    ['inputs gone, and a mint that forgot the quote', 'melt', { quote: undefined, inputs: 'spent', refusal: 'not found' }, 'wait'],
    ['a refusal by a mint that forgot the quote', 'melt', { quote: undefined, inputs: 'unspent', refusal: 'not found' }, 'fail'],
    ['inputs gone and no payment to see', 'melt', { quote: 'UNPAID', inputs: 'spent' }, 'wait'],
  ])('%s', (_, kind, evidence, verdict) => {
    expect(judge(kind, { ...none, ...evidence }).do).toBe(verdict)
  })
})

it('looks again after a second, then ever less: each minute for half an hour, at least each hour', () => {
  expect([0, 1, 2, 10, 35, 36, 1000].map((tries) => nextTryMs(tries, systemRandom))).toEqual([
    1000, 2000, 4000, 60_000, 60_000, 120_000, 3_600_000,
  ])
})
