/** Approvals by letter: told once, done once, answered once; and every attack on that. */
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { ManualClock } from '../../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../../src/base/config.ts'
import { ApprovalsByLetter } from '../../../../src/daemon/owner/approvals-by-letter.ts'
import { ownerOf } from '../../../../src/daemon/owner/owner.ts'
import { readApproval } from '../../../../src/host/approvals.ts'
import { identify } from '../../../../src/nostr/nips/nip01.ts'
import { npubOf } from '../../../../src/nostr/nips/nip19.ts'
import { putSetting } from '../../../../src/store/settings.ts'
import type { CommitHook } from '../../../../src/store/store.ts'
import { RESTORED_AT_KEY } from '../../../../src/wallet/operations/restores.ts'
import { testScope } from '../../../support/scope.ts'
import { tempDir } from '../../../support/temp.ts'
import { Outside, START_MS, startWorld, stranger, type World } from '../../host/world.ts'
import { forge, lettersOf, mailOf, RELAY, textsOf, wrapAgain, write } from '../letters/mail.ts'

const owner = stranger(0x0a)
const eve = stranger(0x0e)
const IDLE = { type: 'script' as const, rules: '[[rules]]\non = "tick"\ndo = [{ type = "nothing" }]' }
const HOUR_MS = 3_600_000

/** A home with a supervised agent, whose owner reads letters on a relay. */
class Home {
  readonly dir = tempDir()
  readonly outside = new Outside()
  npub = npubOf(owner.pubkey)

  constructor() {
    for (const reader of [owner, eve]) this.outside.inboxes.set(reader.pubkey, [RELAY])
  }

  async open(
    options: { hook?: CommitHook; clock?: ManualClock; isGone?: () => boolean; spawn?: boolean } = {},
  ): Promise<World & { die(): void }> {
    const { dir, outside } = this
    let isDead = false
    const clock = options.clock ?? new ManualClock(START_MS)
    let byLetter: ApprovalsByLetter | undefined
    const scope = testScope(clock, () => isDead || options.isGone?.() === true)
    const hook = options.hook === undefined ? {} : { hook: options.hook }
    const world = await startWorld({ dir, outside, clock, ...hook, deps: { scope, onAsked: () => byLetter?.onAsked() } })
    onTestFinished(() => world.close())
    const letters = lettersOf(world, { start: false })
    byLetter = new ApprovalsByLetter({
      ...{ ...world.deps, scope: scope.child('owner'), letters },
      owner: () => ownerOf({ owner: { npub: this.npub } }, world.keyring),
      approvals: () => world.host.approvals,
    })
    letters.start()
    byLetter.start()
    if (options.spawn !== false) {
      await world.host.spawn({ name: 'ada', brain: IDLE, heartbeat_s: 86_400, autonomy: 'supervised' })
      await vi.waitFor(() => expect(world.host.log('ada')[0]?.state).toBe('done'))
    }
    const die = () => {
      isDead = true
      world.crash()
    }
    return { ...world, die }
  }
}

/** Lets time go on until the node has written so often to the owner. */
async function told(world: World, times: number, reader = owner): Promise<string[]> {
  await vi.waitFor(async () => {
    await world.clock.advance(5000)
    expect(await textsOf(world, reader)).toHaveLength(times)
  })
  return await textsOf(world, reader)
}

async function asking(): Promise<{ home: Home; world: World }> {
  const home = new Home()
  const world = await home.open()
  await world.host.act('ada', 'POST: May I?', 'k')
  await told(world, 1)
  return { home, world }
}

const stateOf = (world: World, id = 1) => readApproval(world.store, id).state

