/** A seed repeats a conversation to the letter. */
import { expect, test } from 'vitest'
import { converse } from './conversation.ts'

test('the same seed gives the same log, another seed another', async () => {
  const [first, second, other] = [await converse(3), await converse(3), await converse(4)]
  expect(first.lines.length).toBeGreaterThan(5)
  expect(second).toEqual(first)
  expect(other.log).not.toEqual(first.log)
})
