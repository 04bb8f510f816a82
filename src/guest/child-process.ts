/** The one process that a guest looks after: its own group, a bare environment, ended whole. */
import { type ChildProcess, spawn } from 'node:child_process'
import type { Clock } from '../base/clock.ts'

/** Between SIGTERM and SIGKILL to the group. */
const KILL_GRACE_MS = 3000
/** After the exit, for the output that is still in the pipes. */
const PIPE_GRACE_MS = 1000

export interface CommandOptions {
  /** For `sh -c`. */
  readonly command: string
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
  readonly runAs?: { readonly uid: number; readonly gid: number } | undefined
  readonly clock: Clock
}

export interface Exit {
  /** 128 + n for a signal, 127 where it did not start. */
  readonly code: number
  readonly signal: NodeJS.Signals | null
  readonly error?: string
}

export class ManagedChild {
  readonly process: ChildProcess
  /** Resolves when the command and its output have ended; never rejects. */
  readonly exited: Promise<Exit>
  readonly #clock: Clock

  /** @param stdin whether the command is spoken to; else it reads nothing */
  constructor(options: CommandOptions, stdin: boolean) {
    this.#clock = options.clock
    this.process = spawn('sh', ['-c', options.command], {
      cwd: options.cwd,
      env: bareEnv(options.env),
      detached: true,
      stdio: [stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      ...(options.runAs === undefined ? {} : options.runAs),
    })
    // An agent that closes its input is noticed by its exit.
    this.process.stdin?.on('error', () => undefined)
    this.exited = new Promise((resolve) => {
      this.process.once('error', (error) => {
        if (this.process.pid === undefined) resolve({ code: 127, signal: null, error: error.message })
      })
      this.process.once('exit', (code, signal) => {
        // What the command left running in its group ends with it; then its pipes close.
        this.kill('SIGKILL')
        const exit: Exit = { code: code ?? 128 + (signal === null ? 0 : signalNumber(signal)), signal }
        // A grandchild that left the group may hold the pipes for ever.
        const cancel = this.#clock.after(PIPE_GRACE_MS, () => {
          this.process.stdout?.destroy()
          this.process.stderr?.destroy()
        })
        this.process.once('close', () => {
          cancel()
          resolve(exit)
        })
      })
    })
  }

  kill(signal: NodeJS.Signals): void {
    if (this.process.pid === undefined) return
    try {
      process.kill(-this.process.pid, signal)
    } catch {
      // The group is gone.
    }
  }

  /** SIGTERM to the group, SIGKILL after the grace. */
  async stop(): Promise<Exit> {
    this.kill('SIGTERM')
    const cancel = this.#clock.after(KILL_GRACE_MS, () => this.kill('SIGKILL'))
    const exit = await this.exited
    cancel()
    return exit
  }
}

function bareEnv(more: Readonly<Record<string, string>>): Record<string, string> {
  const env: Record<string, string> = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' }
  for (const name of ['PATH', 'HOME', 'LANG', 'TMPDIR', 'PYLON_ROOT', 'PYLON_RUNTIME_MARKER']) {
    const value = process.env[name]
    if (value !== undefined) env[name] = value
  }
  return { ...env, ...more }
}

const SIGNALS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGTERM: 15,
  SIGXCPU: 24,
  SIGXFSZ: 25,
}

function signalNumber(signal: NodeJS.Signals): number {
  return SIGNALS[signal] ?? 0
}
