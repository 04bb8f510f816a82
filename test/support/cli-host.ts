/**
 * Commands of the built program in one process that stays, for those that only ask a node: what is tested of them is what they say,
 * and a process each costs more than all of their work. It is the same bundle; what a start and an end of a process show is shown by
 * the commands that the rig starts as their own.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export interface HostedRun {
  readonly code: number | null
  readonly stdout: Buffer
  readonly stderr: Buffer
}

interface Order {
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly cwd: string
}

export class CliHost {
  readonly #dist: string
  readonly #env: Readonly<Record<string, string>>
  #child: ChildProcess | undefined
  /** Of the bundle that it has loaded, as far as commands needed it. */
  #built = ''
  #isBusy = false

  /** @param dist where the bundle is; @param env of the process before its first command */
  constructor(dist: string, env: Readonly<Record<string, string>>) {
    this.#dist = dist
    this.#env = env
  }

  /** It runs one command at a time. */
  get isFree(): boolean {
    return !this.#isBusy
  }

  /** @returns code null where the process died, or was killed since the time was over */
  async run(order: Order, timeoutMs: number): Promise<HostedRun> {
    this.#isBusy = true
    const child = this.#child !== undefined && this.#built === this.#builtNow() ? this.#child : this.#start()
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
    try {
      return await new Promise((resolve) => {
        const onExit = () => resolve({ code: null, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) })
        child.once('exit', onExit)
        child.once('message', (answer: HostedRun) => {
          child.off('exit', onExit)
          resolve(answer)
        })
        child.send(order)
      })
    } finally {
      clearTimeout(timer)
      this.#isBusy = false
    }
  }

  /** Ends with this process: its channel closes then. */
  #start(): ChildProcess {
    // What it has not loaded yet went with the bundle that another build has replaced meanwhile.
    this.#child?.kill('SIGKILL')
    this.#built = this.#builtNow()
    const program = fileURLToPath(new URL('cli-host-child.mjs', import.meta.url))
    const child = fork(program, [this.#dist], {
      env: this.#env,
      execArgv: [],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    child.once('exit', () => {
      if (this.#child === child) this.#child = undefined
    })
    child.unref()
    child.channel?.unref()
    this.#child = child
    return child
  }

  /** A build is laid in whole, as files of its own. */
  #builtNow(): string {
    const { ino, mtimeMs } = statSync(join(this.#dist, 'pylon.cjs'))
    return `${ino} ${mtimeMs}`
  }
}
