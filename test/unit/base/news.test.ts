/** Who waits for news of a key is woken by that, by its time, by its signal and by the end of the scope; never by another key. */
import { expect, test } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { News } from '../../../src/base/news.ts'
import { testScope } from '../../support/scope.ts'

async function waiting(key: string, ms: number, signal?: AbortSignal) {
  const clock = new ManualClock()
  const scope = testScope(clock)
  const news = new News(scope)
  const startMs = clock.now()
  const woken: number[] = []
  const waits = news.next(key, ms, signal).then(() => woken.push(clock.now() - startMs))
  return { clock, scope, news, woken, waits }
}

test('news of the key wakes, news of another does not, and the time is over at the latest', async () => {
  const { clock, news, woken } = await waiting('error', 5000)
  await clock.advance(1000)
  news.tell('other')
  await clock.advance(1000)
  expect(woken).toEqual([])
  news.tell('error')
  await clock.advance(0)
  await clock.advance(10_000)
  expect(woken).toEqual([2000])
  const late = await waiting('a', 5000)
  await late.clock.advance(10_000)
  expect(late.woken).toEqual([5000])
})

test('a signal wakes, also one that was given before', async () => {
  const ends = new AbortController()
  const { clock, woken } = await waiting('a', 5000, ends.signal)
  await clock.advance(1000)
  ends.abort()
  await clock.advance(0)
  await clock.advance(5000)
  expect(woken).toEqual([1000])
  const again = await waiting('a', 5000, ends.signal)
  await again.waits
  expect(again.woken).toEqual([0])
})

test('the end of the scope wakes, and nobody waits after it', async () => {
  const { clock, scope, news, woken, waits } = await waiting('a', 5000)
  await clock.advance(1000)
  await scope.close()
  await waits
  expect(woken).toEqual([1000])
  await news.next('a', 5000)
})