describe('the owner', () => {
  it('is told once of what waits: id, agent, action, words, and how to answer', async () => {
    const { world } = await asking()
    const [text = ''] = await told(world, 1)
    for (const part of ['1: ada asks for post', '"May I?"', 'approve 1', 'deny 1 because', 'UTC']) expect(text).toContain(part)
    await world.clock.advance(120_000)
    expect(await textsOf(world, owner)).toHaveLength(1)
  })

  it('hears of several in one letter', async () => {
    const { world } = await asking()
    for (const nth of [2, 3]) await world.host.act('ada', `POST: number ${nth}`, `k${nth}`)
    const [, second] = await told(world, 2)
    expect(second).toMatch(/2: ada asks.*3: ada asks/s)
  })

  it('approves, and the action is done once; he hears what became of it, as an answer to his letter', async () => {
    const { world } = await asking()
    const { rumor, wrap } = await write(world, owner, ' Approve  #1 ')
    await world.deliver(wrap)
    const [, answer] = await told(world, 2)
    expect(answer).toMatch(/^1 is approved. The post of ada is /)
    expect((await mailOf(world, owner))[1]?.tags).toContainEqual(['e', rumor.id])
    expect(world.outside.ofKind(1)).toHaveLength(1)
    expect(readApproval(world.store, 1)).toMatchObject({ state: 'approved', decided_by: npubOf(owner.pubkey) })
  })

  it('denies with a reason, asks for the list, and is helped', async () => {
    const { world } = await asking()
    for (const text of ['list', 'what?', 'deny 1 because it is dull', 'approve 1', 'deny 9', 'list']) {
      await world.deliver((await write(world, owner, text)).wrap)
    }
    const texts = await told(world, 7)
    expect(texts[1]).toContain('1: ada asks for post')
    expect(texts[2]).toContain('I understand')
    expect(texts[3]).toContain('1 is denied: it is dull.')
    expect(texts[4]).toContain('was denied')
    expect(texts[5]).toContain('There is no action 9')
    expect(texts[6]).toBe('Nothing waits for you.')
    expect(world.outside.ofKind(1)).toEqual([])
  })

  it('may be another after a change of the configuration: only the new key counts, and hears what waits', async () => {
    const { home, world } = await asking()
    home.npub = npubOf(eve.pubkey)
    await world.deliver((await write(world, owner, 'approve 1')).wrap)
    expect(stateOf(world)).toBe('pending')
    await told(world, 1, eve)
    await world.deliver((await write(world, eve, 'approve 1')).wrap)
    await vi.waitFor(() => expect(stateOf(world)).toBe('approved'))
    expect(await textsOf(world, owner)).toHaveLength(1)
  })

  it('is never a key of this home: no agent approves itself', async () => {
    const { home, world } = await asking()
    const agent = world.host.list()[0]?.pubkey ?? ''
    home.npub = npubOf(agent)
    await world.deliver((await write(world, world.keyring.localSigner(agent), 'approve 1')).wrap)
    await world.clock.advance(60_000)
    expect(stateOf(world)).toBe('pending')
    expect(ownerOf({ owner: { npub: home.npub } }, world.keyring)).toMatchObject({
      pubkey: undefined,
      problem: expect.stringContaining('key of this home'),
    })
    expect(ownerOf({ owner: { npub: `${npubOf(eve.pubkey).slice(0, -1)}q` } }, world.keyring).pubkey).toBeUndefined()
    expect(ownerOf(DEFAULT_CONFIG, world.keyring)).toEqual({ pubkey: undefined, problem: undefined })
  })
})

