/** What a scope does for its owner beside running work: last things, gathering, hearing, ending without a waiter. */
import { describe, expect, it } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { seededRandom } from '../../../src/base/random.ts'
import { Scope } from '../../../src/base/scope.ts'

function world() {
  const clock = new ManualClock()
  const failures: string[] = []
  const root = Scope.root('root', { clock, random: seededRandom(1) }, ({ path, error }) => failures.push(`${path}: ${String(error)}`))
  return { clock, failures, root }
}

describe('what is done at the end', () => {
  it('comes after children and own work, last first, and one failure does not stop the others', async () => {
    const { clock, failures, root } = world()
    const order: string[] = []
    root.atEnd('first', () => order.push('first'))
    root.atEnd('broken', () => Promise.reject(new Error('no')))
    root.atEnd('second', () => order.push('second'))
    root.child('child').spawn('work', async () => {
      await clock.sleep(100)
      order.push('child')
    })
    root.spawn('work', async () => {
      await clock.sleep(200)
      order.push('work')
    })
    await clock.advance(0)
    const closing = root.close(1000)
    await clock.advance(300)
    expect(await closing).toEqual([])
    expect(order).toEqual(['child', 'work', 'second', 'first'])
    expect(failures).toEqual(['root/broken: Error: no'])
  })

  it('has its time though other work took all of it, and is late by name where it hangs', async () => {
    const { clock, root } = world()
    let isDone = false
    root.spawn('stubborn', () => new Promise(() => {}))
    root.atEnd('last', () => {
      isDone = true
      return new Promise(() => {})
    })
    await clock.advance(0)
    const closing = root.close(500)
    await clock.advance(500 + 2 * 1000)
    expect((await closing).map(({ path }) => path)).toEqual(['root/stubborn', 'root/end'])
    expect(isDone).toBe(true)
  })
})

describe('gathering', () => {
  it.each([0, 50])('does the work once for all who ask within %i ms', async (ms) => {
    const { clock, root } = world()
    let count = 0
    const ask = () => root.gather('count', ms, () => ++count)
    ask()
    ask()
    await clock.advance(ms)
    expect(count).toBe(1)
    ask()
    await clock.advance(ms)
    expect(count).toBe(2)
    ask()
    await root.close()
    await clock.advance(ms)
    expect(count).toBe(2)
  })
})

describe('hearing', () => {
  it('ends by what is told, by time, or with the scope, and stops listening each time', async () => {
    const { clock, root } = world()
    let listening = 0
    let tell: (heard: string) => void = () => {}
    const hear = () =>
      root.hear<string>(100, (told) => {
        listening++
        tell = told
        return () => listening--
      })
    const heard = hear()
    tell('word')
    tell('another')
    expect(await heard).toBe('word')
    const silent = hear()
    await clock.advance(100)
    expect(await silent).toBeUndefined()
    const atOnce = hear()
    tell('at once')
    expect(await atOnce).toBe('at once')
    const cut = hear()
    await Promise.all([expect(cut).rejects.toThrow('is ending'), root.close()])
    expect(listening).toBe(0)
  })
})

it('ends without a waiter: nothing new starts, and what is late is told', async () => {
  const { clock, failures, root } = world()
  const part = root.child('part')
  part.spawn('stubborn', () => new Promise(() => {}))
  await clock.advance(0)
  part.end()
  expect(part.isClosing).toBe(true)
  await clock.advance(0)
  await clock.advance(1000)
  expect(failures).toEqual(['root/part/stubborn: PylonError: root/part/stubborn did not end in time.'])
  expect(root.running()).toEqual([])
})

describe('work until somebody ends it', () => {
  it('is left as soon as its end comes, told so, and stays ours until it ends', async () => {
    const { clock, root } = world()
    const end = new AbortController()
    let isTold = false
    const left = root.until('work', end.signal, async (signal) => {
      signal.addEventListener('abort', () => {
        isTold = true
      })
      await clock.sleep(1000)
    })
    left.catch(() => undefined)
    await clock.advance(10)
    end.abort(new Error('enough'))
    await expect(left).rejects.toThrow('enough')
    expect(isTold).toBe(true)
    expect(root.running().map(({ path }) => path)).toEqual(['root/work'])
    await clock.advance(1000)
    expect(root.running()).toEqual([])
  })

  it('gives its own outcome where that comes first, and does not begin after its end', async () => {
    const { root } = world()
    const end = new AbortController()
    expect(await root.until('work', end.signal, () => 7)).toBe(7)
    end.abort(new Error('enough'))
    await expect(root.until('work', end.signal, () => 7)).rejects.toThrow('enough')
  })
})
