/** A home that can't be used is refused in words, at once; a backup that is none likewise. */
import { cpSync, existsSync, mkdirSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { toPylonError } from '../../../src/base/errors.ts'
import { readFileIfAny, writeFileAtomic } from '../../../src/base/files.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { homeAt } from '../../../src/base/paths.ts'
import { watchHome } from '../../../src/daemon/home/home-watch.ts'
import { writePidFile } from '../../../src/daemon/home/pidfile.ts'
import { prepareHome } from '../../../src/daemon/home/prepare-home.ts'
import { restoreHome } from '../../../src/daemon/offline/restore.ts'
import { testScope } from '../../support/scope.ts'
import { tempDir } from '../../support/temp.ts'

test('a home is made with the folders above it, private', () => {
  const dir = join(tempDir(), 'a', 'b')
  prepareHome(homeAt(dir))
  prepareHome(homeAt(dir))
  expect(statSync(dir).mode & 0o777).toBe(0o700)
})

test.each([
  ['is deleted', (dir: string) => rmSync(dir, { recursive: true })],
  ['is moved', (dir: string) => renameSync(dir, `${dir}.moved`)],
  ['is replaced', replace],
  ['loses its database', (dir: string) => rmSync(join(dir, 'pylon.db'))],
])('a home that %s ends its node, once', async (_what, lose) => {
  const { home, clock, lost } = await watched()
  await clock.advance(10_000)
  expect(lost).toEqual([])
  lose(home.dir)
  await clock.advance(10_000)
  expect(lost).toHaveLength(1)
})

test('a socket and a pid file that were deleted are made again', async () => {
  const { home, clock, lost, socket } = await watched()
  rmSync(home.pidFile)
  socket.state = 'gone'
  await clock.advance(10_000)
  await vi.waitFor(() => expect([socket.state, existsSync(home.pidFile)]).toEqual(['ours', true]))
  expect(lost).toEqual([])
})

function replace(dir: string): void {
  renameSync(dir, `${dir}.old`)
  cpSync(`${dir}.old`, dir, { recursive: true })
}

async function watched() {
  const home = homeAt(join(tempDir(), 'home'))
  prepareHome(home)
  for (const path of [home.database, home.lease]) writeFileSync(path, '')
  writePidFile(home)
  const clock = new ManualClock()
  const lost: string[] = []
  const socket: { state: 'ours' | 'gone' } = { state: 'ours' }
  const server = { socketState: () => socket.state, listenAgain: async () => void Object.assign(socket, { state: 'ours' }) }
  const scope = testScope(clock)
  watchHome({ scope, home, logger: silentLogger, server, onLost: (reason) => lost.push(reason) })
  onTestFinished(async () => void (await scope.close()))
  return { home, clock, lost, socket }
}

test('what the system says of a file is told in words, what is a bug is not', () => {
  const dir = tempDir()
  const error = (work: () => unknown) => {
    try {
      return work()
    } catch (thrown) {
      return toPylonError(thrown)
    }
  }
  mkdirSync(join(dir, 'folder'))
  expect(error(() => readFileIfAny(join(dir, 'folder')))).toMatchObject({
    code: 'home_unusable',
    message: expect.stringMatching(/folder can't be used: it is a folder/),
  })
  expect(error(() => writeFileAtomic(join(dir, 'folder'), 'x'))).toMatchObject({ code: 'home_unusable' })
  expect(error(() => readFileIfAny(join(dir, 'x'.repeat(300))))).toMatchObject({
    code: 'home_unusable',
    message: expect.stringContaining('too long'),
  })
  expect(toPylonError(Object.assign(new Error('no'), { code: 'ECONNREFUSED', syscall: 'connect' })).code).toBe('internal')
  expect(toPylonError(new TypeError('undefined is no function')).code).toBe('internal')
})

test('where no folder can be made it is refused, and nothing is tried for ever', { skip: !existsSync('/proc/self') }, () => {
  expect(() => prepareHome(homeAt('/proc/pylon/home'))).toThrow(expect.objectContaining({ code: 'home_unusable' }))
})

test('a file or a dead link in the way is refused', () => {
  const dir = tempDir()
  writeFileSync(join(dir, 'file'), '')
  symlinkSync(join(dir, 'nowhere'), join(dir, 'link'))
  for (const path of ['file', 'file/home', 'link', 'link/home']) {
    expect(() => prepareHome(homeAt(join(dir, path))), path).toThrow(expect.objectContaining({ code: 'home_unusable' }))
  }
})

test.each([
  ['a file', (path: string) => writeFileSync(path, '{}')],
  ['a folder of something else', (path: string) => mkdirSync(path)],
  ['nothing', () => undefined],
])('a backup that is %s is refused', async (_name, make) => {
  const dir = tempDir()
  make(join(dir, 'backup'))
  await expect(
    restoreHome({ home: homeAt(join(dir, 'home')), network: 'live', from: join(dir, 'backup'), force: false }),
  ).rejects.toMatchObject({
    code: 'restore_refused',
  })
  await expect(
    restoreHome({ home: homeAt(join(dir, 'home')), network: 'live', from: join(dir, 'x'.repeat(300)), force: false }),
  ).rejects.toMatchObject({
    code: 'restore_refused',
  })
})
