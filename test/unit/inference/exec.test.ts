/** Names and values from strangers as an environment: nothing but PYLON_PARAM_ names, no NUL, bounded. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { paramEnv } from '../../../src/inference/exec.ts'

test.each([
  [{ temperature: ['0.5'] }, { PYLON_PARAM_TEMPERATURE: '0.5' }],
  [{ 'top-p': ['1', '2'] }, { PYLON_PARAM_TOP_P: '1 2' }],
  [{ '': ['x'] }, {}],
  [{ 'a\0b=c': ['x\0y'] }, { PYLON_PARAM_A_B_C: 'xy' }],
])('%j', (params, expected) => {
  expect(paramEnv(params)).toEqual(expected)
})

test('whatever the names', () => {
  const params = fc.dictionary(fc.string({ unit: 'binary' }), fc.array(fc.string({ unit: 'binary', maxLength: 9000 }), { maxLength: 3 }))
  fc.assert(
    fc.property(params, (given) => {
      for (const [name, value] of Object.entries(paramEnv(given))) {
        expect(name).toMatch(/^PYLON_PARAM_[A-Z0-9_]{1,64}$/)
        expect(value).not.toContain('\0')
        expect(Buffer.byteLength(value)).toBeLessThanOrEqual(4100)
      }
    }),
    { numRuns: 200 },
  )
})
