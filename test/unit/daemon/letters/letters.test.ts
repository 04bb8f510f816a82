/** Letters of the node: taken once whatever they come in and whatever dies between; sent once for each key. */
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { ManualClock } from '../../../../src/base/clock.ts'
import type { Letter } from '../../../../src/nostr/types.ts'
import { letterOut, postLetter } from '../../../../src/store/nostr/letters.ts'
import type { CommitHook } from '../../../../src/store/store.ts'
import { testScope } from '../../../support/scope.ts'
import { tempDir } from '../../../support/temp.ts'
import { Outside, START_MS, startWorld, stranger, type World } from '../../host/world.ts'
import { forge, lettersOf, RELAY, textsOf, wrapAgain, write } from './mail.ts'

const bob = stranger(0x0b)
const eve = stranger(0x0e)

async function worldOf(options: Partial<Parameters<typeof startWorld>[0]> = {}): Promise<World> {
  const world = await startWorld({ dir: tempDir(), ...options })
  onTestFinished(() => world.close())
  return world
}

/** Letters with a handler that takes all. */
async function reading(world: World, take: (letter: Letter) => Promise<boolean> = async () => true) {
  const taken: Letter[] = []
  const letters = lettersOf(world, { start: false })
  letters.handle('test', async (letter) => {
    const isOurs = await take(letter)
    if (isOurs) taken.push(letter)
    return isOurs
  })
  letters.start()
  return { letters, taken }
}

describe('what comes', () => {
  it('is taken once, by the id of the rumor, however often it is played or wrapped anew', async () => {
    const world = await worldOf()
    const { taken } = await reading(world)
    const { rumor, wrap } = await write(world, bob, 'hello')
    await Promise.all([world.deliver(wrap), world.deliver(wrap), world.deliver(await wrapAgain(world, bob, rumor))])
    await world.deliver(await wrapAgain(world, bob, rumor))
    expect(taken).toMatchObject([{ rumorId: rumor.id, from: bob.pubkey, kind: 14, content: 'hello', to: world.keyring.node().pubkey }])
  })

  it('of which the author of the rumor did not make the seal is nobody’s', async () => {
    const world = await worldOf()
    const { letters, taken } = await reading(world)
    await world.deliver(await forge(world, eve, bob.pubkey, 'approve 1'))
    expect(taken).toEqual([])
    expect(letters.status().ignored).toBe(1)
  })

  it('goes to the first handler that takes it; what nobody takes is counted', async () => {
    const world = await worldOf()
    const [first, second]: [string[], string[]] = [[], []]
    const letters = lettersOf(world, { start: false })
    letters.handle('first', async ({ content }) => content === 'a' && first.push(content) > 0)
    letters.handle('second', async ({ content }) => content !== 'c' && second.push(content) > 0)
    letters.start()
    for (const text of ['a', 'b', 'c']) await world.deliver((await write(world, bob, text)).wrap)
    expect([first, second, letters.status().ignored]).toEqual([['a'], ['b'], 1])
  })

  it('is kept while it cannot be taken, also over a restart, and then taken', async () => {
    const [dir, outside] = [tempDir(), new Outside()]
    const world = await startWorld({ dir, outside })
    const { rumor, wrap } = await write(world, bob, 'later')
    await reading(world, () => Promise.reject(new Error('not now')))
    await world.deliver(wrap)
    await world.close()
    const again = await worldOf({ dir, outside, clock: world.clock })
    let isReady = false
    const { taken } = await reading(again, async () => {
      if (!isReady) throw new Error('not now')
      return true
    })
    await again.clock.advance(30_000)
    expect(taken).toEqual([])
    isReady = true
    await vi.waitFor(async () => {
      await again.clock.advance(30_000)
      expect(taken).toMatchObject([{ rumorId: rumor.id, content: 'later' }])
    })
    await again.deliver(wrap)
    expect(taken).toHaveLength(1)
  })

  it('from long ago is left: its claim may be forgotten', async () => {
    const world = await worldOf()
    const { taken } = await reading(world)
    await world.deliver((await write(world, bob, 'old', { atMs: world.clock.now() - 15 * 86_400_000 })).wrap)
    expect(taken).toEqual([])
  })
})

