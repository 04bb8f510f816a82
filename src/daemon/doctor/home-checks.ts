/** Checks of doctor that need no node: this machine, the home and its files. */
import { accessSync, constants, existsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { howToStart } from '../../base/advice.ts'
import { loadConfig } from '../../base/config.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { Home } from '../../base/paths.ts'
import { isProtected, readIdentity } from '../../nostr/keys/identity.ts'
import { inspect } from '../../store/inspection.ts'
import { freeBytes } from '../home/prepare-home.ts'
import type { ReadServices } from '../services.ts'
import { type Check, failed, ok, skipped, warning } from './check.ts'

const LOW_DISK_BYTES = 200 * 1024 * 1024
const FULL_DISK_BYTES = 1_000_000
const MIN_NODE = [22, 19] as const
const RESTORE = 'pylon stop, then: pylon restore PATH --force'

export function checkNodeVersion(): Check {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const isNew = major > MIN_NODE[0] || (major === MIN_NODE[0] && minor >= MIN_NODE[1])
  const message = `Node ${process.versions.node} on ${process.platform}-${process.arch}`
  return isNew ? ok('runtime', message) : failed('runtime', message, `Use Node ${MIN_NODE.join('.')} or newer.`)
}

export function checkHome({ home, network }: ReadServices): Check[] {
  const found = statSync(home.dir, { throwIfNoEntry: false })
  if (found === undefined) return [skipped('home', `There is no ${home.dir} yet.`, howToStart(network))]
  if (!found.isDirectory()) return [failed('home', `${home.dir} is no folder.`, 'Move it away, or set PYLON_HOME to another folder.')]
  const problems = [
    ...privacyOf(home),
    ...shapeOf(home),
    ...(canWrite(home.dir) ? [] : [failed('home', `${home.dir} cannot be written to.`, 'Mend its owner, rights or file system.')]),
  ]
  return problems.length === 0 ? [ok('home', `${home.dir} is private.`)] : problems
}

function privacyOf({ dir }: Home): Check[] {
  const mode = statSync(dir).mode & 0o777
  return (mode & 0o077) === 0 ? [] : [failed('home', `${dir} is open to others (mode ${mode.toString(8)}).`, `chmod 700 ${dir}`)]
}

/** What is a folder and should be a file, or the other way round. */
function shapeOf(home: Home): Check[] {
  const files = [home.identity, home.database, home.config, home.lease, home.log, home.pidFile].filter(
    (path) => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true,
  )
  const logs = statSync(dirname(home.log), { throwIfNoEntry: false })
  return [
    ...files.map((path) => failed('home', `${path} is a folder where a file belongs.`, `Move it away: mv ${path} ${path}.old`)),
    ...(logs !== undefined && !logs.isDirectory() ? [failed('home', `${dirname(home.log)} is no folder.`, 'Move it away.')] : []),
  ]
}

function canWrite(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK)
    return true
  } catch {
    // That is the finding.
    return false
  }
}

export function checkDisk({ home }: Pick<ReadServices, 'home'>): Check {
  const free = freeBytes(home.dir)
  const message = `${Math.floor(free / 1024 / 1024)} MB are free.`
  if (free >= LOW_DISK_BYTES) return ok('disk', message)
  return (free < FULL_DISK_BYTES ? failed : warning)('disk', message, 'Free some space: a full disk stops the node from taking work.')
}

export function checkConfig({ home }: ReadServices): Check {
  try {
    loadConfig(home.config)
    return ok('config', `${home.config} is valid.`)
  } catch (error) {
    return failed('config', messageOf(error), `Mend it, or move it away: ${home.config}`)
  }
}

export function checkIdentity({ home }: ReadServices): Check {
  try {
    const identity = readIdentity(home.identity)
    if (identity === undefined) return failed('identity', 'There is no identity.', 'pylon init')
    const protection = isProtected(identity) ? 'under a passphrase' : 'in clear in a private file'
    const where = identity.bunker === undefined ? '' : ' at a bunker (remote keys says how that is)'
    return ok('identity', `${identity.npub}${where}, ${identity.bunker === undefined ? 'its keys' : 'all others'} ${protection}.`)
  } catch (error) {
    // Open to others is a matter of the mode, which its own words and the check of the home say how to mend.
    const isOpen = ((statSync(home.identity, { throwIfNoEntry: false })?.mode ?? 0) & 0o077) !== 0
    return failed('identity', messageOf(error), isOpen ? `chmod 600 ${home.identity}` : 'pylon restore PATH')
  }
}

export async function checkDatabase(read: ReadServices): Promise<Check> {
  if (!existsSync(read.home.database)) return skipped('database', 'There is none yet.', howToStart(read.network))
  try {
    const { store } = read
    if (store.health.state !== 'ok') return failed('database', store.health.reason, store.health.nextStep)
    const { damage, orphans } = await inspect(store, 'file')
    if (damage.length === 0 && orphans === 0) return ok('database', 'The database is whole.')
    return failed('database', damage.length === 0 ? `${orphans} rows point to nothing.` : damage.join('; '), RESTORE)
  } catch (error) {
    const isDamaged = isPylonError(error, 'database_corrupt') || String((error as { code?: unknown }).code).startsWith('SQLITE_CORRUPT')
    if (isDamaged) return failed('database', messageOf(error), RESTORE)
    if (isPylonError(error, 'database_newer')) return failed('database', messageOf(error), 'Install the Pylon that wrote it.')
    return failed('database', messageOf(error), 'Mend what it names, then: pylon doctor')
  }
}
