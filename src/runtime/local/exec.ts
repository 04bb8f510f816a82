/** Runs one command to its end with bounds on time and output, and takes its whole group down. */
import { spawn } from 'node:child_process'
import type { Clock } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import type { Execution } from '../adapter.ts'

export interface BoundedRun {
  readonly argv: readonly string[]
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
  readonly timeoutMs: number
  /** Of stdout and of stderr; what is over is dropped. */
  readonly maxBytes: number
}

/** @throws runtime_failed when it does not start; timeout */
export function runBounded(run: BoundedRun, clock: Clock): Promise<Execution> {
  const [file, ...args] = run.argv
  if (file === undefined) throw new PylonError('internal', 'The command is empty.')
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { cwd: run.cwd, env: run.env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    const kept = { stdout: new Kept(run.maxBytes), stderr: new Kept(run.maxBytes) }
    let timedOut = false
    const kill = () => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      } catch {
        // The group is gone.
      }
    }
    const cancel = clock.after(run.timeoutMs, () => {
      timedOut = true
      kill()
      // A grandchild that left the group may hold the pipes.
      child.stdout.destroy()
      child.stderr.destroy()
    })
    child.stdout.on('data', (chunk: Buffer) => kept.stdout.add(chunk))
    child.stderr.on('data', (chunk: Buffer) => kept.stderr.add(chunk))
    child.on('error', (error) => {
      cancel()
      if (child.pid === undefined) reject(new PylonError('runtime_failed', `The command does not start: ${error.message}.`))
    })
    child.on('close', (code) => {
      cancel()
      kill()
      if (timedOut) return reject(new PylonError('timeout', `The command took longer than ${run.timeoutMs} ms and was stopped.`))
      const { stdout, stderr } = kept
      resolve({ exitCode: code ?? 137, stdout: stdout.text(), stderr: stderr.text(), truncated: stdout.over || stderr.over })
    })
  })
}

class Kept {
  readonly #chunks: Buffer[] = []
  readonly #maxBytes: number
  #bytes = 0
  over = false

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  add(chunk: Buffer): void {
    const room = this.#maxBytes - this.#bytes
    if (chunk.length > room) this.over = true
    if (room <= 0) return
    this.#chunks.push(chunk.subarray(0, room))
    this.#bytes += Math.min(chunk.length, room)
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString('utf8')
  }
}
