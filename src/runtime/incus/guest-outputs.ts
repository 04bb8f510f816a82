/** Collects what a runtime left: read by the daemon from outside, plain files only, capped in size, number and depth. */
import { messageOf } from '../../base/errors.ts'
import type { CollectedArtifact, CollectedOutputs } from '../adapter.ts'
import type { RuntimeSpec } from '../contract/spec.ts'
import { type Artifacts, collectFrom, OUTPUT_LIMITS } from '../outputs.ts'
import type { IncusClient } from './client.ts'
import { execInGuest } from './guest-exec.ts'
import { GuestFiles } from './guest-files.ts'

/** Entries looked at, whatever they are. */
const MAX_ENTRIES = 2000
const MAX_DEPTH = 16
/** What a command that is not there exits with. */
const NOT_FOUND = 127

/** By the spec's output_collection; what can't be read is a problem in the answer, not an error. */
export async function collectOutputs(incus: IncusClient, instance: string, spec: RuntimeSpec): Promise<CollectedOutputs> {
  const files = new GuestFiles(incus, instance)
  return await collectFrom(
    {
      async read(path, maxBytes) {
        const file = await files.read(path, maxBytes)
        return file === undefined ? undefined : { text: file.data.toString('utf8'), truncated: file.truncated }
      },
      async artifacts(wants) {
        const walk = new ArtifactWalk(incus, instance, spec.paths.artifacts_dir, wants)
        await walk.run()
        return walk
      },
    },
    spec,
  )
}

class ArtifactWalk implements Artifacts {
  files: CollectedArtifact[] = []
  truncated = false
  readonly problems: string[] = []
  readonly #incus: IncusClient
  readonly #instance: string
  readonly #files: GuestFiles
  readonly #dir: string
  readonly #wants: (path: string) => boolean
  #entries = 0
  #bytes = 0

  constructor(incus: IncusClient, instance: string, dir: string, wants: (path: string) => boolean) {
    this.#incus = incus
    this.#instance = instance
    this.#files = new GuestFiles(incus, instance)
    this.#dir = dir
    this.#wants = wants
  }

  async run(): Promise<void> {
    const folders = [{ path: '', depth: 0 }]
    for (let folder = folders.shift(); folder !== undefined; folder = folders.shift()) {
      for (const name of await this.#names(folder.path)) {
        if (++this.#entries > MAX_ENTRIES) {
          this.truncated = true
          this.problems.push(`More than ${MAX_ENTRIES} entries: the rest was left.`)
          return await this.#dropPipes()
        }
        const path = folder.path === '' ? name : `${folder.path}/${name}`
        // What can't be looked at is told as no plain file.
        const entry = await this.#files.stat(this.#at(path)).catch(() => undefined)
        if (entry?.type === 'directory') {
          if (folder.depth < MAX_DEPTH) folders.push({ path, depth: folder.depth + 1 })
          else this.problems.push(`${path} is too deep.`)
        } else if (this.#wants(path)) {
          if (entry?.type === 'file') await this.#take(path, entry.size ?? 0)
          else this.problems.push(`${path} is no plain file.`)
        }
      }
    }
    await this.#dropPipes()
  }

  #at(path: string): string {
    return path === '' ? this.#dir : `${this.#dir}/${path}`
  }

  async #names(folder: string): Promise<readonly string[]> {
    try {
      const names = (await this.#files.list(this.#at(folder))) ?? []
      // A name that is no single component could point elsewhere, here or where the artifacts are unpacked.
      const odd = names.filter((name) => name === '' || name === '.' || name === '..' || /[/\\\0]/.test(name))
      for (const name of odd) this.problems.push(`${JSON.stringify(name)} in ${folder || '.'} is no file name.`)
      return names.filter((name) => !odd.includes(name))
    } catch (error) {
      this.problems.push(messageOf(error))
      return []
    }
  }

  async #take(path: string, size: number): Promise<void> {
    const { maxFiles, maxFileBytes, maxTotalBytes } = OUTPUT_LIMITS.artifacts
    const room = Math.min(maxFileBytes, maxTotalBytes - this.#bytes)
    const fits = this.files.length < maxFiles && size <= room
    // What can't be read is a problem that is told.
    const file = fits ? await this.#files.read(this.#at(path), room).catch(() => undefined) : undefined
    if (file === undefined || file.truncated) {
      this.problems.push(`${path} is over a limit, or went while it was read.`)
      this.truncated = true
      return
    }
    this.#bytes += file.data.length
    this.files.push({ path, data: file.data })
  }

  /** Incus shows pipes as empty files, and only the guest can tell; where it lies, an empty artifact too many is all it wins. */
  async #dropPipes(): Promise<void> {
    const empty = this.files.filter(({ data }) => data.length === 0).map(({ path }) => path)
    if (empty.length === 0) return
    const script = 'i=0; for path do [ ! -p "$path" ] || echo $i; i=$((i + 1)); done'
    const command = ['sh', '-c', script, 'sh', ...empty.map((path) => this.#at(path))]
    let pipes: readonly string[]
    try {
      const { exitCode, stdout } = await execInGuest(this.#incus, this.#instance, { command, timeoutMs: 15_000, maxBytes: 64 * 1024 })
      // Without a shell inside nothing can be said of pipes.
      if (exitCode === NOT_FOUND) return
      if (exitCode !== 0) throw new Error(`the shell of the guest ended with ${exitCode}`)
      pipes = stdout.split('\n').flatMap((line) => (line === '' ? [] : (empty[Number(line)] ?? [])))
      for (const path of pipes) this.problems.push(`${path} is no plain file.`)
    } catch (error) {
      pipes = empty
      this.problems.push(`Whether ${empty.join(', ')} can be read or only waited for could not be found out: ${messageOf(error)}`)
    }
    this.files = this.files.filter(({ path }) => !pipes.includes(path))
  }
}
