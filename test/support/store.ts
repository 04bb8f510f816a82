/** Databases of tests: the migrations run once in a process, and each new database is a copy of what they made. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Store, type StoreOptions } from '../../src/store/store.ts'

let fresh: Buffer | undefined

/** As `Store.open`; what is not there yet costs a tenth of the time. */
export function openStore(path: string, options: StoreOptions = {}): Store {
  if (!existsSync(path)) writeFileSync(path, freshDatabase())
  return Store.open(path, options)
}

function freshDatabase(): Buffer {
  if (fresh !== undefined) return fresh
  const dir = mkdtempSync(join(tmpdir(), 'pylon-fresh-'))
  const path = join(dir, 'pylon.db')
  Store.open(path).close()
  fresh = readFileSync(path)
  rmSync(dir, { recursive: true })
  return fresh
}
