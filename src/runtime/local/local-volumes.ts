/** Named folders that outlive a runtime, their owners, and snapshots of them as copies. */
import { existsSync, mkdirSync, readdirSync, renameSync, statSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { ensurePrivateDir, readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import { parseJson } from '../../base/json.ts'
import { pickEnv, runProgram } from '../../base/processes.ts'
import type { Snapshot } from '../adapter.ts'
import { copyTree } from '../contained-files.ts'

const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/
const userShape = z.object({ runtimeId: z.string(), name: z.string() })
/** Removing or opening up one tree. */
const TREE_MS = 600_000

export class LocalVolumes {
  readonly #dir: string
  readonly #maxBytes: number

  /** @param dir holds `<volume>/{data,owner,user.json,snapshots/<name>}` @param maxBytes of one snapshot */
  constructor(dir: string, maxBytes: number) {
    this.#dir = dir
    this.#maxBytes = maxBytes
  }

  /** The folder to mount, made where it is new. @throws spec_mount_refused for a bad name or another's volume */
  ensure(name: string, owner: string): string {
    const dir = this.#of(name)
    ensurePrivateDir(this.#dir)
    ensurePrivateDir(dir)
    const known = readFileIfAny(join(dir, 'owner'))
    if (known === undefined) writeFileAtomic(join(dir, 'owner'), owner)
    else if (known !== owner) throw new PylonError('spec_mount_refused', `The volume ${name} belongs to someone else; choose another name.`)
    const data = join(dir, 'data')
    // A crash in the middle of a restore: the old content is still whole.
    if (!existsSync(data) && existsSync(`${data}.old`)) renameSync(`${data}.old`, data)
    mkdirSync(data, { recursive: true, mode: 0o700 })
    return data
  }

  /** @throws spec_mount_refused for a name that none can have */
  exists(name: string): boolean {
    return existsSync(this.#of(name))
  }

  async remove(name: string): Promise<void> {
    await removeTree(this.#of(name))
  }

  /** @throws conflict for a name that is taken; runtime_failed when the volume is too large */
  async snapshot(name: string, snapshotName: string): Promise<Snapshot> {
    const target = this.#snapshot(name, snapshotName)
    if (existsSync(target)) throw new PylonError('conflict', `There is a snapshot ${snapshotName} already.`)
    ensurePrivateDir(join(this.#of(name), 'snapshots'))
    const fresh = `${target}.new`
    await removeTree(fresh)
    await this.#copy(join(this.#of(name), 'data'), fresh)
    renameSync(fresh, target)
    return this.#describe(name, snapshotName)
  }

  /** Where they lie; there may be none yet. */
  snapshotsDir(name: string): string {
    return join(this.#of(name), 'snapshots')
  }

  /** What the runtime that has it is called, for its owner to tell it by. */
  noteUser(name: string, user: { readonly runtimeId: string; readonly name: string }): void {
    writeFileAtomic(join(this.#of(name), 'user.json'), JSON.stringify(user))
  }

  list(): { readonly id: string; readonly owner: string | undefined; readonly user: { runtimeId?: string; name?: string } }[] {
    if (!existsSync(this.#dir)) return []
    const ids = readdirSync(this.#dir).filter((entry) => NAME.test(entry))
    return ids.map((id) => {
      const user = userShape.safeParse(parseJson(readFileIfAny(join(this.#dir, id, 'user.json')) ?? ''))
      return { id, owner: readFileIfAny(join(this.#dir, id, 'owner')), user: user.success ? user.data : {} }
    })
  }

  /** Newest first. */
  snapshots(name: string): Snapshot[] {
    const dir = this.snapshotsDir(name)
    if (!existsSync(dir)) return []
    const names = readdirSync(dir).filter((entry) => NAME.test(entry) && !entry.endsWith('.new'))
    return names.map((entry) => this.#describe(name, entry)).sort((a, b) => b.createdAt - a.createdAt || (a.name < b.name ? 1 : -1))
  }

  async removeSnapshot(name: string, snapshotName: string): Promise<void> {
    await removeTree(this.#snapshot(name, snapshotName))
  }

  /** Puts the volume back; nothing may be using it. The old content is gone when this returns, and still whole if it fails. */
  async restore(name: string, snapshotName: string): Promise<void> {
    const source = this.#snapshot(name, snapshotName)
    if (!existsSync(source))
      throw new PylonError('runtime_failed', `There is no snapshot ${snapshotName}; list them with: pylon runtime snapshot.`)
    const data = join(this.#of(name), 'data')
    const fresh = `${data}.new`
    const old = `${data}.old`
    await removeTree(fresh)
    await this.#copy(source, fresh)
    await removeTree(old)
    if (existsSync(data)) renameSync(data, old)
    renameSync(fresh, data)
    await removeTree(old)
  }

  async #copy(from: string, to: string): Promise<void> {
    let inside = false
    try {
      inside = await copyTree(from, to, this.#maxBytes)
    } finally {
      if (!inside) await removeTree(to)
    }
    if (!inside) throw new PylonError('runtime_failed', 'The volume is too large for a snapshot of the local substrate; make room in it.')
  }

  #describe(name: string, snapshotName: string): Snapshot {
    return { name: snapshotName, createdAt: Math.floor(statSync(this.#snapshot(name, snapshotName)).mtimeMs) }
  }

  #snapshot(name: string, snapshotName: string): string {
    if (!NAME.test(snapshotName)) throw new PylonError('invalid_request', 'A snapshot name is 1 to 63 of a-z, 0-9, dot, - and _.')
    return join(this.#of(name), 'snapshots', snapshotName)
  }

  #of(name: string): string {
    if (!NAME.test(name)) {
      throw new PylonError(
        'spec_mount_refused',
        `The mount source ${JSON.stringify(name)} is no volume name (1 to 63 of a-z, 0-9, dot, - and _).`,
      )
    }
    return join(this.#dir, name)
  }
}

/** Removes a tree that a guest may have made hard to remove: read-only folders, paths longer than the system takes. */
export async function removeTree(path: string): Promise<void> {
  if (!existsSync(path)) return
  const run = async (...argv: string[]) =>
    (await runProgram({ argv, env: pickEnv(['PATH']), timeoutMs: TREE_MS, maxBytes: 64 * 1024 })).exitCode === 0
  if (await run('rm', '-rf', '--', path)) return
  await run('chmod', '-R', 'u+rwX', '--', path)
  await rm(path, { recursive: true, force: true, maxRetries: 3 })
}
