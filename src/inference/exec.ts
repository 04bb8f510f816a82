/** Runs a command of the owner on text from a stranger: no shell, a bare environment, its own process group, bounds on time and output. */
import { rm } from 'node:fs/promises'
import { basename } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { PylonError } from '../base/errors.ts'
import { Capture, ProcessGroup, pickEnv } from '../base/processes.ts'
import { endStrays, MARK, makeScratch } from './traces.ts'

export interface CommandSpec {
  /** argv; the first is looked up on PATH. Never passed to a shell. */
  readonly command: readonly string[]
  readonly timeoutMs: number
  readonly maxOutputBytes: number
}

export interface CommandRun {
  readonly input: string
  /** Added to PATH, HOME and LANG, which alone pass through, and to the mark by which its processes are found. */
  readonly env?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

/** The end of it: what went wrong stands last. */
const STDERR_KEPT = 2000
const STDERR_TOLD = 300
/** Between SIGTERM and SIGKILL to the group. */
const KILL_GRACE_MS = 500
/** The most that a value in the environment may hold, in bytes. */
const MAX_ENV_BYTES = 4096

/**
 * `temperature` to `PYLON_PARAM_TEMPERATURE`. Names come from strangers: whatever is not a letter or digit becomes `_`,
 * NUL bytes go, values are cut at 4096 bytes. The prefix keeps them off every name that a program acts on.
 */
export function paramEnv(params: Readonly<Record<string, readonly string[]>>): Record<string, string> {
  const env: Record<string, string> = {}
  for (const [name, values] of Object.entries(params).slice(0, 64)) {
    const clean = name
      .toUpperCase()
      .replace(/[^A-Z0-9]/g, '_')
      .slice(0, 64)
    if (clean === '') continue
    env[`PYLON_PARAM_${clean}`] = Buffer.from(values.join(' ').replaceAll('\0', '')).subarray(0, MAX_ENV_BYTES).toString('utf8')
  }
  return env
}

/**
 * The command's stdout as text.
 * @throws backend_unavailable when it does not start; backend_failed when it exits above 0, is killed or outlives the
 *   time; output_too_large; the signal's reason when aborted. In every case all that it started is gone.
 */
export async function runCommand(spec: CommandSpec, run: CommandRun, clock: Clock): Promise<string> {
  run.signal?.throwIfAborted()
  const dir = makeScratch()
  try {
    return await spawnAndCollect(spec, run, dir, clock)
  } finally {
    await endStrays(dir)
    await rm(dir, { recursive: true, force: true, maxRetries: 3 })
  }
}

async function spawnAndCollect(spec: CommandSpec, run: CommandRun, cwd: string, clock: Clock): Promise<string> {
  const [file] = spec.command
  if (file === undefined) throw new PylonError('backend_unavailable', 'The command is empty; set it in config.toml.')
  const env = pickEnv(['PATH', 'HOME', 'LANG'], { ...run.env, [MARK]: basename(cwd) })
  // Whatever the command left running in its group ends with it: its answer is what it has written by then.
  const group = new ProcessGroup(spec.command, { cwd, env, stdin: true, pipeGraceMs: KILL_GRACE_MS, clock })
  let failure: unknown
  const stop = (reason: unknown) => {
    failure ??= reason
    group.stop(KILL_GRACE_MS)
  }
  const tooLong = new PylonError('backend_failed', `The command ${file} took longer than ${spec.timeoutMs / 1000} s and was stopped.`)
  const tooMuch = new PylonError('output_too_large', `The command ${file} wrote more than ${spec.maxOutputBytes} bytes and was stopped.`)
  const cancelTimeout = clock.after(spec.timeoutMs, () => stop(tooLong))
  const onAbort = () => stop(run.signal?.reason ?? new PylonError('cancelled', 'The run was given up.'))
  run.signal?.addEventListener('abort', onAbort, { once: true })
  const stdout = new Capture(group.process.stdout, spec.maxOutputBytes, () => stop(tooMuch))
  let stderr = ''
  group.process.stderr?.on('data', (chunk: Buffer) => {
    stderr = `${stderr}${chunk.toString('utf8')}`.slice(-STDERR_KEPT)
  })
  group.process.stdin?.end(run.input)
  const { code, signal, error } = await group.exited
  cancelTimeout()
  run.signal?.removeEventListener('abort', onAbort)
  if (error !== undefined)
    throw new PylonError('backend_unavailable', `The command ${file} does not start: ${error.message}.`, { cause: error })
  if (failure !== undefined) throw failure
  if (code !== 0) throw badExit(file, signal === null ? code : null, signal, stderr)
  return stdout.text()
}

function badExit(file: string, code: number | null, signal: NodeJS.Signals | null, stderr: string): PylonError {
  const how = signal === null ? `exited with ${code}` : `was killed by ${signal}`
  const words = stderr.trim().slice(-STDERR_TOLD)
  return new PylonError('backend_failed', `The command ${file} ${how}${words === '' ? '.' : `: ${words}`}`, {
    details: { exit_code: code, signal, stderr: stderr.trim() },
  })
}
