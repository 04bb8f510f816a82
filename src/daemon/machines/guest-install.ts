/** Puts this program where guests of Incus can read it: a versioned, world-readable folder, never the home. */
import { chmod, copyFile, cp, lstat, mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { isSea } from 'node:sea'
import { messageOf, PylonError } from '../../base/errors.ts'
import { guestProgram } from '../launch/guest-program.ts'

/**
 * Fills `<dir>` so that `<dir>/pylon guest` runs; a folder that is there already is replaced whole.
 * @throws home_unusable where the folder can't be written
 */
export async function installGuest(dir: string): Promise<void> {
  const fresh = `${dir}.${process.pid}.new`
  const old = `${dir}.${process.pid}.old`
  try {
    await openUp(await mkdir(dirname(dir), { recursive: true }), dirname(dir))
    await rm(fresh, { recursive: true, force: true })
    await mkdir(fresh, { recursive: true })
    await fill(fresh, dir)
    await makeReadable(fresh)
    await rename(dir, old).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    })
    await rename(fresh, dir)
  } catch (error) {
    throw new PylonError(
      'home_unusable',
      `The guest program could not be put to ${dir} (${messageOf(error)}): run this as a user who may write there, or set runtimes.incus.guest_dir.`,
      { cause: error },
    )
  } finally {
    for (const left of [fresh, old]) await rm(left, { recursive: true, force: true })
  }
}

async function fill(into: string, dir: string): Promise<void> {
  const { command, readOnlyPaths } = guestProgram()
  if (isSea()) {
    await copyFile(command, join(into, 'pylon'))
    return
  }
  const [, bundle] = readOnlyPaths
  const script = basename(process.argv[1] ?? '')
  if (bundle === undefined || script === 'main.ts') {
    throw new PylonError('runtime_unsupported', 'A guest needs the built program: run npm run build, or install Pylon.')
  }
  await copyFile(command, join(into, 'node'))
  await cp(bundle, join(into, 'dist'), { recursive: true })
  await writeFile(join(into, 'pylon'), `#!/bin/sh\nexec ${dir}/node ${dir}/dist/${script} "$@"\n`)
}

/** Folders made on the way, whatever the umask (a daemon's lets nobody else in). */
async function openUp(first: string | undefined, last: string): Promise<void> {
  if (first === undefined) return
  for (let dir = last; dir.startsWith(first); dir = dirname(dir)) await chmod(dir, 0o755)
}

/** Files may be run by everybody where their owner may, folders entered. */
async function makeReadable(path: string): Promise<void> {
  const isFolder = (await lstat(path)).isDirectory()
  await chmod(path, isFolder || ['pylon', 'node'].includes(basename(path)) ? 0o755 : 0o644)
  if (isFolder) for (const name of await readdir(path)) await makeReadable(join(path, name))
}
