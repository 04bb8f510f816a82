/** Backups by the clock: made when due, claimed before they are written, only ours deleted and never the last; what fails is told. */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { ManualClock } from '../../../../src/base/clock.ts'
import { type Config, parseConfig } from '../../../../src/base/config.ts'
import { type Logger, silentLogger } from '../../../../src/base/logger.ts'
import type { Scope } from '../../../../src/base/scope.ts'
import { backupLog, noteBackups } from '../../../../src/daemon/backup/backup-log.ts'
import { backupsHealth, ScheduledBackups } from '../../../../src/daemon/backup/scheduled-backups.ts'
import { freshPathOf } from '../../../../src/daemon/backup/write-backup.ts'
import { checkBackups } from '../../../../src/daemon/doctor/backup-checks.ts'
import { verifyBackup } from '../../../../src/daemon/offline/verify-backup.ts'
import { testScope } from '../../../support/scope.ts'
import { makeHome, PASSPHRASE, QUICK } from './world.ts'

const HOUR_MS = 3_600_000

async function scheduled(settings: (dir: string) => string = () => '') {
  const made = await makeHome()
  const { home, store, npub, dir } = made
  const into = join(dir, 'backups')
  mkdirSync(into)
  writeFileSync(join(dir, 'pass'), `${PASSPHRASE.passphrase}\n`)
  const lines = ['[backup]', `dir = "${into}"`, 'every = "1h"', 'keep = 3', `passphrase_file = "${join(dir, 'pass')}"`]
  const file = settings(into)
  let config: Config = parseConfig(file === '' ? lines.join('\n') : file)
  const clock = new ManualClock()
  const scopes: Scope[] = []
  const begin = () => {
    const scope = testScope(clock)
    scopes.push(scope)
    const backups = new ScheduledBackups({
      ...{ scope, home, network: 'live', store, npub },
      logger: silentLogger as Logger,
      config: () => config,
      workFactor: QUICK,
    })
    backups.start()
    return scope
  }
  onTestFinished(async () => {
    for (const scope of scopes) await scope.close(0)
    store.close()
  })
  /** Moves the clock, and waits until nothing is being written. */
  const pass = async (ms: number) => {
    for (let left = ms; left >= 0; left -= 10 * 60_000) {
      await clock.advance(Math.min(left, 10 * 60_000))
      await quiet()
    }
  }
  const quiet = async () => {
    while (scopes.at(-1)?.running().length !== 0) await new Promise((resolve) => setTimeout(resolve, 2))
  }
  const files = () => readdirSync(into).sort()
  return {
    ...made,
    clock,
    begin,
    pass,
    quiet,
    files,
    into,
    health: () => backupsHealth(store, config),
    configure: (text: string) => (config = parseConfig(text)),
    config: () => config,
  }
}

it('makes one at once and then when the last is old enough, and keeps the newest', async () => {
  const { begin, pass, quiet, files, into, home, store, health, config, clock } = await scheduled()
  writeFileSync(join(into, 'pylon-live-of-somebody.age'), 'not ours')
  begin()
  await quiet()
  expect(files()).toHaveLength(2)
  for (let hour = 0; hour < 5; hour++) await pass(HOUR_MS)
  expect(files()).toHaveLength(4)
  expect(files()).toContain('pylon-live-of-somebody.age')
  const { made } = backupLog(store)
  expect(made.map(({ file }) => file)).toEqual(
    files()
      .filter((name) => !name.includes('somebody'))
      .map((name) => join(into, name)),
  )
  expect(await verifyBackup(home, 'live', String(made.at(-1)?.file), PASSPHRASE)).toMatchObject({ isOwn: true })
  expect(health()).toEqual({ state: 'ok' })
  expect(checkBackups({ home, network: 'live', store, clock, config })).toMatchObject({ state: 'ok' })
  writeFileSync(String(made.at(-1)?.file), 'cut')
  expect(checkBackups({ home, network: 'live', store, clock, config })).toMatchObject({ state: 'warning' })
})

it.each([
  ['before it was begun', () => {}],
  ['while it was written', (file: string) => writeFileSync(freshPathOf(file), 'half')],
])('a node that was killed %s leaves nothing behind', async (_when, make) => {
  const { begin, quiet, into, store, files, clock } = await scheduled()
  const file = join(into, 'pylon-live-killed.age')
  await noteBackups(store, { pending: { file, at: clock.now() - 1 }, made: [], failure: null }, 1)
  make(file)
  begin()
  await quiet()
  expect(files()).toHaveLength(1)
  expect(files()[0]).not.toContain('killed')
  expect(backupLog(store)).toMatchObject({ pending: null, made: [{}], failure: null })
})

it('one that was whole when the node was killed is known again, and deleted in its turn', async () => {
  const { begin, quiet, pass, into, store, files, clock, backup } = await scheduled()
  const file = await backup('backups/pylon-live-killed.age')
  await noteBackups(store, { pending: { file, at: clock.now() }, made: [], failure: { at: 1, message: 'before' } }, 1)
  begin()
  await quiet()
  expect(backupLog(store)).toMatchObject({ pending: null, made: [{ file }], failure: null })
  expect(files()).toEqual(['pylon-live-killed.age'])
  for (let hour = 0; hour < 3; hour++) await pass(HOUR_MS)
  expect(files()).toHaveLength(3)
  expect(files()).not.toContain('pylon-live-killed.age')
  expect(into).toBeDefined()
})

it('a folder that is gone is told, nothing is forgotten, and it goes on when that is back', async () => {
  const { begin, quiet, pass, into, store, files, health } = await scheduled()
  begin()
  await quiet()
  const [first] = files()
  rmSync(into, { recursive: true })
  await pass(HOUR_MS)
  expect(health()).toMatchObject({ state: 'degraded', reason: expect.stringContaining(`There is no folder ${into}`) })
  expect(backupLog(store).made).toMatchObject([{ file: join(into, String(first)) }])
  mkdirSync(into)
  await pass(20 * 60_000)
  expect(health()).toEqual({ state: 'ok' })
  expect(backupLog(store).made).toHaveLength(1)
  expect(files()).toHaveLength(1)
})

it('without anybody whom it is for none is written', async () => {
  const { begin, quiet, files, health } = await scheduled((dir) => `[backup]\ndir = "${dir}"`)
  begin()
  await quiet()
  expect(files()).toEqual([])
  expect(health()).toMatchObject({ state: 'degraded', reason: expect.stringContaining('--recipient') })
})

it('is off where no folder is named, and begins when one is', async () => {
  const { begin, quiet, pass, files, health, configure, into, dir } = await scheduled(() => '[backup]\nevery = "1h"')
  begin()
  await quiet()
  expect(health()).toMatchObject({ state: 'off' })
  configure(`[backup]\ndir = "${into}"\npassphrase_file = "${join(dir, 'pass')}"`)
  await pass(60_000)
  expect(files()).toHaveLength(1)
})
