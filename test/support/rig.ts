/** A home of its own and real processes of the built program on it; disposal ends them and fails if one was left behind. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isPylonError } from '../../src/base/errors.ts'
import { readFileIfAny } from '../../src/base/files.ts'
import { type Home, homeAt } from '../../src/base/paths.ts'
import { type CallOptions, callRoute, type Input, type Output, type Route } from '../../src/control/client.ts'
import { nodeRoutes } from '../../src/control/contract/node.ts'
import { CliHost } from './cli-host.ts'
import { killAll } from './kill.ts'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

/** The program under test: PYLON_BIN (the packaged executable), else the bundle. */
export const PROGRAM: readonly string[] =
  process.env['PYLON_BIN'] === undefined ? [process.execPath, join(root, 'dist', 'pylon.cjs')] : [process.env['PYLON_BIN']]

/** Compiling the bundle anew would be half the time of a command. */
const COMPILE_CACHE = join(root, 'dist', '.compile-cache')

/** Commands that ask a node, or read what it left, and no more. */
const ASKING = new Set('agent alerts approvals bunker config earnings job jobs runtime status wallet'.split(' '))

/** None where it is the executable that is tested: all of its commands are processes. */
const host = process.env['PYLON_BIN'] === undefined ? new CliHost(join(root, 'dist'), { NODE_COMPILE_CACHE: COMPILE_CACHE }) : undefined

/** How long a node may take to end at disposal. */
const END_MS = 5000
const RUN_MS = 60_000

export interface Run {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
  /** Of stdout. */
  json<T = Record<string, unknown>>(): T
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly input?: string | Uint8Array
  readonly timeoutMs?: number
}

export class Rig implements AsyncDisposable {
  /** The live home; `sandboxHome` is inside it. */
  readonly dir: string
  readonly home: Home
  readonly sandboxHome: Home
  readonly #started = new Set<ChildProcess>()
  /** Families of commands that ran as a process here. */
  readonly #seen = new Set<string>()

  constructor() {
    // Short: a socket path holds 107 bytes.
    this.dir = mkdtempSync(join(tmpdir(), 'pyl-'))
    this.home = homeAt(join(this.dir, 'h'))
    this.sandboxHome = homeAt(this.home.sandbox)
    // Nothing of a test leaves this machine: no default relays, no probing of model servers.
    mkdirSync(this.home.dir)
    writeFileSync(this.home.config, '[node]\nrelays = ["ws://127.0.0.1:9"]\n[provider]\nprobe = false\n')
  }

  /** Writes the configuration of the sandbox home before its first start: by commands it would be a process for each line. */
  configure(text: string): void {
    mkdirSync(this.sandboxHome.dir, { recursive: true })
    writeFileSync(this.sandboxHome.config, text)
  }

  /** The environment of every process of this rig, made from nothing. */
  env(more: Readonly<Record<string, string>> = {}): Record<string, string> {
    const own = { HOME: this.dir, PYLON_HOME: this.home.dir, TMPDIR: tmpdir(), NODE_COMPILE_CACHE: COMPILE_CACHE }
    return { PATH: process.env['PATH'] ?? '', ...own, ...more }
  }

