/** A home that can't be used is refused in words, at once; a backup that is none likewise. */
import { existsSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { homeAt } from '../../../src/base/paths.ts'
import { restoreHome } from '../../../src/daemon/offline/restore.ts'
import { prepareHome } from '../../../src/daemon/prepare-home.ts'
import { tempDir } from '../../support/temp.ts'

test('a home is made with the folders above it, private', () => {
  const dir = join(tempDir(), 'a', 'b')
  prepareHome(homeAt(dir))
  prepareHome(homeAt(dir))
  expect(statSync(dir).mode & 0o777).toBe(0o700)
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
  await expect(restoreHome(homeAt(join(dir, 'home')), 'live', join(dir, 'backup'), false)).rejects.toMatchObject({
    code: 'restore_refused',
  })
  await expect(restoreHome(homeAt(join(dir, 'home')), 'live', join(dir, 'x'.repeat(300)), false)).rejects.toMatchObject({
    code: 'restore_refused',
  })
})
