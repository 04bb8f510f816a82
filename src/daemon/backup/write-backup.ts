/** Writes a backup: one private, encrypted file with a consistent copy of the database, the identity and the configuration. It contains the keys. */
import { createReadStream, existsSync, rmSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { rfc3339 } from '../../base/clock.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { moveIntoPlace, readFileIfAny, writeFileAtomic, writeNewFile } from '../../base/files.ts'
import type { Home } from '../../base/paths.ts'
import { VERSION } from '../../base/version.ts'
import type { Store } from '../../store/store.ts'
import { freeBytes } from '../home/prepare-home.ts'
import { encrypt, type Lock } from './age.ts'
import { BACKUP_FILES, type BackupPart, digestOf, MANIFEST, type WholeManifest } from './format.ts'
import { withScratch } from './scratch.ts'
import { BLOCK_BYTES, paddingOf, tarHeader } from './tar.ts'

export interface BackupOrder {
  readonly home: Home
  readonly network: 'sandbox' | 'live'
  readonly store: Store
  /** The file to be; nothing may be there yet. */
  readonly target: string
  readonly lock: Lock
  readonly nowMs: number
  /** Aborts what is not whole yet. */
  readonly signal?: AbortSignal
  /** Of scrypt, as its base-2 logarithm: a test has no time for ours. */
  readonly workFactor?: number
}

/**
 * Writes the file whole or not at all; the database is copied beside itself first, a few pages at a time.
 * @returns its size in bytes @throws backup_failed when something is there already or can't be written, usage
 */
export async function writeBackup(order: BackupOrder): Promise<number> {
  const { home, target, nowMs } = order
  if (existsSync(target)) throw new PylonError('backup_failed', `There is something at ${target} already: name a path that does not exist.`)
  const fresh = freshPathOf(target)
  try {
    assertRoom(home)
    return await withScratch(home, nowMs, async (dir) => {
      const parts = await copyParts(order, dir)
      const manifest: WholeManifest = { format: 2, version: VERSION, network: order.network, created_at: rfc3339(nowMs), parts }
      const words = ReadableStream.from(archive(dir, manifest, nowMs, order.signal))
      const sealed = await encrypt(words, order.lock, order.workFactor)
      rmSync(fresh, { force: true })
      await writeNewFile(fresh, sealed)
      moveIntoPlace(fresh, target)
      return statSync(target).size
    })
  } catch (error) {
    rmSync(fresh, { force: true })
    if (isPylonError(error)) throw error
    throw new PylonError('backup_failed', `The backup could not be written to ${target}: ${messageOf(error)}`, { cause: error })
  }
}

/** What is not whole yet, beside what it is to be. */
export const freshPathOf = (target: string): string => join(dirname(target), `.${basename(target)}.tmp`)

/** The copy needs as much room as the database, for a moment. */
function assertRoom(home: Home): void {
  const needed = [home.database, `${home.database}-wal`].reduce(
    (sum, path) => sum + (statSync(path, { throwIfNoEntry: false })?.size ?? 0),
    0,
  )
  if (freeBytes(home.dir) >= needed) return
  throw new PylonError(
    'backup_failed',
    `The disk of ${home.dir} has no room for a copy of the database (${needed} bytes): free some space.`,
  )
}

async function copyParts({ home, store }: BackupOrder, dir: string): Promise<BackupPart[]> {
  const parts: BackupPart[] = []
  for (const [what, name] of Object.entries(BACKUP_FILES) as ['identity' | 'config' | 'database', BackupPart['name']][]) {
    const path = join(dir, name)
    if (what === 'database') await store.backup(path)
    else {
      const content = readFileIfAny(home[what])
      if (content === undefined) continue
      writeFileAtomic(path, content)
    }
    parts.push({ name, bytes: statSync(path).size, sha256: await digestOf(path) })
  }
  return parts
}

async function* archive(dir: string, manifest: WholeManifest, nowMs: number, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const mtimeS = Math.floor(nowMs / 1000)
  const text = Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`)
  yield tarHeader({ name: MANIFEST, bytes: text.length }, mtimeS)
  yield text
  yield Buffer.alloc(paddingOf(text.length))
  for (const { name, bytes } of manifest.parts) {
    yield tarHeader({ name, bytes }, mtimeS)
    for await (const chunk of createReadStream(join(dir, name)) as AsyncIterable<Buffer>) {
      signal?.throwIfAborted()
      yield chunk
    }
    yield Buffer.alloc(paddingOf(bytes))
  }
  yield Buffer.alloc(2 * BLOCK_BYTES)
}
