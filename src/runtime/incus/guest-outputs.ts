/** Collects what a runtime left: read by the daemon from outside, plain files only, capped in size, number and depth. */
import { messageOf } from '../../base/errors.ts'
import type { CollectedArtifact, CollectedOutputs } from '../adapter.ts'
import { decodeResult } from '../contract/lifecycle.ts'
import { STDERR_LOG, STDOUT_LOG } from '../contract/paths.ts'
import type { RuntimeSpec } from '../contract/spec.ts'
import { assembleOutputs, OUTPUT_LIMITS, wantsArtifact } from '../outputs.ts'
import { MAX_EVENTS_BYTES, MAX_RESULT_BYTES, MAX_STATUS_BYTES } from '../readiness.ts'
import { collects, type Outcome } from '../retention.ts'
import type { IncusClient } from './client.ts'
import { execInGuest } from './guest-exec.ts'
import { GuestFiles } from './guest-files.ts'

/** Entries looked at, whatever they are. */
const MAX_ENTRIES = 2000
const MAX_DEPTH = 16

/** By the spec's output_collection; what can't be read is a problem in the answer, not an error. */
export async function collectOutputs(incus: IncusClient, instance: string, spec: RuntimeSpec): Promise<CollectedOutputs> {
  const { paths } = spec
  const files = new GuestFiles(incus, instance)
  const problems: string[] = []
  let truncated = false
  const read = async (path: string, maxBytes: number): Promise<string | undefined> => {
    try {
      const file = await files.read(path, maxBytes)
      if (file?.truncated === true) truncated = true
      return file?.data.toString('utf8')
    } catch (error) {
      problems.push(`${path}: ${messageOf(error)}`)
      return undefined
    }
  }
  const log = async (path: string) => (await read(path, OUTPUT_LIMITS.logBytes)) ?? ''
  const raw = {
    statusText: await read(paths.status_path, MAX_STATUS_BYTES),
    resultText: await read(paths.result_path, MAX_RESULT_BYTES),
    eventsText: await read(paths.events_path, MAX_EVENTS_BYTES),
    stdout: await log(`${paths.logs_dir}/${STDOUT_LOG}`),
    stderr: await log(`${paths.logs_dir}/${STDERR_LOG}`),
    log: await log(paths.guest_log_path),
  }
  const walk = new ArtifactWalk(incus, instance, spec)
  // What the policy does not take is not fetched either.
  if (collects(spec.policies, outcomeOf(raw.resultText))) await walk.run()
  return assembleOutputs(
    { ...raw, artifacts: walk.artifacts, truncated: truncated || walk.truncated, problems: [...problems, ...walk.problems] },
    spec,
  )
}

function outcomeOf(resultText: string | undefined): Outcome {
  try {
    return resultText === undefined ? 'gone' : decodeResult(resultText, 'result.json').status
  } catch {
    return 'gone'
  }
}

class ArtifactWalk {
  artifacts: CollectedArtifact[] = []
  truncated = false
  readonly problems: string[] = []
  readonly #incus: IncusClient
  readonly #instance: string
  readonly #files: GuestFiles
  readonly #spec: RuntimeSpec
  #entries = 0
  #bytes = 0

  constructor(incus: IncusClient, instance: string, spec: RuntimeSpec) {
    this.#incus = incus
    this.#instance = instance
    this.#files = new GuestFiles(incus, instance)
    this.#spec = spec
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
        } else if (wantsArtifact(this.#spec, path)) {
          if (entry?.type === 'file') await this.#take(path, entry.size ?? 0)
          else this.problems.push(`${path} is no plain file.`)
        }
      }
    }
    await this.#dropPipes()
  }

  #at(path: string): string {
    return path === '' ? this.#spec.paths.artifacts_dir : `${this.#spec.paths.artifacts_dir}/${path}`
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
    const fits = this.artifacts.length < maxFiles && size <= room
    // What can't be read is a problem that is told.
    const file = fits ? await this.#files.read(this.#at(path), room).catch(() => undefined) : undefined
    if (file === undefined || file.truncated) {
      this.problems.push(`${path} is over a limit, or went while it was read.`)
      this.truncated = true
      return
    }
    this.#bytes += file.data.length
    this.artifacts.push({ path, data: file.data })
  }

  /** Incus shows pipes as empty files, and only the guest can tell; where it lies, an empty artifact too many is all it wins. */
  async #dropPipes(): Promise<void> {
    const empty = this.artifacts.filter(({ data }) => data.length === 0).map(({ path }) => path)
    if (empty.length === 0) return
    const script = 'i=0; for path do [ ! -p "$path" ] || echo $i; i=$((i + 1)); done'
    const command = ['sh', '-c', script, 'sh', ...empty.map((path) => this.#at(path))]
    // Without a shell inside nothing can be said of pipes.
    const said = await execInGuest(this.#incus, this.#instance, { command, timeoutMs: 5_000, maxBytes: 64 * 1024 }).catch(() => undefined)
    const pipes = (said?.stdout ?? '').split('\n').flatMap((line) => (line === '' ? [] : (empty[Number(line)] ?? [])))
    for (const path of pipes) this.problems.push(`${path} is no plain file.`)
    this.artifacts = this.artifacts.filter(({ path }) => !pipes.includes(path))
  }
}
