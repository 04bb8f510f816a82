/** Processes: the one door to them. No shell of ours, no environment but what is given, and what runs in a group ends whole. */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { constants } from 'node:os'
import type { Readable } from 'node:stream'
import { type Clock, systemClock } from './clock.ts'
import { PylonError } from './errors.ts'

export type { ChildProcess }

/** What a program that does not start is said to have exited with. */
const NOT_STARTED = 127

/** Starts a program that is looked up on PATH. Whoever starts it ends it. */
export function spawnProcess(
  argv: readonly string[],
  options: Pick<SpawnOptions, 'cwd' | 'detached' | 'stdio' | 'uid' | 'gid'> & { readonly env: NodeJS.ProcessEnv },
): ChildProcess {
  const [file, ...args] = argv
  if (file === undefined || file === '') throw new PylonError('internal', 'The command is empty.')
  return spawn(file, args, options)
}

export interface Exit {
  /** 128 + n for a signal, 127 where it did not start. */
  readonly code: number
  readonly signal: NodeJS.Signals | null
  /** Why it did not start. */
  readonly error?: Error
}

export interface GroupOptions {
  readonly cwd?: string | undefined
  readonly env: NodeJS.ProcessEnv
  /** Whether it is spoken to; else it reads nothing. */
  readonly stdin?: boolean
  readonly runAs?: { readonly uid: number; readonly gid: number } | undefined
  /** What the program leaves running is killed when it exits, and its pipes are closed after this. Left out: its pipes are waited for. */
  readonly pipeGraceMs?: number
  readonly clock: Clock
}

/** A program and all that it starts in its process group. */
export class ProcessGroup {
  readonly process: ChildProcess
  /** Resolves when the program and its output have ended; never rejects. */
  readonly exited: Promise<Exit>
  readonly #clock: Clock
  #cancelKill: (() => void) | undefined
  /** Its group is gone: its number may be another's. */
  #isEnded = false

  constructor(argv: readonly string[], { cwd, env, stdin = false, runAs, pipeGraceMs, clock }: GroupOptions) {
    this.#clock = clock
    this.process = spawnProcess(argv, { cwd, env, detached: true, stdio: [stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'], ...runAs })
    // A program that does not read its input closes it: its exit tells.
    this.process.stdin?.on('error', () => undefined)
    this.exited = new Promise((resolve) => {
      this.process.once('error', (error) => {
        if (this.process.pid === undefined) resolve({ code: NOT_STARTED, signal: null, error })
      })
      this.process.once('exit', () => {
        if (pipeGraceMs === undefined) return
        this.kill('SIGKILL')
        // A grandchild that left the group may hold the pipes for ever.
        const cancel = clock.after(pipeGraceMs, () => this.closePipes())
        this.process.once('close', cancel)
      })
      this.process.once('close', (code, signal) => {
        this.#cancelKill?.()
        this.kill('SIGKILL')
        this.#isEnded = true
        resolve({ code: code ?? 128 + (signal === null ? 0 : constants.signals[signal]), signal })
      })
    })
  }

  kill(signal: NodeJS.Signals): void {
    if (this.process.pid === undefined || this.#isEnded) return
    try {
      process.kill(-this.process.pid, signal)
    } catch {
      // The group is gone.
    }
  }

  /** SIGTERM, and SIGKILL to what is left of it after the grace. */
  stop(graceMs: number): void {
    if (this.#cancelKill !== undefined || this.#isEnded) return
    this.kill('SIGTERM')
    this.#cancelKill = this.#clock.after(graceMs, () => this.kill('SIGKILL'))
  }

  /** What it still writes is not waited for. */
  closePipes(): void {
    this.process.stdout?.destroy()
    this.process.stderr?.destroy()
  }
}

/** What is written to a stream, its first bytes. */
export class Capture {
  readonly #chunks: Buffer[] = []
  #bytes = 0
  isOver = false

  /** @param onOver called at every chunk that does not fit */
  constructor(stream: Readable | null, maxBytes: number, onOver: () => void = () => undefined) {
    stream?.on('data', (chunk: Buffer) => {
      const room = maxBytes - this.#bytes
      if (room > 0) this.#chunks.push(chunk.subarray(0, room))
      this.#bytes += Math.min(chunk.length, Math.max(room, 0))
      if (chunk.length <= room) return
      this.isOver = true
      onOver()
    })
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString('utf8')
  }
}

export interface ProgramRun {
  readonly argv: readonly string[]
  readonly cwd?: string
  readonly env: NodeJS.ProcessEnv
  readonly timeoutMs: number
  /** Of stdout and of stderr each; what is over is dropped. */
  readonly maxBytes: number
  readonly signal?: AbortSignal
}

export interface ProgramEnd {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
  readonly truncated: boolean
}

/** Runs a program to its end; its whole group goes with it. @throws timeout; the signal's reason; as spawn does where it does not start (ENOENT) */
export async function runProgram(
  { argv, timeoutMs, maxBytes, signal, ...rest }: ProgramRun,
  clock: Clock = systemClock,
): Promise<ProgramEnd> {
  signal?.throwIfAborted()
  const group = new ProcessGroup(argv, { ...rest, clock })
  const [stdout, stderr] = [new Capture(group.process.stdout, maxBytes), new Capture(group.process.stderr, maxBytes)]
  let isLate = false
  const end = () => {
    group.kill('SIGKILL')
    group.closePipes()
  }
  const cancel = clock.after(timeoutMs, () => {
    isLate = true
    end()
  })
  signal?.addEventListener('abort', end, { once: true })
  const exit = await group.exited
  cancel()
  signal?.removeEventListener('abort', end)
  if (exit.error !== undefined) throw exit.error
  signal?.throwIfAborted()
  if (isLate) throw new PylonError('timeout', `The command took longer than ${timeoutMs} ms and was stopped.`)
  return { exitCode: exit.code, stdout: stdout.text(), stderr: stderr.text(), truncated: stdout.isOver || stderr.isOver }
}

/** The same for programs that say by their exit code whether they did it. @returns its stdout @throws runtime_failed with its last words */
export async function outputOf(run: ProgramRun): Promise<string> {
  const { exitCode, stdout, stderr } = await runProgram(run)
  if (exitCode === 0) return stdout
  throw new PylonError('runtime_failed', `${run.argv[0]} ended with ${exitCode}: ${stderr.trim().slice(-500)}`)
}

/** Of this process's environment, those names alone; and more. */
export function pickEnv(names: readonly string[], more: Readonly<Record<string, string>> = {}): Record<string, string> {
  const env: Record<string, string> = {}
  for (const name of names) {
    const value = process.env[name]
    if (value !== undefined) env[name] = value
  }
  return { ...env, ...more }
}
