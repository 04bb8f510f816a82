/** Makes a home usable and private, or says in words why it can't be. */
import { accessSync, constants, existsSync, mkdirSync, statfsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { messageOf, PylonError } from '../../base/errors.ts'
import { ensurePrivateDir } from '../../base/files.ts'
import { assertSocketPath, type Home } from '../../base/paths.ts'

/** Below this nothing is started: a database that can't write loses no money, but earns none. */
const MIN_FREE_BYTES = 1024 * 1024

/** @throws home_unusable, disk_full */
export function prepareHome(home: Home): void {
  assertSocketPath(home.socket)
  try {
    makeFolder(home.dir)
    ensurePrivateDir(home.dir)
    ensurePrivateDir(dirname(home.log))
    accessSync(home.dir, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (error) {
    throw unusable(home.dir, error)
  }
  if (freeBytes(home.dir) < MIN_FREE_BYTES) {
    throw new PylonError('disk_full', `The disk of ${home.dir} is full: free some space and start again.`)
  }
}

/** Step by step: asked to make a whole path, Node tries for ever where the kernel says ENOENT (below /proc), and hides EROFS. */
function makeFolder(path: string): void {
  if (existsSync(path)) return
  makeFolder(dirname(path))
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    // Another start was quicker.
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) throw error
  }
}

export function freeBytes(dir: string): number {
  const { bavail, bsize } = statfsSync(dir)
  return bavail * bsize
}

function unusable(dir: string, error: unknown): PylonError {
  const code = String((error as { code?: unknown }).code)
  const words: Record<string, string> = {
    ENOENT: 'no folder can be made there',
    EACCES: 'this user may not write there',
    EPERM: 'it belongs to another user',
    EROFS: 'the file system is read-only',
    ENOSPC: 'the disk is full',
    ENOTDIR: 'a part of the path is a file',
    EEXIST: 'a file of that name is in the way',
    ENAMETOOLONG: 'the path is too long',
  }
  const named = (error as { path?: unknown }).path
  const where = typeof named === 'string' && named !== dir ? ` (${named})` : ''
  return new PylonError(
    code === 'ENOSPC' ? 'disk_full' : 'home_unusable',
    `The home ${dir} can't be used: ${words[code] ?? messageOf(error)}${where}. Fix that, or set PYLON_HOME to another folder.`,
    { cause: error },
  )
}
