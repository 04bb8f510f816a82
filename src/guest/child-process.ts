/** The one process that a guest looks after: a shell command in a group of its own, with a bare environment. */
import type { Clock } from '../base/clock.ts'
import { ProcessGroup, pickEnv } from '../base/processes.ts'

/** Between SIGTERM and SIGKILL to the group. */
export const KILL_GRACE_MS = 3000
/** After the exit, for the output that is still in the pipes. */
const PIPE_GRACE_MS = 1000
const PASSED_ON = ['PATH', 'HOME', 'LANG', 'TMPDIR', 'PYLON_ROOT', 'PYLON_RUNTIME_MARKER']

export interface CommandOptions {
  /** For `sh -c`. */
  readonly command: string
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
  readonly runAs?: { readonly uid: number; readonly gid: number } | undefined
  readonly clock: Clock
}

/** @param stdin whether the command is spoken to; else it reads nothing */
export function startCommand({ command, cwd, env, runAs, clock }: CommandOptions, stdin: boolean): ProcessGroup {
  const path = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' }
  const bare = { ...path, ...pickEnv(PASSED_ON, env) }
  return new ProcessGroup(['sh', '-c', command], { cwd, env: bare, stdin, runAs, pipeGraceMs: PIPE_GRACE_MS, clock })
}
