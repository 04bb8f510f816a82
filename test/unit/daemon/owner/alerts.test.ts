/** Alerts: what is found, told once when it has held, once when it is over, nothing twice whatever dies between. */
import { expect, it, onTestFinished, vi } from 'vitest'
import { ALERT_KINDS } from '../../../../src/base/alert-kinds.ts'
import { ManualClock } from '../../../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../../../src/base/config.ts'
import { type AlertFacts, findAlerts } from '../../../../src/daemon/owner/alert-rules.ts'
import { Alerts, readAlerts } from '../../../../src/daemon/owner/alerts.ts'
import { alertsReadHandlers } from '../../../../src/daemon/routes/alerts.ts'
import type { CommitHook } from '../../../../src/store/store.ts'
import { testScope } from '../../../support/scope.ts'
import { tempDir } from '../../../support/temp.ts'
import { Outside, START_MS, startWorld, stranger, type World } from '../../host/world.ts'
import { lettersOf, RELAY, textsOf } from '../letters/mail.ts'

const owner = stranger(0x0a)
const MINUTE_MS = 60_000

const WELL: AlertFacts = {
  agents: [{ name: 'ada', state: 'active', balanceSats: 100n }],
  node: { balanceSats: 100n, lowSats: 100n },
  payouts: [],
  relays: [{ url: 'wss://r', state: 'connected', reason: undefined }],
  mints: [{ url: 'https://m', state: 'ok', reason: null }],
  wallet: undefined,
  disk: undefined,
  backups: undefined,
  audit: undefined,
  refunds: { count: 0, totalSats: 0n },
  substrates: [{ provider: 'local', usable: true }],
}
const MINT_DOWN: AlertFacts = { ...WELL, mints: [{ url: 'https://m', state: 'down', reason: 'no answer' }] }
const NO_DISK: AlertFacts = { ...WELL, disk: '12 MB are free.' }
const ALL_WRONG: AlertFacts = {
  ...MINT_DOWN,
  agents: [{ name: 'ada', state: 'hibernating', balanceSats: 1n }],
  node: { balanceSats: 5n, lowSats: 100n },
  payouts: [{ wallet: 'node', reason: 'The address changed.' }],
  relays: [
    { url: 'wss://r', state: 'connected', reason: 'deaf' },
    { url: 'wss://s', state: 'down', reason: 'refused' },
  ],
  wallet: 'no answer',
  disk: '12 MB are free.',
  backups: 'No space.',
  audit: 'row 3 was changed.',
  refunds: { count: 2, totalSats: 42n },
  substrates: [{ provider: 'incus', usable: false, reason: 'no daemon' }],
}

it('every kind is found where it is, with the next step, and none where all is well', () => {
  const found = findAlerts(ALL_WRONG)
  expect(new Set(found.map(({ kind }) => kind))).toEqual(new Set(ALERT_KINDS))
  for (const { words } of found) expect(words).toContain(' Next: ')
  expect(new Set(found.map(({ key }) => key)).size).toBe(found.length)
  expect(findAlerts(WELL)).toEqual([])
})

class Watch {
  readonly outside = new Outside()
  readonly dir = tempDir()
  facts = WELL
  config: Config['alerts'] = DEFAULT_CONFIG.alerts
  hasOwner = true
  clock = new ManualClock(START_MS)

  constructor() {
    this.outside.inboxes.set(owner.pubkey, [RELAY])
  }

  async open(hook?: CommitHook, isGone = () => false): Promise<{ world: World; alerts: Alerts }> {
    const { dir, outside, clock } = this
    const scope = testScope(clock, isGone)
    const world = await startWorld({ dir, outside, clock, ...(hook === undefined ? {} : { hook }), deps: { scope } })
    onTestFinished(() => world.close())
    const letters = lettersOf(world)
    const alerts = new Alerts({
      ...{ scope: scope.child('alerts'), store: world.store, clock, letters },
      config: () => ({ alerts: this.config }),
      owner: () => (this.hasOwner ? { pubkey: owner.pubkey } : { pubkey: undefined, problem: undefined }),
      facts: async () => this.facts,
    })
    return { world, alerts }
  }
}

