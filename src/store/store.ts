/** The database of a node: synchronous reads, and one queue through which every write goes. */
import Sqlite, { type Database } from 'better-sqlite3'
import { addonError } from '../base/assets.ts'
import { type Clock, systemClock } from '../base/clock.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import { type Command, labelsOf, runCommand, type Sql, sqlOver } from './commands.ts'
import { assertNotNewer, type Migration, migrate, readMigrations, schemaVersion } from './migrations.ts'

/** Called around a commit with the labels of the commands in it; tests hang fault points here. */
export interface CommitHook {
  beforeCommit?(labels: readonly string[]): void
  afterCommit?(labels: readonly string[]): void
}

export type StoreHealth = { readonly state: 'ok' } | { readonly state: 'degraded'; readonly reason: string; readonly nextStep: string }

export interface StoreOptions {
  readonly readonly?: boolean
  readonly hook?: CommitHook
  readonly clock?: Clock
}

interface Pending {
  readonly command: Command<unknown>
  resolve(value: unknown): void
  reject(error: unknown): void
}

type Outcome = { ok: true; value: unknown } | { ok: false; error: unknown }

/** Commands in one transaction at most: bounds how long the loop is held. */
const MAX_BATCH = 256
/** The write-ahead log is cut to this when it begins anew. */
const MAX_WAL_BYTES = 4_194_304
/** How long a start waits for another program that holds a lock. */
const BUSY_OPENING_MS = 5000
/** How long writes wait for it while the node runs, and how often they try. */
const MAX_BUSY_MS = 30_000
const BUSY_RETRY_MS = 50
const SHRINK_FROM_PAGES = 256
const SHRINK_SLICE_PAGES = 128
/** A larger database of an older Pylon keeps its form: to rewrite it would hold up the start. */
const MAX_REWRITE_PAGES = 65_536

export class Store {
  /** Prepared, cached statements for reading. Writing through it is a fault. */
  readonly sql: Sql
  readonly #db: Database
  readonly #hook: CommitHook
  readonly #clock: Clock
  readonly #queue: Pending[] = []
  #scheduled = false
  #busySince: number | undefined
  #isClosing = false
  #closed = false
  #commits = 0
  #health: StoreHealth = { state: 'ok' }

  private constructor(db: Database, { hook = {}, clock = systemClock }: StoreOptions) {
    this.#db = db
    this.#hook = hook
    this.#clock = clock
    this.sql = sqlOver(db)
  }

  /** Opens, checks and migrates; what is opened read-only is migrated in memory where it is older. @throws database_newer, database_corrupt, disk_full. */
  static open(path: string, options: StoreOptions = {}): Store {
    let db: Database | undefined
    try {
      db = new Sqlite(path, { readonly: options.readonly ?? false, fileMustExist: options.readonly ?? false })
      db.defaultSafeIntegers(true)
      db.pragma('foreign_keys = ON')
      db.pragma('trusted_schema = OFF')
      db.pragma(`busy_timeout = ${BUSY_OPENING_MS}`)
      // What a savepoint would need to undo a command; in a file it costs more system calls than the commit itself.
      db.pragma('temp_store = MEMORY')
      const migrations = readMigrations()
      if (options.readonly) {
        assertNotNewer(db, migrations)
        if (schemaVersion(db) < migrations.length) db = migratedCopy(db, migrations)
      } else {
        // Before anything is written: what is freed later can then be given back to the disk a little at a time.
        db.pragma('auto_vacuum = INCREMENTAL')
        db.pragma('journal_mode = WAL')
        db.pragma('synchronous = FULL')
        db.pragma(`journal_size_limit = ${MAX_WAL_BYTES}`)
        migrate(db, path, migrations)
        makeShrinkable(db)
      }
      // From here on a foreign lock must hold up nothing but the writes that wait for it.
      if (!options.readonly) db.pragma('busy_timeout = 0')
      return new Store(db, options)
    } catch (error) {
      db?.close()
      throw storeError(error)
    }
  }

