/** Collects what a guest leaves in its state directory, by the spec's output policy, however its adapter reads it. */
import { messageOf } from '../base/errors.ts'
import type { CollectedArtifact, CollectedOutputs } from './adapter.ts'
import type { CappedText } from './contained-files.ts'
import { decodeEvents, decodeResult, decodeStatus } from './contract/lifecycle.ts'
import { componentsOf, type RuntimePaths, STDERR_LOG, STDOUT_LOG } from './contract/paths.ts'
import type { RuntimeSpec } from './contract/spec.ts'
import { matchesGlob } from './globs.ts'
import { MAX_EVENTS_BYTES, MAX_RESULT_BYTES, MAX_STATUS_BYTES } from './readiness.ts'
import { collects } from './retention.ts'

export const OUTPUT_LIMITS = {
  /** Of stdout, of stderr and of the guest's log. */
  logBytes: 1024 * 1024,
  events: 10_000,
  artifacts: { maxFiles: 256, maxFileBytes: 8 * 1024 * 1024, maxTotalBytes: 32 * 1024 * 1024 },
} as const

/** A path of the contract relative to the state directory: what adapters read by, wherever that lies for them. */
export function relativeToState(paths: RuntimePaths, path: string): string {
  return componentsOf(path).slice(componentsOf(paths.state_dir).length).join('/')
}

/** How an adapter reads what a guest left, by the paths of its spec. */
export interface OutputSource {
  /** The first `maxBytes` of a plain file; undefined where there is none. @throws what cannot be read */
  read(path: string, maxBytes: number): Promise<CappedText | undefined>
  /** Those that are wanted, by their paths below artifacts_dir, within OUTPUT_LIMITS.artifacts. Asked for only where the policy takes them. */
  artifacts(wants: (path: string) => boolean): Promise<Artifacts>
}

export interface Artifacts {
  readonly files: readonly CollectedArtifact[]
  readonly truncated: boolean
  /** What was left out, in words. */
  readonly problems: readonly string[]
}

/** By the spec's output policy: what cannot be read, or is malformed, becomes a problem in words, never an error. */
export async function collectFrom(source: OutputSource, { paths, policies }: RuntimeSpec): Promise<CollectedOutputs> {
  const problems: string[] = []
  let truncated = false
  const attempt = async <T>(path: string, maxBytes: number, decode: (text: string) => T): Promise<T | undefined> => {
    try {
      const read = await source.read(path, maxBytes)
      truncated ||= read?.truncated === true
      return read === undefined ? undefined : decode(read.text)
    } catch (error) {
      problems.push(messageOf(error))
      return undefined
    }
  }
  const status = await attempt(paths.status_path, MAX_STATUS_BYTES, (text) => decodeStatus(text, 'status.json'))
  const result = await attempt(paths.result_path, MAX_RESULT_BYTES, (text) => decodeResult(text, 'result.json'))
  const decode = (text: string) => decodeEvents(text, 'events.jsonl', { partial: !text.endsWith('\n') })
  const events = (await attempt(paths.events_path, MAX_EVENTS_BYTES, decode)) ?? []
  const { include_logs, include_result } = policies.output_collection
  // What the policy does not take is not fetched either.
  const isTaken = collects(policies, result?.status ?? 'gone')
  const log = async (path: string) => (isTaken && include_logs ? await attempt(path, OUTPUT_LIMITS.logBytes, (text) => text) : '') ?? ''
  const [stdout, stderr] = [await log(`${paths.logs_dir}/${STDOUT_LOG}`), await log(`${paths.logs_dir}/${STDERR_LOG}`)]
  const guestLog = await log(paths.guest_log_path)
  const globs = policies.output_collection.artifact_globs
  const wants = (path: string) => globs.length === 0 || globs.some((glob) => matchesGlob(path, glob))
  const artifacts = isTaken ? await source.artifacts(wants) : { files: [], truncated: false, problems: [] }
  return {
    ...(status === undefined ? {} : { status }),
    ...(result === undefined || !include_result ? {} : { result }),
    events: events.slice(0, OUTPUT_LIMITS.events),
    ...{ stdout, stderr, log: guestLog },
    artifacts: artifacts.files,
    truncated: truncated || artifacts.truncated || events.length > OUTPUT_LIMITS.events,
    problems: [...problems, ...artifacts.problems],
  }
}
