/**
 * Backups by the clock: one when the last is `backup.every` old, the newest `backup.keep` of them kept. Each is claimed before it
 * is written and noted when it is whole, so that a node that was killed in between knows its own files. Only those are deleted,
 * and only after a newer one was made.
 */
import { existsSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { rfc3339 } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { lengthMs } from '../../base/lengths.ts'
import type { Logger } from '../../base/logger.ts'
import type { Home } from '../../base/paths.ts'
import type { Scope } from '../../base/scope.ts'
import type { Store } from '../../store/store.ts'
import { type Health, OK } from '../health.ts'
import { lockFor } from './backup-lock.ts'
import { type BackupLog, backupLog, type MadeBackup, noteBackups } from './backup-log.ts'
import { freshPathOf, writeBackup } from './write-backup.ts'

interface Deps {
  readonly scope: Scope
  readonly home: Home
  readonly network: 'sandbox' | 'live'
  readonly store: Store
  readonly logger: Logger
  /** Of the node; a part of it is in the names of the files. */
  readonly npub: string
  config(): Config
  /** See `BackupOrder`. */
  readonly workFactor?: number
}

const LOOK_MS = 60_000
const RETRY_MS = 10 * 60_000
const DAY_MS = 24 * 3600_000

export class ScheduledBackups {
  readonly #deps: Deps

  constructor(deps: Deps) {
    this.#deps = deps
  }

  start(): void {
    const { scope } = this.#deps
    const look = () => this.#look()
    scope.spawn('backup', look)
    scope.every('backup', LOOK_MS, look)
  }

  /** Takes a changed configuration at once. */
  async reload(): Promise<void> {
    this.#deps.scope.spawn('backup', () => this.#look())
  }

  async #look(): Promise<void> {
    await this.#deps.scope.once('backup', async () => {
      const log = await this.#settlePending()
      if (this.#isDue(log)) await this.#make(log)
    })
  }

  #isDue({ made, failure }: BackupLog): boolean {
    const { config, scope } = this.#deps
    if (config().backup.dir === '') return false
    const now = scope.clock.now()
    const since = (at: number | undefined) => (at === undefined || at > now ? Number.POSITIVE_INFINITY : now - at)
    return since(made.at(-1)?.at) >= everyMs(config()) && since(failure?.at) >= Math.min(RETRY_MS, everyMs(config()))
  }

  /** What a former process had claimed: it is whole where it has its name, and what is not goes. */
  async #settlePending(): Promise<BackupLog> {
    const { store, scope } = this.#deps
    const log = backupLog(store)
    if (log.pending === null) return log
    const { file, at } = log.pending
    rmSync(freshPathOf(file), { force: true })
    const found = statSync(file, { throwIfNoEntry: false })
    const settled =
      found === undefined
        ? { ...log, pending: null }
        : { pending: null, made: [...log.made, { file, bytes: found.size, at }], failure: null }
    await noteBackups(store, settled, scope.clock.now())
    return settled
  }

  async #make(log: BackupLog): Promise<void> {
    const { store, scope, home, network, logger, config, workFactor } = this.#deps
    const at = scope.clock.now()
    try {
      const { dir } = config().backup
      if (!existsSync(dir)) throw new PylonError('backup_failed', `There is no folder ${dir} for backups: is its disk mounted?`)
      const file = join(dir, this.#nameAt(at))
      const lock = lockFor({}, config())
      await noteBackups(store, { ...log, pending: { file, at } }, at)
      const order = { home, network, store, target: file, lock, nowMs: at, signal: scope.signal }
      const bytes = await writeBackup({ ...order, ...given({ workFactor }) })
      const made = [...log.made, { file, bytes, at }]
      await noteBackups(store, { pending: null, made, failure: null }, at)
      logger.info({ file, bytes }, 'a backup was made')
      await noteBackups(store, { pending: null, made: this.#prune(made), failure: null }, at)
    } catch (error) {
      logger.error({ reason: messageOf(error) }, 'the scheduled backup failed')
      // What was claimed stays so: the next look sees what became of it.
      await noteBackups(store, { ...backupLog(store), failure: { at, message: messageOf(error) } }, at)
    }
  }

  #nameAt(at: number): string {
    return `pylon-${this.#deps.network}-${this.#deps.npub.slice(5, 13)}-${rfc3339(at).replace(/[:.]/g, '-')}.age`
  }

  /** @returns those that are there still, or that can't be looked at now. */
  #prune(made: readonly MadeBackup[]): MadeBackup[] {
    const { config, logger } = this.#deps
    // What somebody changed is not ours to delete; on a disk that is not mounted it may come back.
    const ours = made.filter(({ file, bytes }) => !existsSync(dirname(file)) || statSync(file, { throwIfNoEntry: false })?.size === bytes)
    const kept = new Set(ours.filter(({ file }) => existsSync(file)).slice(-config().backup.keep))
    return ours.filter((one) => {
      if (kept.has(one) || !existsSync(one.file)) return true
      try {
        rmSync(one.file)
        return false
      } catch (error) {
        logger.warn({ file: one.file, reason: messageOf(error) }, 'an old backup could not be deleted')
        return true
      }
    })
  }
}

const everyMs = (config: Config): number => lengthMs(config.backup.every) ?? DAY_MS

export function backupsHealth(store: Store, config: Config): Health {
  if (config.backup.dir === '') {
    return {
      state: 'off',
      reason: 'backup.dir is not set',
      nextStep: 'pylon config set backup.dir FOLDER, and backup.recipient or backup.passphrase_file',
    }
  }
  const { failure } = backupLog(store)
  if (failure === null) return OK
  return { state: 'degraded', reason: `backup_failed: ${failure.message}`, nextStep: 'mend what it names; it is tried again by itself' }
}
