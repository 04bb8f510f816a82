/** How mints say that a request has too much in it. */
import { expect, it } from 'vitest'
import { tooMany } from '../../../src/wallet/mint-client.ts'

it.each<[number, string, object | undefined]>([
  [11_014, 'no words', {}],
  [11_015, 'max outputs exceeded', {}],
  [0, 'inputs exceed the maximum number of inputs: 50', {}],
  [0, 'at most 50 inputs', { most: 50 }],
  [0, '[{"type":"too_long","msg":"List should have at most 50 items after validation, not 100"}]', { most: 50 }],
  [0, 'too many proofs', {}],
  [0, 'too many requests', undefined],
  [0, 'secret too long', undefined],
  [11_006, 'amount must be at most 1000 sat', undefined],
  [11_001, 'Token already spent.', undefined],
])('%i %s', (code, detail, expected) => {
  if (expected === undefined) expect(tooMany(code, detail)).toBeUndefined()
  else expect(tooMany(code, detail)).toMatchObject(expected)
})
