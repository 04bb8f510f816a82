/** What the host sees of a local runtime: its readiness, what it takes on disk, what it leaves behind. */
import { existsSync } from 'node:fs'
import { bootId } from '../../base/process-identity.ts'
import type { Scope } from '../../base/scope.ts'
import type { CollectedOutputs, Readiness } from '../adapter.ts'
import { diskUsage, gatherFiles, readContainedText } from '../contained-files.ts'
import { LEASED_LABEL, type RuntimeSpec } from '../contract/spec.ts'
import { collectFrom, OUTPUT_LIMITS, relativeToState } from '../outputs.ts'
import { judgeReadiness, MAX_RESULT_BYTES, MAX_STATUS_BYTES } from '../readiness.ts'
import { sizeOf } from './enclosure.ts'
import type { LocalVolumes } from './local-volumes.ts'
import { outputsDir, volumesOf } from './mounts.ts'
import type { LocalLayout, LocalRecord } from './record.ts'

/** The disk of a runtime is measured no more often. */
const DISK_CHECK_MS = 10_000

/** @param alive whether its outermost process runs */
export function judgeLocal(layout: LocalLayout, record: LocalRecord, alive: boolean): Readiness {
  const read = (path: string, maxBytes: number) => readContainedText(layout.state, relativeToState(record.spec.paths, path), maxBytes)?.text
  const resultText = read(record.spec.paths.result_path, MAX_RESULT_BYTES)
  const boot = bootId() ?? undefined
  if (!alive && resultText === undefined) {
    // The machine has been restarted, or it never began: not the guest's failure.
    if (record.process === null || record.process.boot_id !== boot)
      return { state: 'stopped', message: 'the runtime does not run; recover it' }
  }
  const statusText = read(record.spec.paths.status_path, MAX_STATUS_BYTES)
  const readiness = judgeReadiness({ alive, bootId: boot, statusText, resultText, protocol: record.protocol })
  if (alive || resultText !== undefined) return readiness
  const words = readContainedText(layout.dir, 'host.log', 500, 'end')?.text.trim() ?? ''
  return { ...readiness, message: words === '' ? readiness.message : `${readiness.message}: ${words}` }
}

/** The state folder and the output mounts, by the spec's policy. */
export async function collectLocal(layout: LocalLayout, spec: RuntimeSpec): Promise<CollectedOutputs> {
  const relative = (path: string) => relativeToState(spec.paths, path)
  return await collectFrom(
    {
      read: async (path, maxBytes) => readContainedText(layout.state, relative(path), maxBytes),
      async artifacts(wants) {
        const gather = (root: string, sub: string) => gatherFiles(root, sub, wants, OUTPUT_LIMITS.artifacts)
        const found = [await gather(layout.state, relative(spec.paths.artifacts_dir))]
        if (existsSync(outputsDir(layout))) found.push(await gather(layout.dir, 'outputs'))
        return {
          files: found.flatMap(({ files }) => files),
          truncated: found.some(({ truncated }) => truncated),
          problems: found.flatMap(({ problems }) => problems),
        }
      },
    },
    spec,
  )
}

/** A look at a runtime waits no longer for what its tenant has made long to measure: the next one hears of it. */
const DISK_WAIT_MS = 5000

/** Measures what runtimes take on disk, each now and then. */
export class DiskWatch {
  readonly #scope: Scope
  readonly #volumes: LocalVolumes
  readonly #checkedAt = new Map<string, number>()
  readonly #over = new Set<string>()

  constructor(scope: Scope, volumes: LocalVolumes) {
    this.#scope = scope
    this.#volumes = volumes
  }

  /** Whether it was found over its root_disk_gib at the last measure, which is made anew when it is due. */
  async isOver(layout: LocalLayout, record: LocalRecord): Promise<boolean> {
    const now = this.#scope.clock.now()
    if (now - (this.#checkedAt.get(layout.dir) ?? Number.NEGATIVE_INFINITY) >= DISK_CHECK_MS) {
      this.#checkedAt.set(layout.dir, now)
      const cap = sizeOf(record.spec)
      const measured = this.#scope.run(`measuring ${record.runtime_id}`, () => this.usage(layout, record, cap))
      const judged = measured.then((bytes) => (bytes > cap ? this.#over.add(layout.dir) : this.#over.delete(layout.dir)))
      // A folder that went meanwhile takes nothing.
      await this.#scope.patience(DISK_WAIT_MS, judged)
    }
    return this.#over.has(layout.dir)
  }

  /** What it takes: its own folder, its volumes and, where it is leased, their snapshots; more than `cap` where it stopped counting. */
  async usage(layout: LocalLayout, record: LocalRecord, cap: number): Promise<number> {
    const isLeased = record.spec.labels[LEASED_LABEL] === 'true'
    const volumes = volumesOf(record.spec).map((name) => this.#volumes.ensure(name, record.owner_pubkey))
    const snapshots = isLeased ? volumesOf(record.spec).map((name) => this.#volumes.snapshotsDir(name)) : []
    let bytes = 0
    for (const dir of [layout.dir, ...volumes, ...snapshots]) if (bytes <= cap) bytes += await diskUsage(dir, cap - bytes)
    return bytes
  }

  forget(layout: LocalLayout): void {
    this.#checkedAt.delete(layout.dir)
    this.#over.delete(layout.dir)
  }
}
