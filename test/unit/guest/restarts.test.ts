import { expect, test } from 'vitest'
import { nextStart } from '../../../src/guest/restarts.ts'

const failed = { exitCode: 1, livedMs: 10 }
const ended = { exitCode: 0, livedMs: 10 }

test('never means never, on_failure means failures, always means both', () => {
  expect([nextStart('never', failed, 0), nextStart('never', ended, 0), nextStart('on_failure', ended, 0)]).toEqual([
    undefined,
    undefined,
    undefined,
  ])
  for (const start of [nextStart('on_failure', failed, 0), nextStart('always', failed, 0), nextStart('always', ended, 0)]) {
    expect(start).toMatchObject({ shortLives: 1 })
  }
})

test('waits longer each time, and gives a crash loop up', () => {
  const delays: number[] = []
  for (let shortLives = 0; ; ) {
    const next = nextStart('always', failed, shortLives)
    if (next === undefined) break
    delays.push(next.delayMs)
    shortLives = next.shortLives
  }
  expect(delays).toHaveLength(5)
  expect(delays).toEqual([...delays].sort((a, b) => a - b))
})

test('forgets the short lives after a long one', () => {
  expect(nextStart('on_failure', { exitCode: 1, livedMs: 60_000 }, 5)).toMatchObject({ shortLives: 0 })
})
