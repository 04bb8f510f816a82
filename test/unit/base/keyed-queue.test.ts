/** The queue by key: order, independence of keys, and what a failure leaves. */
import { expect, test } from 'vitest'
import { KeyedQueue } from '../../../src/base/keyed-queue.ts'

test('work on one key goes in order, on another key it does not wait', async () => {
  const queue = new KeyedQueue()
  const gate = Promise.withResolvers<void>()
  const done: string[] = []
  const first = queue.run('a', async () => {
    await gate.promise
    done.push('first')
  })
  const second = queue.run('a', async () => void done.push('second'))
  await queue.run('b', async () => void done.push('other'))
  expect(done).toEqual(['other'])
  gate.resolve()
  await Promise.all([first, second])
  expect(done).toEqual(['other', 'first', 'second'])
})

test('a failure is told to who asked for it, and the next one runs', async () => {
  const queue = new KeyedQueue()
  const failed = queue.run('a', () => Promise.reject(new Error('no')))
  const next = queue.run('a', async () => 'yes')
  await expect(failed).rejects.toThrow('no')
  expect(await next).toBe('yes')
})

test('it is idle when all that was asked for has ended, also what failed', async () => {
  const queue = new KeyedQueue()
  let ended = 0
  for (const key of ['a', 'a', 'b']) void queue.run(key, async () => void ended++)
  queue.run('b', () => Promise.reject(new Error('no'))).catch(() => undefined)
  await queue.idle()
  expect(ended).toBe(3)
})
