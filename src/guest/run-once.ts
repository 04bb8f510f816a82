/** A one-shot run: the entry command under its time limit, its output to the logs, its exit code as the result. */
import { join } from 'node:path'
import type { Scope } from '../base/scope.ts'
import { stateOfExit } from '../runtime/contract/lifecycle.ts'
import { type RuntimePaths, STDERR_LOG, STDOUT_LOG } from '../runtime/contract/paths.ts'
import type { RESTART_POLICIES } from '../runtime/contract/spec.ts'
import { KILL_GRACE_MS, startCommand } from './child-process.ts'
import type { LifecycleWriter } from './lifecycle-writer.ts'
import { LogSink } from './log-sink.ts'
import { nextStart, pauseBeforeStart } from './restarts.ts'

const MAX_LOG_BYTES = 8 * 1024 * 1024
/** What a shell's `timeout` says. */
const TIMEOUT_EXIT = 124
const SHOWN_COMMAND = 200

export interface OneShot {
  readonly command: string
  readonly timeoutSecs: number
  readonly runAs?: { readonly uid: number; readonly gid: number } | undefined
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
  readonly paths: RuntimePaths
  readonly restartPolicy: (typeof RESTART_POLICIES)[number]
}

/** @param stopping aborted when the guest is told to end @returns the exit code of the guest itself */
export async function runOnce(run: OneShot, writer: LifecycleWriter, scope: Scope, stopping: AbortSignal): Promise<number> {
  const { clock } = scope
  const stdout = new LogSink(join(run.paths.logs_dir, STDOUT_LOG), MAX_LOG_BYTES)
  const stderr = new LogSink(join(run.paths.logs_dir, STDERR_LOG), MAX_LOG_BYTES)
  const log = new LogSink(run.paths.guest_log_path, MAX_LOG_BYTES)
  const deadlineMs = clock.now() + run.timeoutSecs * 1000
  const written = () => Promise.all([stdout.close(), stderr.close(), log.close()])
  try {
    for (let shortLives = 0; ; ) {
      writer.enter('starting', 'running the command', {
        command: run.command.slice(0, SHOWN_COMMAND),
        run_as_root: (run.runAs?.uid ?? process.getuid?.() ?? 0) === 0,
      })
      const startedAt = clock.now()
      const outcome = await runUntil(run, deadlineMs, { stdout, stderr, log }, scope, stopping)
      const again = outcome.final
        ? undefined
        : nextStart(run.restartPolicy, { exitCode: outcome.code, livedMs: clock.now() - startedAt }, shortLives)
      if (again === undefined) {
        // What it printed is collected as soon as its end is told.
        await written()
        writer.finish({
          state: outcome.final ? 'failed' : stateOfExit(outcome.code),
          message: outcome.message,
          exitCode: outcome.code,
          ...(outcome.reason === undefined ? {} : { details: { failure_reason: outcome.reason } }),
        })
        return outcome.code
      }
      shortLives = again.shortLives
      log.line(`${outcome.message}; starting it again`)
      await pauseBeforeStart(again.delayMs, clock, stopping)
    }
  } finally {
    await written()
  }
}

interface Outcome {
  readonly code: number
  readonly message: string
  /** Neither policy nor exit code changes it. */
  readonly final: boolean
  readonly reason?: string
}

async function runUntil(
  run: OneShot,
  deadlineMs: number,
  sinks: { stdout: LogSink; stderr: LogSink; log: LogSink },
  scope: Scope,
  stopping: AbortSignal,
): Promise<Outcome> {
  if (stopping.aborted) return { code: 143, message: 'the guest was told to stop', final: true, reason: 'terminated' }
  const child = startCommand({ ...run, clock: scope.clock }, false)
  for (const name of ['stdout', 'stderr'] as const) {
    child.process[name]?.on('data', (chunk: Buffer) => {
      sinks[name].write(chunk)
      sinks.log.write(chunk)
    })
  }
  let ended: 'timeout' | 'terminated' | undefined
  const end = (why: 'timeout' | 'terminated') => {
    ended ??= why
    child.stop(KILL_GRACE_MS)
  }
  const cancel = scope.after('time limit', deadlineMs - scope.clock.now(), () => end('timeout'))
  const onStop = () => end('terminated')
  stopping.addEventListener('abort', onStop, { once: true })
  const exit = await child.exited
  cancel()
  stopping.removeEventListener('abort', onStop)
  if (ended === 'timeout') {
    return { code: TIMEOUT_EXIT, message: `the command ran over ${run.timeoutSecs} s and was stopped`, final: true, reason: 'timeout' }
  }
  if (ended === 'terminated') return { code: 143, message: 'the guest was told to stop', final: true, reason: 'terminated' }
  if (exit.error !== undefined)
    return { code: exit.code, message: `the command did not start: ${exit.error.message}`, final: true, reason: 'spawn_failed' }
  const how = exit.code === 0 ? 'the command completed' : `the command exited with ${exit.code}`
  return { code: exit.code, message: how, final: false }
}
