/** Puts this program where guests of Incus can read it: a versioned, world-readable folder, never the home. */
import { chmodSync, copyFileSync, cpSync, existsSync, lstatSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { isSea } from 'node:sea'
import { messageOf, PylonError } from '../../base/errors.ts'
import { guestProgram } from '../launch/guest-program.ts'

/**
 * Fills `<dir>` so that `<dir>/pylon guest` runs; a folder that is there already is replaced whole.
 * @throws home_unusable where the folder can't be written
 */
export function installGuest(dir: string): void {
  const fresh = `${dir}.${process.pid}.new`
  const old = `${dir}.${process.pid}.old`
  try {
    openUp(mkdirSync(dirname(dir), { recursive: true }), dirname(dir))
    rmSync(fresh, { recursive: true, force: true })
    mkdirSync(fresh, { recursive: true })
    fill(fresh, dir)
    makeReadable(fresh)
    if (existsSync(dir)) renameSync(dir, old)
    renameSync(fresh, dir)
  } catch (error) {
    throw new PylonError(
      'home_unusable',
      `The guest program could not be put to ${dir} (${messageOf(error)}): run this as a user who may write there, or set runtimes.incus.guest_dir.`,
      { cause: error },
    )
  } finally {
    for (const left of [fresh, old]) rmSync(left, { recursive: true, force: true })
  }
}

function fill(into: string, dir: string): void {
  const { command, readOnlyPaths } = guestProgram()
  if (isSea()) {
    copyFileSync(command, join(into, 'pylon'))
    return
  }
  const [, bundle] = readOnlyPaths
  const script = basename(process.argv[1] ?? '')
  if (bundle === undefined || script === 'main.ts') {
    throw new PylonError('runtime_unsupported', 'A guest needs the built program: run npm run build, or install Pylon.')
  }
  copyFileSync(command, join(into, 'node'))
  cpSync(bundle, join(into, 'dist'), { recursive: true })
  writeFileSync(join(into, 'pylon'), `#!/bin/sh\nexec ${dir}/node ${dir}/dist/${script} "$@"\n`)
}

/** Folders made on the way, whatever the umask (a daemon's lets nobody else in). */
function openUp(first: string | undefined, last: string): void {
  if (first === undefined) return
  for (let dir = last; dir.startsWith(first); dir = dirname(dir)) chmodSync(dir, 0o755)
}

/** Files may be run by everybody where their owner may, folders entered. */
function makeReadable(path: string): void {
  const isFolder = lstatSync(path).isDirectory()
  chmodSync(path, isFolder || ['pylon', 'node'].includes(basename(path)) ? 0o755 : 0o644)
  if (isFolder) for (const name of readdirSync(path)) makeReadable(join(path, name))
}
