/** JSON from outside: what is nested without end is none, and brackets in strings are no nesting. */
import { expect, test } from 'vitest'
import { parseJson } from '../../../src/base/json.ts'

test.each([
  ['lists', `${'['.repeat(100_000)}${']'.repeat(100_000)}`],
  ['objects', `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`],
  ['both, after a string with brackets', `["]]]\\"}", ${'[{"a":'.repeat(1000)}1${'}]'.repeat(1000)}]`],
])('too deep: %s', (_what, text) => {
  expect(parseJson(text)).toBeUndefined()
})

test('brackets in strings, and many side by side, are no depth', () => {
  const wide = JSON.stringify({ text: `${'[{'.repeat(5000)}"\\`, list: Array(5000).fill([{}]) })
  expect(parseJson(wide)).toEqual(JSON.parse(wide))
})