describe('what is said', () => {
  it('goes out once for each key, to where the recipient reads, as soon as that is known', async () => {
    const world = await worldOf()
    const letters = lettersOf(world)
    await Promise.all([letters.send(bob.pubkey, 'hi', 'k'), letters.send(bob.pubkey, 'hi again', 'k')])
    await vi.waitFor(() => expect(letterOut(world.store, 'k')).toMatchObject({ state: 'waiting', tries: 1, reason: expect.any(String) }))
    expect(await textsOf(world, bob)).toEqual([])
    world.outside.inboxes.set(bob.pubkey, [RELAY])
    await vi.waitFor(async () => {
      await world.clock.advance(20_000)
      expect(letterOut(world.store, 'k')?.state).toBe('sent')
    })
    expect(await textsOf(world, bob)).toEqual(['hi'])
    expect(letters.status().waiting).toBe(0)
  })

  it('goes to relays that the recipient named, where it says none of its own', async () => {
    const world = await worldOf()
    await lettersOf(world).send(bob.pubkey, 'hi', 'k', { hints: [RELAY] })
    await vi.waitFor(async () => expect(await textsOf(world, bob)).toEqual(['hi']))
  })

  it('is refused when no relay is known for days, and says why', async () => {
    const world = await worldOf()
    const letters = lettersOf(world)
    const at = world.clock.now()
    await world.store.write(postLetter({ key: 'k', recipient: bob.pubkey, text: 'hi', notAfter: at + 20_000, at }))
    letters.nudge()
    await vi.waitFor(async () => {
      await world.clock.advance(20_000)
      expect(letterOut(world.store, 'k')).toMatchObject({ state: 'refused', reason: expect.stringContaining('10050') })
    })
    await expect(letters.send(bob.pubkey, 'x'.repeat(40_000), 'k2')).rejects.toMatchObject({ code: 'request_too_large' })
  })

  it('is said once, whichever commit the node dies before or after', async () => {
    for (let nth = 0; nth < 8; nth++) {
      const [dir, outside] = [tempDir(), new Outside()]
      outside.inboxes.set(bob.pubkey, [RELAY])
      const { world, wasReached, crash } = await dieAt(dir, outside, nth)
      await world.store
        .write(postLetter({ key: 'k', recipient: bob.pubkey, text: 'once', notAfter: world.clock.now() + 1e9, at: 0 }))
        .catch(() => {})
      const isPosted = letterOutIn(world)
      lettersOf(world)
      await vi.waitFor(async () => expect(wasReached() || (await textsOf(world, bob)).length > 0).toBe(true))
      crash()
      const again = await worldOf({ dir, outside, clock: world.clock })
      const letters = lettersOf(again)
      if (!isPosted) await letters.send(bob.pubkey, 'once', 'k')
      await vi.waitFor(async () => expect(await textsOf(again, bob)).toEqual(['once']))
      await again.clock.advance(20_000)
      expect([letterOut(again.store, 'k')?.state, await textsOf(again, bob)]).toEqual([expect.stringMatching(/^sen/), ['once']])
    }
  })
})

function letterOutIn({ store }: World): boolean {
  return letterOut(store, 'k') !== undefined
}

/** A world whose commits fail from the nth on: even before it is written, odd after. */
async function dieAt(dir: string, outside: Outside, nth: number) {
  let commits = 0
  let isDead = false
  let isArmed = false
  const hook: CommitHook = {
    beforeCommit() {
      if (isArmed && commits * 2 === nth) isDead = true
      if (isDead) throw new Error('the process is dead')
    },
    afterCommit() {
      if (isArmed && commits++ * 2 + 1 === nth) isDead = true
      if (isDead) throw new Error('the process is dead')
    },
  }
  const clock = new ManualClock(START_MS)
  const world = await startWorld({ dir, outside, hook, clock, deps: { scope: testScope(clock, () => isDead) } })
  isArmed = true
  const crash = () => {
    isDead = true
    world.crash()
  }
  return { world, wasReached: () => isDead, crash }
}