describe('an attack', () => {
  it('by a letter to an agent, by one that names an agent, and in the form of NIP-04, is not heard', async () => {
    const { world } = await asking()
    const agent = world.host.list()[0]?.pubkey ?? ''
    const node = world.keyring.node().pubkey
    const nowS = Math.floor(world.clock.now() / 1000)
    await world.deliver((await write(world, owner, 'approve 1', { to: agent })).wrap)
    // What the owner wrote to the agent, sealed by him for the node: he meant another.
    const rumor = identify(owner.pubkey, { kind: 14, created_at: nowS, tags: [['p', agent]], content: 'approve 1' })
    await world.deliver(await wrapAgain(world, owner, rumor))
    await world.say(owner, { kind: 4, tags: [['p', node]], content: owner.nip04Encrypt(node, 'approve 1') })
    await world.say(owner, { kind: 1, tags: [['p', node]], content: 'approve 1' })
    // No words of a chat: a file, and something for programs.
    for (const [kind, content] of [
      [15, 'approve 1'],
      [14, '{"approve":1}'],
    ] as const)
      await world.deliver(await wrapAgain(world, owner, identify(owner.pubkey, { kind, created_at: nowS, tags: [['p', node]], content })))
    await world.clock.advance(60_000)
    expect(stateOf(world)).toBe('pending')
    expect(await textsOf(world, owner)).toHaveLength(1)
  })

  it('by an approval of what ran out, was denied, or never was, does nothing, also when another takes its number', async () => {
    const { world } = await asking()
    await world.deliver((await write(world, owner, 'approve 2')).wrap)
    expect((await told(world, 2))[1]).toContain('There is no action 2')
    const early = await write(world, owner, 'approve 2 ', { atMs: world.clock.now() })
    await world.clock.advance(5000)
    await world.host.act('ada', 'POST: the second', 'k2')
    await told(world, 3)
    await world.deliver(early.wrap)
    expect((await told(world, 4))[3]).toContain('before 2 was asked')
    await world.deliver((await write(world, owner, 'deny 2')).wrap)
    await world.deliver((await write(world, owner, 'approve 2')).wrap)
    expect((await told(world, 6)).at(-1)).toContain('2 was denied')
    await world.clock.advance(25 * HOUR_MS)
    await world.deliver((await write(world, owner, 'approve 1')).wrap)
    expect((await told(world, 7)).at(-1)).toContain('1 was expired')
    expect([stateOf(world, 1), stateOf(world, 2)]).toEqual(['expired', 'denied'])
    expect(world.outside.ofKind(1)).toEqual([])
  })

  it('by what the owner wrote before the database was put back from a backup does nothing: it may have been done', async () => {
    const { world } = await asking()
    const { wrap } = await write(world, owner, 'approve 1')
    const old = await write(world, owner, 'list', { atMs: world.clock.now() - 2 * HOUR_MS })
    await world.clock.advance(60_000)
    const at = world.clock.now()
    await world.store.write(putSetting({ key: RESTORED_AT_KEY, value: at, at }))
    await world.deliver(wrap)
    await world.deliver(old.wrap)
    expect((await told(world, 2))[1]).toContain('put back from a backup')
    await world.clock.advance(60_000)
    // What was answered long ago is not answered again.
    expect(await textsOf(world, owner)).toHaveLength(2)
    expect(stateOf(world)).toBe('pending')
    await world.deliver((await write(world, owner, 'approve 1')).wrap)
    await vi.waitFor(() => expect(stateOf(world)).toBe('approved'))
  })

  it('by a flood is answered a few times, and a decision is still heard and answered', async () => {
    const { world } = await asking()
    // Of strangers, and of an owner whose program answers every answer.
    for (let i = 0; i < 200; i++) await world.deliver((await write(world, eve, `approve ${i}`)).wrap)
    for (let i = 0; i < 200; i++) await world.deliver((await write(world, owner, `what ${i}?`)).wrap)
    await world.deliver((await write(world, owner, 'approve 1')).wrap)
    await vi.waitFor(async () => {
      await world.clock.advance(5000)
      expect((await textsOf(world, owner)).at(-1)).toContain('1 is approved')
    })
    expect(await textsOf(world, owner)).toHaveLength(1 + 20 + 1)
    expect(await textsOf(world, eve)).toEqual([])
    await world.clock.advance(HOUR_MS)
    await world.deliver((await write(world, owner, 'list')).wrap)
    await told(world, 23)
  })

  it('by playing a letter again, or its rumor in another wrap, does nothing and is not answered', async () => {
    const { world } = await asking()
    const { rumor, wrap } = await write(world, owner, 'deny 1')
    await world.deliver(wrap)
    await told(world, 2)
    await world.host.act('ada', 'POST: another', 'k2')
    await told(world, 3)
    for (const again of [wrap, await wrapAgain(world, owner, rumor), await wrapAgain(world, owner, rumor)]) await world.deliver(again)
    await world.clock.advance(60_000)
    expect(await textsOf(world, owner)).toHaveLength(3)
    expect([stateOf(world, 1), stateOf(world, 2)]).toEqual(['denied', 'pending'])
  })

  it.each([
    ['of another key', async (world: World) => (await write(world, eve, 'approve 1')).wrap],
    ['in the name of the owner, sealed by another', (world: World) => forge(world, eve, owner.pubkey, 'approve 1')],
  ])('by a letter %s is not heard', async (_what, attack) => {
    const { world } = await asking()
    await world.deliver(await attack(world))
    await world.clock.advance(60_000)
    expect(stateOf(world)).toBe('pending')
    expect([(await textsOf(world, owner)).length, (await textsOf(world, eve)).length]).toEqual([1, 0])
  })

  it.each([
    ['older than an hour', -HOUR_MS - 1000, 'over an hour ago'],
    ['older than the question', -60_000, 'before 1 was asked'],
    ['of the future', HOUR_MS, 'still to come'],
  ])('by a letter %s does nothing, and the owner hears so', async (_what, ms, words) => {
    const { world } = await asking()
    await world.deliver((await write(world, owner, 'approve 1', { atMs: world.clock.now() + ms })).wrap)
    const [, answer] = await told(world, 2)
    expect(answer).toContain(words)
    expect(answer).toContain('nothing was done')
    expect(stateOf(world)).toBe('pending')
  })
})

it('whichever commit the node dies before or after, what waits is told once, done once and answered once', async () => {
  for (let nth = 0; nth < 14; nth++) {
    const home = new Home()
    const first = await home.open()
    await first.host.act('ada', 'POST: May I?', 'k')
    first.die()
    const { hook, isDead, arm } = dyingAt(nth)
    const dying = await home.open({ clock: first.clock, hook, isGone: isDead, spawn: false })
    arm()
    // Its date is that of the letter's writing: the question stands by then.
    await dying.clock.advance(2000).catch(() => {})
    const { wrap } = await write(dying, owner, 'approve 1')
    await dying.deliver(wrap).catch(() => {})
    await dying.clock.advance(2000).catch(() => {})
    dying.die()
    const again = await home.open({ clock: dying.clock, spawn: false })
    // He answers what he was told.
    await vi.waitFor(async () => {
      await again.clock.advance(5000)
      expect((await textsOf(again, owner)).length).toBeGreaterThan(0)
    })
    await again.deliver(wrap)
    await told(again, 2)
    await again.deliver(wrap)
    await again.clock.advance(40_000)
    const texts = await textsOf(again, owner)
    expect([texts.length, texts.filter((text) => text.includes('1 is approved')).length], `at ${nth}`).toEqual([2, 1])
    expect(again.outside.ofKind(1), `at ${nth}`).toHaveLength(1)
    await again.close()
  }
})

/** From the nth moment on every commit fails: the even ones are before a commit, the odd ones after it. */
function dyingAt(nth: number) {
  let [moment, isDead, isArmed] = [0, false, false]
  const pass = () => {
    if (isArmed && moment++ === nth) isDead = true
    if (isDead) throw new Error('the process is dead')
  }
  const hook: CommitHook = { beforeCommit: pass, afterCommit: pass }
  return { hook, isDead: () => isDead, arm: () => (isArmed = true) }
}