  /** Runs one command to its end: the first of its family as a process, further ones that only ask in one that stays. */
  async run(args: readonly string[], options: RunOptions = {}): Promise<Run> {
    const [family = ''] = args
    const isPlain = ASKING.has(family) && options.env === undefined && options.input === undefined
    if (host?.isFree === true && isPlain && this.#seen.has(family)) {
      const order = { args, env: this.env(), cwd: this.dir }
      const { code, stdout, stderr } = await host.run(order, options.timeoutMs ?? RUN_MS)
      return runOf(args, code, stdout.toString('utf8'), stderr.toString('utf8'))
    }
    this.#seen.add(family)
    const child = this.spawn(args, options)
    const chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] }
    child.stdout?.on('data', (chunk: Buffer) => chunks.stdout.push(chunk))
    child.stderr?.on('data', (chunk: Buffer) => chunks.stderr.push(chunk))
    child.stdin?.end(options.input ?? '')
    const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? RUN_MS)
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code) => resolve(code))
    })
    clearTimeout(timer)
    const stdout = Buffer.concat(chunks.stdout).toString('utf8')
    const stderr = Buffer.concat(chunks.stderr).toString('utf8')
    return runOf(args, code, stdout, stderr)
  }

  /** Runs a command that must succeed. */
  async ok(...args: string[]): Promise<Run> {
    const run = await this.run(args)
    if (run.code !== 0) throw new Error(`pylon ${args.join(' ')} gave ${run.code}: ${run.stderr}${run.stdout}\n${this.logs()}`)
    return run
  }

  /** A process that goes on; killed at disposal. */
  spawn(args: readonly string[], options: RunOptions = {}): ChildProcess {
    const [command = '', ...first] = PROGRAM
    const child = spawn(command, [...first, ...args], { cwd: this.dir, env: this.env(options.env), stdio: ['pipe', 'pipe', 'pipe'] })
    child.stdin?.on('error', () => undefined)
    this.#started.add(child)
    child.once('close', () => this.#started.delete(child))
    return child
  }

  /** Asks the node that runs here over its socket: for what a test looks at again and again, a process each would be too slow. */
  async call<R extends Route>(route: R, input: Input<R>, options: CallOptions = {}): Promise<Output<R>> {
    const { socket } = existsSync(this.sandboxHome.socket) ? this.sandboxHome : this.home
    return (await callRoute(socket, route, input, options)).value
  }

  /** Starts a node without the start command, with a fault point or without; resolves when it answers or has died already. */
  async launch(flags: readonly string[], fault?: string): Promise<{ died: Promise<NodeJS.Signals | null> }> {
    const child = this.spawn(['daemon', ...flags], { env: fault === undefined ? {} : { PYLON_FAULT: fault } })
    child.stdout?.resume()
    child.stderr?.resume()
    const died = new Promise<NodeJS.Signals | null>((resolve) => child.once('close', (_code, signal) => resolve(signal)))
    const isOver = () => child.exitCode !== null || child.signalCode !== null
    for (const deadlineMs = Date.now() + 60_000; !isOver() && !(await this.#answers()); ) {
      if (Date.now() > deadlineMs) throw new Error(`the node did not answer\n${this.logs()}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    return { died }
  }

  async #answers(): Promise<boolean> {
    try {
      await this.call(nodeRoutes.ping, {})
      return true
    } catch (error) {
      if (isPylonError(error)) return false
      throw error
    }
  }

  /** What every log of this rig says, for failures. */
  logs(): string {
    return [this.home.log, this.sandboxHome.log]
      .filter((path) => existsSync(path))
      .map((path) => `--- ${path}\n${readFileSync(path, 'utf8').slice(-8000)}`)
      .join('\n')
  }

  /** Processes of this rig that live, by the home in their environment. */
  processes(): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
      .map(Number)
      .filter((pid) => isAliveIn(pid, this.home.dir))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const nodes = this.#nodes()
    for (const child of this.#started) if (!nodes.includes(child.pid ?? 0)) child.kill('SIGKILL')
    killAll(nodes, 'SIGTERM')
    await this.#waitUntil(() => this.#nodes().length === 0)
    killAll(this.#nodes())
    await this.#waitUntil(() => this.processes().length === 0)
    const leaked = this.processes()
    killAll(leaked)
    const logs = this.logs()
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 })
    if (leaked.length > 0) throw new Error(`processes ${leaked.join(', ')} were left behind\n${logs}`)
    if (logs.includes('answer does not match its schema')) throw new Error(`an answer missed its schema\n${logs}`)
  }

  /** The nodes of both homes that live, by their PID files. */
  #nodes(): number[] {
    const named = [this.home, this.sandboxHome].map((home) => Number(/"pid":(\d+)/.exec(readFileIfAny(home.pidFile) ?? '')?.[1]))
    return this.processes().filter((pid) => named.includes(pid))
  }

  async #waitUntil(isDone: () => boolean): Promise<void> {
    for (const deadlineMs = Date.now() + END_MS; !isDone() && Date.now() < deadlineMs; ) {
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
  }
}

const runOf = (args: readonly string[], code: number | null, stdout: string, stderr: string): Run => ({
  code,
  stdout,
  stderr,
  json: <T>() => parse<T>(stdout, args, stderr),
})

function isAliveIn(pid: number, home: string): boolean {
  try {
    const environment = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0')
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const state = stat[stat.lastIndexOf(')') + 2]
    return state !== 'Z' && environment.includes(`PYLON_HOME=${home}`)
  } catch {
    return false
  }
}

function parse<T>(stdout: string, args: readonly string[], stderr: string): T {
  try {
    return JSON.parse(stdout) as T
  } catch {
    throw new Error(`pylon ${args.join(' ')} printed no JSON: ${stdout}\n${stderr}`)
  }
}
