/** Collects what a guest leaves in its state directory, by the spec's output policy: for adapters that see it as a folder. */
import { messageOf } from '../base/errors.ts'
import type { CollectedArtifact, CollectedOutputs } from './adapter.ts'
import { gatherFiles, readContainedText } from './contained-files.ts'
import { decodeEvents, decodeResult, decodeStatus, type RuntimeEvent } from './contract/lifecycle.ts'
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

/** Whether the policy takes this artifact. @param path relative to artifacts_dir */
export function wantsArtifact(spec: RuntimeSpec, path: string): boolean {
  const globs = spec.policies.output_collection.artifact_globs
  return globs.length === 0 || globs.some((glob) => matchesGlob(path, glob))
}

/** What an adapter read raw; the same judgement is passed on it for every substrate. */
export interface RawOutputs {
  readonly statusText: string | undefined
  readonly resultText: string | undefined
  readonly eventsText: string | undefined
  readonly stdout: string
  readonly stderr: string
  readonly log: string
  readonly artifacts: readonly CollectedArtifact[]
  readonly truncated: boolean
  readonly problems: readonly string[]
}

/** Decodes and applies the policy: what is malformed becomes a problem in words, never an error. */
export function assembleOutputs(raw: RawOutputs, spec: RuntimeSpec): CollectedOutputs {
  const problems = [...raw.problems]
  const attempt = <T>(text: string | undefined, decode: (text: string) => T): T | undefined => {
    if (text === undefined) return undefined
    try {
      return decode(text)
    } catch (error) {
      problems.push(messageOf(error))
      return undefined
    }
  }
  const status = attempt(raw.statusText, (text) => decodeStatus(text, 'status.json'))
  const result = attempt(raw.resultText, (text) => decodeResult(text, 'result.json'))
  const events = attempt(raw.eventsText, (text) => decodeEvents(text, 'events.jsonl', { partial: !text.endsWith('\n') })) ?? []
  const kept: RuntimeEvent[] = events.slice(0, OUTPUT_LIMITS.events)
  const policy = spec.policies.output_collection
  const taken = collects(spec.policies, result?.status ?? 'gone')
  const logs = taken && policy.include_logs
  return {
    ...(status === undefined ? {} : { status }),
    ...(result === undefined || !policy.include_result ? {} : { result }),
    events: kept,
    stdout: logs ? raw.stdout : '',
    stderr: logs ? raw.stderr : '',
    log: logs ? raw.log : '',
    artifacts: taken ? raw.artifacts.filter(({ path }) => wantsArtifact(spec, path)) : [],
    truncated: raw.truncated || kept.length < events.length,
    problems,
  }
}

/** @param stateDir where the guest's paths.state_dir lies on this host */
export async function collectFromFolder(stateDir: string, spec: RuntimeSpec): Promise<CollectedOutputs> {
  const { paths } = spec
  const relative = (path: string) => relativeToState(paths, path)
  const { logBytes, artifacts } = OUTPUT_LIMITS
  const logs = [`${relative(paths.logs_dir)}/${STDOUT_LOG}`, `${relative(paths.logs_dir)}/${STDERR_LOG}`, relative(paths.guest_log_path)]
  const [stdout, stderr, log] = logs.map((path) => readContainedText(stateDir, path, logBytes))
  const events = readContainedText(stateDir, relative(paths.events_path), MAX_EVENTS_BYTES)
  const found = await gatherFiles(stateDir, relative(paths.artifacts_dir), (path) => wantsArtifact(spec, path), artifacts)
  const raw: RawOutputs = {
    statusText: readContainedText(stateDir, relative(paths.status_path), MAX_STATUS_BYTES)?.text,
    resultText: readContainedText(stateDir, relative(paths.result_path), MAX_RESULT_BYTES)?.text,
    eventsText: events?.text,
    stdout: stdout?.text ?? '',
    stderr: stderr?.text ?? '',
    log: log?.text ?? '',
    artifacts: found.files,
    truncated: found.truncated || [stdout, stderr, log, events].some((read) => read?.truncated === true),
    problems: found.problems,
  }
  return assembleOutputs(raw, spec)
}