  /** How many were made since it was opened: while it stays the same, so does all that is stored. */
  get commits(): number {
    return this.#commits
  }

  get path(): string {
    return this.#db.name
  }

  /** Also what was opened read-only and is older: nothing of it as it is read here is in the file. */
  get isInMemory(): boolean {
    return this.#db.memory
  }

  get health(): StoreHealth {
    return this.#health
  }

  /** Runs a command in the next commit; resolves once it is on disk, rejects (with nothing changed) when its handler threw. */
  write<R>(command: Command<R>): Promise<R> {
    if (this.#closed) return Promise.reject(new PylonError('shutting_down', 'The store is closed.'))
    return new Promise<R>((resolve, reject) => {
      this.#queue.push({ command, resolve: resolve as (value: unknown) => void, reject })
      this.#schedule()
    })
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#flush()
    })
  }

  #flush(): void {
    const batch = this.#queue.splice(0, MAX_BATCH)
    if (this.#queue.length > 0) this.#schedule()
    if (batch.length === 0) return
    try {
      const labels = batch.flatMap((pending) => labelsOf(pending.command))
      const outcomes = this.#commit(batch, labels)
      this.#tellOf(labels)
      this.#health = { state: 'ok' }
      batch.forEach((pending, index) => {
        const outcome = outcomes[index] as Outcome
        if (outcome.ok) pending.resolve(outcome.value)
        else pending.reject(storeError(outcome.error))
      })
      this.#busySince = undefined
    } catch (error) {
      const failure = storeError(error)
      if (failure.code === 'database_busy' && this.#waitsFor(failure)) {
        // Nothing has happened: the same commands, in the same order, once the lock is gone.
        this.#queue.unshift(...batch)
        return
      }
      if (failure.code === 'disk_full') this.#health = { state: 'degraded', reason: failure.message, nextStep: 'free some disk space' }
      for (const pending of batch) pending.reject(failure)
    }
  }

  /** Whether writes go on waiting for the lock of another program; when they do, the next try is set. */
  #waitsFor({ message }: PylonError): boolean {
    this.#health = { state: 'degraded', reason: message, nextStep: 'end that program' }
    this.#busySince ??= this.#clock.elapsedMs()
    if (this.#closed || this.#isClosing || this.#clock.elapsedMs() - this.#busySince > MAX_BUSY_MS) return false
    if (this.#scheduled) return true
    this.#scheduled = true
    this.#clock.after(BUSY_RETRY_MS, () => {
      this.#scheduled = false
      this.#flush()
    })
    return true
  }

  /** What is on disk is so, whatever a listener makes of it: nobody may take it for undone. */
  #tellOf(labels: readonly string[]): void {
    try {
      this.#hook.afterCommit?.(labels)
    } catch {
      // The commit stands: a hook, which only faults and logs hang on, can't undo it.
    }
  }

  #commit(batch: readonly Pending[], labels: readonly string[]): Outcome[] {
    this.sql('BEGIN IMMEDIATE').run()
    try {
      const outcomes = batch.map((pending) => this.#runOne(pending.command))
      this.#hook.beforeCommit?.(labels)
      this.sql('COMMIT').run()
      this.#commits++
      return outcomes
    } catch (error) {
      if (this.#db.inTransaction) this.#db.exec('ROLLBACK')
      throw error
    }
  }

  #runOne(command: Command<unknown>): Outcome {
    this.sql('SAVEPOINT command').run()
    try {
      const value = runCommand(this.sql, command)
      this.sql('RELEASE command').run()
      return { ok: true, value }
    } catch (error) {
      // A full disk or an I/O fault may have ended the whole transaction: then nobody's command happened.
      if (!this.#db.inTransaction) throw error
      this.sql('ROLLBACK TO command').run()
      this.sql('RELEASE command').run()
      return { ok: false, error }
    }
  }

  /** Gives free pages back to the disk, once they are many; in slices, so that nothing is held up. */
  async shrink(): Promise<void> {
    const free = () => (this.#closed ? 0 : Number(this.#db.pragma('freelist_count', { simple: true })))
    if (free() < SHRINK_FROM_PAGES) return
    try {
      for (let before = Number.POSITIVE_INFINITY, now = free(); now > 0 && now < before; before = now, now = free()) {
        this.#db.pragma(`incremental_vacuum(${SHRINK_SLICE_PAGES})`)
        await new Promise((resolve) => setImmediate(resolve))
      }
      // The file itself gets shorter when the log is written back.
      if (!this.#closed) this.#db.pragma('wal_checkpoint(PASSIVE)')
    } catch (error) {
      // Somebody else holds a lock: what is free stays free until the next time.
      if (storeError(error).code !== 'database_busy') throw error
    }
  }

  /** A consistent copy while the node runs. */
  async backup(path: string): Promise<void> {
    await this.#db.backup(path)
  }

  /** Writes what is queued, checkpoints the WAL and closes. */
  close(): void {
    if (this.#closed) return
    // The last that is to be written is worth a wait.
    this.#isClosing = true
    if (!this.#db.readonly) this.#db.pragma(`busy_timeout = ${BUSY_OPENING_MS}`)
    while (this.#queue.length > 0) this.#flush()
    this.#closed = true
    if (!this.#db.readonly) {
      this.#tidy()
    }
    this.#db.close()
  }

  /** Good for the next start, and no condition of the end. */
  #tidy(): void {
    try {
      this.#db.pragma('optimize')
      this.#db.pragma('wal_checkpoint(TRUNCATE)')
    } catch {
      // Somebody holds a lock, or the file is gone: the log is written back at the next start.
    }
  }
}

/** What an older Pylon left, in memory as this one reads it: the file itself is migrated when a node starts. */
function migratedCopy(db: Database, migrations: readonly Migration[]): Database {
  const bytes = db.serialize()
  db.close()
  // The log is in what was copied, and memory has none (SQLite file format: write and read version).
  bytes.fill(1, 18, 20)
  const copy = new Sqlite(bytes)
  copy.defaultSafeIntegers(true)
  migrate(copy, ':memory:', migrations)
  copy.pragma('query_only = ON')
  return copy
}

/** A database that was made before this setting takes it by being written anew, once. */
function makeShrinkable(db: Database): void {
  if (Number(db.pragma('auto_vacuum', { simple: true })) === 2 || Number(db.pragma('page_count', { simple: true })) > MAX_REWRITE_PAGES)
    return
  try {
    db.exec('VACUUM')
  } catch {
    // No room for the copy: it stays as it is, and is as good as before.
  }
}

function storeError(error: unknown): PylonError {
  if (error instanceof PylonError) return error
  const code = (error as { code?: unknown }).code
  if (code === 'SQLITE_FULL' || code === 'ENOSPC') {
    return new PylonError('disk_full', 'The disk is full: nothing was written; free space and the node goes on.', { cause: error })
  }
  const kind = typeof code === 'string' ? code.split('_').slice(0, 2).join('_') : ''
  if (kind === 'SQLITE_BUSY' || kind === 'SQLITE_LOCKED') {
    const words = 'Another program holds a lock on the database (a sqlite3 shell, a copy that is being made): end it, and the node goes on.'
    return new PylonError('database_busy', words, { cause: error })
  }
  if (['SQLITE_CANTOPEN', 'SQLITE_READONLY', 'SQLITE_PERM', 'SQLITE_IOERR'].includes(kind)) {
    const words = `The database can't be used (${messageOf(error)}): check that it is a file, its owner and rights, and its file system.`
    return new PylonError('home_unusable', words, { cause: error })
  }
  if (kind === 'SQLITE_CORRUPT' || kind === 'SQLITE_NOTADB') {
    return new PylonError(
      'database_corrupt',
      `The database does not open (${messageOf(error)}): restore a backup with pylon restore PATH.`,
      { cause: error },
    )
  }
  return addonError(error) ?? new PylonError('internal', messageOf(error), { cause: error })
}
