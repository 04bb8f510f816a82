/** Random trees of work with failures, late tasks and closings at random moments: nothing survives its owner unnamed. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { seededRandom } from '../../../src/base/random.ts'
import { Scope } from '../../../src/base/scope.ts'

/** What a task does: wait, work and heed the signal, ignore it, fail, repeat and fail, try again, come later, be shared, be the only one. */
const KINDS = ['sleeps', 'works', 'stubborn', 'fails', 'repeats', 'retries', 'later', 'shared', 'lone'] as const
interface Task {
  readonly kind: (typeof KINDS)[number]
  readonly ms: number
}
interface Tree {
  readonly tasks: readonly Task[]
  readonly children: readonly Tree[]
}

const tree = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.record({
    tasks: fc.array(fc.record({ kind: fc.constantFrom(...KINDS), ms: fc.integer({ min: 1, max: 5000 }) }), { maxLength: 4 }),
    children: fc.oneof({ depthSize: 'small' }, fc.constant([]), fc.array(tie('tree'), { maxLength: 3 })),
  }),
})).tree

describe('trees of running work', () => {
  it('leave nothing behind that is not named, and tell each failure once', async () => {
    const unhandled: unknown[] = []
    const note = (reason: unknown) => unhandled.push(reason)
    process.on('unhandledRejection', note)
    let lateCount = 0
    let failureCount = 0
    const life = fc.integer({ min: 0, max: 8000 })
    const drain = fc.integer({ min: 0, max: 3000 })
    await fc.assert(
      fc.asyncProperty(tree, life, drain, async (shape, lifeMs, drainMs) => {
        const world = new World()
        plant(world.root, shape, world)
        await world.clock.advance(lifeMs)
        expect(pathsOf(world.root.running())).toEqual([...world.live].sort())
        const late = await world.close(drainMs)
        // Who is named heeded no signal; whoever still runs is named.
        for (const { path } of late) expect(path).toMatch(/\/(stubborn|fails|shared|lone)-/)
        for (const path of world.live) expect(pathsOf(late)).toContain(path)
        expect(await world.root.close()).toBe(late)
        expect(() => world.root.child('too late')).toThrow('is ending')
        await expect(world.root.run('too late', () => 1)).rejects.toThrow('is ending')
        const { begun } = world
        await world.clock.advance(60_000)
        expect(world.begun).toBe(begun)
        expect(world.told).toEqual(world.failed)
        lateCount += late.length
        failureCount += world.failed.length
      }),
      { numRuns: 1000, seed: 1 },
    )
    process.off('unhandledRejection', note)
    expect(unhandled).toEqual([])
    expect(lateCount).toBeGreaterThan(100)
    expect(failureCount).toBeGreaterThan(1000)
  })
})

describe('patience with what others answer for', () => {
  it('lasts until that ends, for its time, by its signal, or until the scope closes, whichever comes first', async () => {
    const times = fc.record({ endsMs: fc.nat(40), patienceMs: fc.nat(40), signalMs: fc.nat(40), closesMs: fc.nat(40), fails: fc.boolean() })
    await fc.assert(
      fc.asyncProperty(times, async ({ endsMs, patienceMs, signalMs, closesMs, fails }) => {
        const { root, clock } = new World()
        const signal = new AbortController()
        const ended = clock.sleep(endsMs * 10 + 1).then(() => (fails ? Promise.reject(new Error('as planned')) : 1))
        clock.after(signalMs * 10 + 2, () => signal.abort())
        clock.after(closesMs * 10 + 3, () => root.close())
        let outcome: { isDone: boolean; at: number } | undefined
        const startMs = clock.now()
        const waited = root.patience(patienceMs * 10 + 4, ended, signal.signal).then((isDone) => {
          outcome = { isDone, at: clock.now() - startMs }
        })
        await clock.advance(500)
        await waited
        const at = Math.min(endsMs * 10 + 1, signalMs * 10 + 2, closesMs * 10 + 3, patienceMs * 10 + 4)
        expect(outcome).toEqual({ isDone: at === endsMs * 10 + 1, at })
      }),
      { numRuns: 100, seed: 1 },
    )
  })
})

const pathsOf = (works: readonly { path: string }[]) => works.map(({ path }) => path).sort()

/** A root, and what the tasks themselves say of their lives. */
class World {
  readonly clock = new ManualClock()
  readonly told: string[] = []
  readonly failed: string[] = []
  readonly live = new Set<string>()
  begun = 0
  readonly root = Scope.root('root', { clock: this.clock, random: seededRandom(7) }, ({ path }) => this.told.push(path))

  /** A body whose life is noted. */
  noted(path: string, body: () => Promise<unknown>): () => Promise<unknown> {
    return async () => {
      this.begun++
      this.live.add(path)
      return await body().finally(() => this.live.delete(path))
    }
  }

  fail(path: string): never {
    this.failed.push(path)
    throw new Error('as planned')
  }

  async close(drainMs: number) {
    let isOver = false
    const closing = this.root.close(drainMs)
    void closing.then(() => (isOver = true))
    while (!isOver) await this.clock.advance(100)
    return await closing
  }
}

function plant(scope: Scope, { tasks, children }: Tree, world: World): void {
  for (const [i, task] of tasks.entries()) begin(scope, `${task.kind}-${i}`, task, world)
  for (const [i, child] of children.entries()) plant(scope.child(`child-${i}`), child, world)
}

function begin(scope: Scope, name: string, { kind, ms }: Task, world: World): void {
  const path = `${scope.path}/${name}`
  const { clock } = world
  const spawn = (body: (signal: AbortSignal) => Promise<unknown>) => scope.spawn(name, (signal) => world.noted(path, () => body(signal))())
  switch (kind) {
    case 'sleeps':
      spawn(() => scope.sleep(ms))
      break
    case 'works':
      spawn((signal) => clock.sleep(ms, signal))
      break
    case 'stubborn':
      spawn(() => (ms < 2500 ? clock.sleep(ms) : new Promise(() => {})))
      break
    case 'fails':
      spawn(async () => {
        await clock.sleep(ms)
        world.fail(path)
      })
      break
    case 'repeats':
      // Between two turns nothing runs.
      scope.every(name, ms, (signal) =>
        world.noted(path, async () => {
          await clock.sleep(ms, signal)
          world.fail(path)
        })(),
      )
      break
    case 'retries':
      spawn(async () => {
        const backoff = scope.backoff({ minMs: ms, maxMs: 60_000, jitter: 0.5 })
        for (;;) await backoff.wait()
      })
      break
    case 'later':
      scope.after(
        name,
        ms,
        world.noted(path, () => scope.sleep(ms)),
      )
      break
    case 'shared':
      // Two callers of one flight: it is begun once, and both hear how it ended.
      for (const caller of ['a', 'b']) {
        scope.spawn(`${name}-${caller}`, () =>
          world.noted(`${path}-${caller}`, () =>
            scope.once(
              name,
              world.noted(path, () => clock.sleep(ms)),
            ),
          )(),
        )
      }
      break
    case 'lone':
      // The second finds the first under way.
      for (let i = 0; i < 2; i++) {
        scope.spawnOnce(
          name,
          world.noted(path, async () => {
            await clock.sleep(ms)
            world.fail(path)
          }),
        )
      }
      break
  }
}
