/** Collects what a runtime left: read by the daemon from outside, plain files only, capped in size, number and depth. */
import { posix } from 'node:path'
import { messageOf } from '../../base/errors.ts'
import type { CollectedArtifact, CollectedOutputs } from '../adapter.ts'
import { decodeEvents, decodeResult, decodeStatus } from '../contract/lifecycle.ts'
import { STDERR_LOG, STDOUT_LOG } from '../contract/paths.ts'
import type { RuntimeSpec } from '../contract/spec.ts'
import type { IncusClient } from './client.ts'
import { execInGuest } from './exec.ts'
import { listGuestDir, readGuestFile, statGuestPath } from './files.ts'

const MAX_JSON_BYTES = 256 * 1024
const MAX_EVENTS_BYTES = 4 * 1024 * 1024
const MAX_LOG_BYTES = 1024 * 1024
const MAX_ARTIFACTS_BYTES = 32 * 1024 * 1024
/** Entries looked at, whatever they are. */
const MAX_ENTRIES = 2000
const MAX_DEPTH = 16
/** What a guest gets between its last status and its result. */
const RESULT_TRIES = 20
const RESULT_RETRY_MS = 100

/** By the spec's output_collection; what can't be read is a problem in the answer, not an error. */
export async function collectOutputs(incus: IncusClient, instance: string, spec: RuntimeSpec): Promise<CollectedOutputs> {
  const { paths, policies } = spec
  const policy = policies.output_collection
  const problems: string[] = []
  let truncated = false
  const read = async (path: string, maxBytes: number): Promise<string | undefined> => {
    try {
      const file = await readGuestFile(incus, instance, path, maxBytes)
      if (file?.truncated === true) truncated = true
      return file?.data.toString('utf8')
    } catch (error) {
      problems.push(`${path}: ${messageOf(error)}`)
      return undefined
    }
  }
  const decoded = <T>(text: string | undefined, decode: (text: string) => T): T | undefined => {
    if (text === undefined) return undefined
    try {
      return decode(text)
    } catch (error) {
      problems.push(messageOf(error))
      return undefined
    }
  }
  const status = decoded(await read(paths.status_path, MAX_JSON_BYTES), (text) => decodeStatus(text, paths.status_path))
  const isOver = status?.state === 'completed' || status?.state === 'failed'
  // The guest's last word comes after its last status.
  let resultText = await read(paths.result_path, MAX_JSON_BYTES)
  for (let wait = 0; isOver && resultText === undefined && wait < RESULT_TRIES; wait++) {
    await incus.clock.sleep(RESULT_RETRY_MS)
    resultText = await read(paths.result_path, MAX_JSON_BYTES)
  }
  const result = decoded(resultText, (text) => decodeResult(text, paths.result_path))
  const eventsText = await read(paths.events_path, MAX_EVENTS_BYTES)
  const events = decoded(eventsText, (text) => decodeEvents(text, paths.events_path, { partial: !text.endsWith('\n') })) ?? []
  const isWanted = policy.mode === 'always' || (policy.mode === 'failure_only' && result?.status !== 'completed')
  const log = async (path: string) => (isWanted && policy.include_logs ? ((await read(path, MAX_LOG_BYTES)) ?? '') : '')
  const outputs = {
    stdout: await log(`${paths.logs_dir}/${STDOUT_LOG}`),
    stderr: await log(`${paths.logs_dir}/${STDERR_LOG}`),
    log: await log(paths.guest_log_path),
  }
  const found = isWanted ? await collectArtifacts(incus, instance, spec, problems) : { artifacts: [], truncated: false }
  return {
    ...(status === undefined ? {} : { status }),
    ...(result === undefined || !policy.include_result ? {} : { result }),
    events,
    ...outputs,
    artifacts: found.artifacts,
    truncated: truncated || found.truncated,
    problems,
  }
}

async function collectArtifacts(
  incus: IncusClient,
  instance: string,
  spec: RuntimeSpec,
  problems: string[],
): Promise<{ artifacts: CollectedArtifact[]; truncated: boolean }> {
  const root = spec.paths.artifacts_dir
  const globs = spec.policies.output_collection.artifact_globs
  const artifacts: CollectedArtifact[] = []
  const folders: { path: string; depth: number }[] = [{ path: '', depth: 0 }]
  const empty: string[] = []
  let entries = 0
  let bytes = 0
  let truncated = false
  for (let folder = folders.shift(); folder !== undefined; folder = folders.shift()) {
    const names = await listGuestDir(incus, instance, posix.join(root, folder.path)).catch((error: unknown) => {
      problems.push(messageOf(error))
      return undefined
    })
    for (const name of names ?? []) {
      // A name that is no single component could point elsewhere, here or where the artifacts are unpacked.
      if (name === '' || name === '.' || name === '..' || /[/\\\0]/.test(name)) {
        problems.push(`${JSON.stringify(name)} in ${folder.path || '.'} is no file name.`)
        continue
      }
      if (++entries > MAX_ENTRIES) return { artifacts, truncated: true }
      const path = folder.path === '' ? name : `${folder.path}/${name}`
      const entry = await statGuestPath(incus, instance, `${root}/${path}`).catch(() => undefined)
      if (entry?.type === 'directory') {
        if (folder.depth < MAX_DEPTH) folders.push({ path, depth: folder.depth + 1 })
        else problems.push(`${path} is too deep.`)
        continue
      }
      if (globs.length > 0 && !globs.some((glob) => posix.matchesGlob(path, glob))) continue
      if (entry?.type !== 'file') {
        problems.push(`${path} is no plain file.`)
        continue
      }
      const room = MAX_ARTIFACTS_BYTES - bytes
      const file = (entry.size ?? 0) > room ? undefined : await readGuestFile(incus, instance, `${root}/${path}`, room)
      if (file === undefined || file.truncated) {
        problems.push(`${path} does not fit into ${MAX_ARTIFACTS_BYTES} bytes of artifacts.`)
        truncated = true
        continue
      }
      bytes += file.data.length
      if (file.data.length === 0) empty.push(path)
      artifacts.push({ path, data: file.data })
    }
  }
  const pipes = await pipesAmong(incus, instance, root, empty)
  for (const path of pipes) problems.push(`${path} is no plain file.`)
  return { artifacts: artifacts.filter(({ path }) => !pipes.has(path)), truncated }
}

/** Incus shows pipes as empty files, and only the guest can tell; where it lies, an empty artifact too many is all it wins. */
async function pipesAmong(incus: IncusClient, instance: string, root: string, paths: readonly string[]): Promise<ReadonlySet<string>> {
  if (paths.length === 0) return new Set()
  const script = 'i=0; for path do [ ! -p "$path" ] || echo $i; i=$((i + 1)); done'
  const command = ['sh', '-c', script, 'sh', ...paths.map((path) => `${root}/${path}`)]
  try {
    const { stdout } = await execInGuest(incus, instance, { command, timeoutMs: 5_000, maxBytes: 64 * 1024 })
    return new Set(stdout.split('\n').flatMap((line) => (line === '' ? [] : (paths[Number(line)] ?? []))))
  } catch {
    return new Set()
  }
}
