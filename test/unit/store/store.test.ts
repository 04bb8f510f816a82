import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { describe, expect, it, vi } from 'vitest'
import { PylonError } from '../../../src/base/errors.ts'
import { all, defineCommand } from '../../../src/store/commands.ts'
import { migrate, readMigrations } from '../../../src/store/migrations.ts'
import { getSetting, putSetting } from '../../../src/store/settings.ts'
import { Store } from '../../../src/store/store.ts'
import { tempDir } from '../../support/temp.ts'

const failing = defineCommand('test_failing', () => {
  throw new PylonError('conflict', 'no')
})
const labelled = defineCommand(
  'test_labelled',
  (_sql, p: { to: string }) => p.to,
  (p) => `test_labelled:${p.to}`,
)
const put = (key: string, value: unknown) => putSetting({ key, value, at: 1 })

describe('the write queue', () => {
  it('commits what gathered in one transaction and keeps it over a reopen', async () => {
    const path = join(tempDir(), 'a.db')
    const commits: string[][] = []
    const store = Store.open(path, { hook: { afterCommit: (labels) => void commits.push([...labels]) } })
    await Promise.all([store.write(put('a', 1)), store.write(put('b', 2)), store.write(labelled({ to: 'ready' }))])
    expect(commits).toEqual([['put_setting', 'put_setting', 'test_labelled:ready']])
    store.close()
    const again = Store.open(path)
    expect(getSetting(again, 'a')).toBe(1)
    expect(getSetting(again, 'b')).toBe(2)
    again.close()
  })

  it('undoes only the command that failed', async () => {
    const store = Store.open(join(tempDir(), 'a.db'))
    const outcomes = await Promise.allSettled([
      store.write(put('a', 1)),
      store.write(all(put('b', 2), failing(undefined))),
      store.write(put('c', 3)),
    ])
    expect(outcomes.map((outcome) => outcome.status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect([getSetting(store, 'a'), getSetting(store, 'b'), getSetting(store, 'c')]).toEqual([1, undefined, 3])
    store.close()
  })

  it('undoes a command that had changed many pages, and nothing else of its commit', async () => {
    const store = Store.open(join(tempDir(), 'a.db'))
    const many = (value: string) => Array.from({ length: 300 }, (_, n) => put(`key ${n}`, `${value} ${n} `.padEnd(2000, '.')))
    const [before] = await Promise.allSettled([store.write(all(...many('first'))), store.write(all(...many('second'), failing(undefined)))])
    expect(before?.status).toBe('fulfilled')
    for (let n = 0; n < 300; n++) expect(getSetting(store, `key ${n}`)).toMatch(/^first /)
    store.close()
  })

  it('changes nothing and rejects everybody when the commit itself fails', async () => {
    const store = Store.open(join(tempDir(), 'a.db'), {
      hook: {
        beforeCommit: (labels) => {
          if (labels.includes('test_labelled:boom')) throw Object.assign(new Error('full'), { code: 'SQLITE_FULL' })
        },
      },
    })
    const outcomes = await Promise.allSettled([store.write(put('a', 1)), store.write(labelled({ to: 'boom' }))])
    expect(outcomes.map((outcome) => (outcome.status === 'rejected' ? (outcome.reason as PylonError).code : 'ok'))).toEqual([
      'disk_full',
      'disk_full',
    ])
    expect(getSetting(store, 'a')).toBeUndefined()
    expect(store.health.state).toBe('degraded')
    await store.write(put('a', 2))
    expect(store.health.state).toBe('ok')
    store.close()
  })

  it('waits for the lock of another program, in order, without holding up anything else', async () => {
    const path = join(tempDir(), 'a.db')
    const store = Store.open(path)
    const other = new Sqlite(path)
    other.exec('BEGIN IMMEDIATE')
    const order: string[] = []
    const writes = [put('a', 1), put('a', 2), put('b', 3)].map((command, n) => store.write(command).then(() => order.push(String(n))))
    await vi.waitFor(() => expect(store.health).toMatchObject({ state: 'degraded', reason: expect.stringContaining('Another program') }))
    expect(order).toEqual([])
    expect(getSetting(store, 'a')).toBeUndefined()
    other.exec('ROLLBACK')
    other.close()
    await Promise.all(writes)
    expect([order, getSetting(store, 'a'), getSetting(store, 'b'), store.health.state]).toEqual([['0', '1', '2'], 2, 3, 'ok'])
    store.close()
  })

  it('opens no folder, in words', () => {
    expect(() => Store.open(tempDir())).toThrow(
      expect.objectContaining({ code: 'home_unusable', message: expect.stringContaining('is a file') }),
    )
  })

  it('takes nothing for undone because a listener failed after the commit', async () => {
    const store = Store.open(join(tempDir(), 'a.db'), {
      hook: {
        afterCommit: () => {
          throw new Error('listener')
        },
      },
    })
    await expect(store.write(put('a', 1))).resolves.toBeUndefined()
    expect(getSetting(store, 'a')).toBe(1)
    store.close()
  })

  it('writes what is still queued when it closes, and refuses what comes after', async () => {
    const path = join(tempDir(), 'a.db')
    const store = Store.open(path)
    const pending = store.write(put('late', true))
    store.close()
    await pending
    await expect(store.write(put('later', true))).rejects.toMatchObject({ code: 'shutting_down' })
    const again = Store.open(path)
    expect(getSetting(again, 'late')).toBe(true)
    again.close()
  })
})

describe('opening', () => {
  it('refuses a database written by a newer version', () => {
    const path = join(tempDir(), 'a.db')
    Store.open(path).close()
    const db = new Sqlite(path)
    db.pragma('user_version = 999')
    db.close()
    expect(() => Store.open(path)).toThrow(expect.objectContaining({ code: 'database_newer' }))
    expect(() => Store.open(path, { readonly: true })).toThrow(expect.objectContaining({ code: 'database_newer' }))
  })

  it('backs up before it migrates what was there', async () => {
    const dir = tempDir()
    const path = join(dir, 'a.db')
    const db = new Sqlite(path)
    const [first, ...later] = readMigrations()
    migrate(
      db,
      path,
      [first].filter((migration) => migration !== undefined),
    )
    expect(existsSync(`${path}.pre-1`)).toBe(false)
    db.close()
    Store.open(path).close()
    expect(existsSync(`${path}.pre-1`)).toBe(later.length > 0)
    const backup = new Sqlite(`${path}.pre-1`, { readonly: true })
    expect(backup.pragma('user_version', { simple: true })).toBe(1)
    backup.close()
  })

  it('makes a new database whole or not at all, and an older one step by step', () => {
    const path = join(tempDir(), 'a.db')
    const migrations = readMigrations()
    const broken = migrations.map((migration) => (migration.number === 3 ? { ...migration, sql: 'no sql' } : migration))
    const db = new Sqlite(path)
    const version = () => db.pragma('user_version', { simple: true })
    expect(() => migrate(db, path, broken)).toThrow(/syntax/)
    expect([version(), db.prepare('SELECT count(*) FROM sqlite_schema').pluck().get()]).toEqual([0, 0])
    migrate(db, path, migrations.slice(0, 1))
    expect(() => migrate(db, path, broken)).toThrow(/syntax/)
    expect(version()).toBe(2)
    migrate(db, path, migrations)
    expect(version()).toBe(migrations.length)
    db.close()
  })

  it('says what to do about a file that is no database', () => {
    const dir = tempDir()
    const path = join(dir, 'a.db')
    writeFileSync(path, 'this is not a database at all, it only pretends to be one '.repeat(50))
    expect(() => Store.open(path)).toThrow(expect.objectContaining({ code: 'database_corrupt' }))
  })

  it('reads what another connection wrote, without writing', async () => {
    const path = join(tempDir(), 'a.db')
    const store = Store.open(path)
    await store.write(put('a', 1))
    store.close()
    const reader = Store.open(path, { readonly: true })
    expect(getSetting(reader, 'a')).toBe(1)
    await expect(reader.write(put('a', 2))).rejects.toThrow(/readonly/)
    reader.close()
  })
})

it('reads what any earlier version left without touching the file, and the log that is not written back too', () => {
  const migrations = readMigrations()
  for (let version = 1; version < migrations.length; version++) {
    const path = join(tempDir(), 'a.db')
    const old = new Sqlite(path)
    old.pragma('journal_mode = WAL')
    migrate(old, path, migrations.slice(0, version))
    old.prepare(`INSERT INTO settings (key, value, updated_at) VALUES ('a', '"kept"', 1)`).run()
    const store = Store.open(path, { readonly: true })
    expect(getSetting(store, 'a')).toBe('kept')
    expect(store.sql('SELECT count(*) AS n FROM account_balances WHERE class IS NOT NULL').get()).toEqual({ n: 0n })
    store.close()
    expect(old.pragma('user_version', { simple: true })).toBe(version)
    old.close()
  }
})