/** Looks each minute, so often. */
async function minutes(watch: Watch, { world, alerts }: { world: World; alerts: Alerts }, count: number): Promise<string[]> {
  for (let nth = 0; nth < count; nth++) {
    await alerts.look()
    await watch.clock.advance(MINUTE_MS)
  }
  await vi.waitFor(() => expect(world.store.sql("SELECT 1 FROM letters_out WHERE state = 'waiting'").all()).toEqual([]))
  return await textsOf(world, owner)
}

it('is told once after it held for its time, and once that it is over; several come in one letter', async () => {
  const watch = new Watch()
  const open = await watch.open()
  watch.facts = { ...MINT_DOWN, substrates: ALL_WRONG.substrates }
  expect(await minutes(watch, open, 10)).toEqual([])
  const begun = await minutes(watch, open, 30)
  expect(begun).toEqual([expect.stringMatching(/mint https:\/\/m is down: no answer.*substrate incus is not usable/s)])
  watch.facts = WELL
  expect(await minutes(watch, open, 5)).toHaveLength(1)
  const ended = await minutes(watch, open, 30)
  expect(ended).toEqual([begun[0], expect.stringMatching(/^Over, after .*: The mint https:\/\/m is down.*Over/s)])
  expect(readAlerts(open.world.store).map(({ state, told }) => [state, told])).toEqual([
    ['over', false],
    ['over', false],
  ])
})

it('what comes and goes is told rarely, and what was short not at all', async () => {
  const watch = new Watch()
  const open = await watch.open()
  for (let round = 0; round < 6; round++) {
    watch.facts = MINT_DOWN
    await minutes(watch, open, 8)
    watch.facts = WELL
    await minutes(watch, open, 2)
  }
  expect(await textsOf(open.world, owner)).toEqual([])
  for (let round = 0; round < 6; round++) {
    watch.facts = NO_DISK
    await minutes(watch, open, 3)
    watch.facts = WELL
    await minutes(watch, open, 8)
  }
  expect(await textsOf(open.world, owner)).toHaveLength(2)
})

it('nothing is told twice over a restart, nor while nobody is the owner, nor of what is muted', async () => {
  const watch = new Watch()
  const first = await watch.open()
  watch.hasOwner = false
  watch.facts = { ...NO_DISK, audit: ALL_WRONG.audit }
  watch.config = { ...watch.config, mute: ['audit_broken'] }
  expect(await minutes(watch, first, 3)).toEqual([])
  watch.hasOwner = true
  expect(await minutes(watch, first, 3)).toEqual([expect.stringContaining('The disk is low')])
  await first.world.close()
  const again = await watch.open()
  expect(await minutes(watch, again, 3)).toHaveLength(1)
})

it('whichever commit the node dies before or after, it is told once', async () => {
  for (let nth = 0; nth < 4; nth++) {
    const watch = new Watch()
    let [moment, isDead, isArmed] = [0, false, false]
    const pass = () => {
      if (isArmed && moment++ === nth) isDead = true
      if (isDead) throw new Error('the process is dead')
    }
    const dying = await watch.open({ beforeCommit: pass, afterCommit: pass }, () => isDead)
    watch.facts = { ...WELL, payouts: ALL_WRONG.payouts }
    isArmed = true
    for (let look = 0; look < 3; look++) await dying.alerts.look().catch(() => {})
    isDead = true
    dying.world.crash()
    const again = await watch.open()
    expect(await minutes(watch, again, 3), `at ${nth}`).toHaveLength(1)
    await again.world.close()
  }
})

it('a test letter says what became of it; without an owner it says how to name one', async () => {
  const watch = new Watch()
  const { alerts, world } = await watch.open()
  const sent = alerts.test()
  await vi.waitFor(async () => {
    await watch.clock.advance(250)
    expect(await textsOf(world, owner)).toHaveLength(1)
  })
  await watch.clock.advance(1000)
  expect(await sent).toMatchObject({ state: 'sent', reason: null })
  watch.hasOwner = false
  await expect(alerts.test()).rejects.toMatchObject({ code: 'owner_missing' })
})

it('the list says who is told, also to services that are an object with a configuration of their own', async () => {
  const { world } = await new Watch().open()
  const services = {
    store: world.store,
    own: DEFAULT_CONFIG,
    config() {
      return this.own
    },
  }
  expect(alertsReadHandlers(services).listAlerts({}, {} as never)).toEqual({ owner: null, problem: null, muted: [], alerts: [] })
})
