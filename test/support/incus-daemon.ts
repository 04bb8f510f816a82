/** A real incusd for a test: its own folder, pool and processes, all gone afterwards. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { IncusClient } from '../../src/runtime/incus/client.ts'
import { testScope } from './scope.ts'

const INCUSD = '/usr/libexec/incus/incusd'
const PATH = `${process.env['PATH'] ?? ''}:/usr/local/sbin:/usr/sbin:/sbin`

/** Installs Incus where that can be done; the reason where it can't, undefined where it is there. */
export function ensureIncus(): string | undefined {
  if (process.platform !== 'linux') return 'Incus runs on Linux only'
  if (process.getuid?.() !== 0) return "starting an Incus daemon of one's own needs root"
  const setup = spawnSync('sh', [new URL('../live/setup-incus.sh', import.meta.url).pathname], { encoding: 'utf8', timeout: 280_000 })
  if (setup.status !== 0) return (setup.stderr || setup.error?.message || 'test/live/setup-incus.sh failed').trim().slice(-500)
  return undefined
}

export interface IncusDaemon {
  readonly dir: string
  readonly socketPath: string
  /** For the `incus` program. */
  readonly env: NodeJS.ProcessEnv
  client(project: string): IncusClient
  /** Kills the daemon; its containers live on. */
  kill(): Promise<void>
  /** Starts it again, or for the first time; resolves when it is ready. */
  start(): Promise<void>
  /** The `incus` program against this daemon. */
  cli(...args: string[]): string
  /** What `incus admin init --preseed` takes (YAML, so JSON too). */
  preseed(text: string): void
  /** Stops everything and leaves neither mount nor file. */
  destroy(): Promise<void>
}

export async function startIncusDaemon(): Promise<IncusDaemon> {
  startLxcfs()
  // The longest socket below it must fit into 108 bytes.
  const root = mkdtempSync(join(tmpdir(), 'pyi-'))
  // Root of a container is nobody here and must reach its own files.
  chmodSync(root, 0o711)
  const dir = join(root, 'd')
  mkdirSync(dir)
  const env = { ...process.env, INCUS_DIR: dir, PATH }
  const log = openSync(join(root, 'log'), 'a')
  let child: ChildProcess | undefined
  const scope = testScope()

  const daemon: IncusDaemon = {
    dir,
    socketPath: join(dir, 'unix.socket'),
    env: { ...env, INCUS_CONF: join(root, 'conf') },
    client(project) {
      return new IncusClient({ endpoint: { socketPath: join(dir, 'unix.socket') }, project, scope: scope.child(project) })
    },
    async start() {
      child = spawn(INCUSD, ['--group', 'root'], { env, stdio: ['ignore', log, log], detached: true })
      await succeed(INCUSD, ['waitready', '--timeout', '60'], env)
    },
    async kill() {
      const exited = new Promise((resolve) => child?.once('exit', resolve))
      child?.kill('SIGKILL')
      await exited
    },
    cli: (...args) => execFileSync('incus', args, { env: daemon.env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
    preseed: (text) => void execFileSync('incus', ['admin', 'init', '--preseed'], { env: daemon.env, input: text }),
    async destroy() {
      await scope.close()
      spawnSync(INCUSD, ['shutdown', '--timeout', '30'], { env, timeout: 60_000 })
      if (child?.exitCode === null && child.signalCode === null) await daemon.kill()
      unmountBelow(root)
      rmSync(root, { recursive: true, force: true })
    },
  }
  try {
    await daemon.start()
  } catch (error) {
    const words = readFileSync(join(root, 'log'), 'utf8').slice(-2000)
    await daemon.destroy()
    throw new Error(`incusd did not start: ${words}`, { cause: error })
  }
  return daemon
}

function succeed(program: string, args: string[], env: NodeJS.ProcessEnv): Promise<void> {
  return new Promise((resolve, reject) => {
    const run = spawn(program, args, { env, stdio: 'ignore' })
    run.once('error', reject)
    run.once('exit', (code) => (code === 0 ? resolve() : reject(new Error(`${program} ${args.join(' ')} ended with ${code}`))))
  })
}

/** Containers see their own limits only where lxcfs was there before they started; it is left running, for all. */
function startLxcfs(): void {
  if (readFileSync('/proc/mounts', 'utf8').includes(' /var/lib/lxcfs ') || !existsSync('/usr/bin/lxcfs')) return
  mkdirSync('/var/lib/lxcfs', { recursive: true })
  spawn('/usr/bin/lxcfs', ['/var/lib/lxcfs'], { stdio: 'ignore', detached: true }).unref()
}

function unmountBelow(root: string): void {
  const points = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((point) => point.startsWith(`${root}/`))
    .sort((a, b) => b.length - a.length)
  for (const point of points) spawnSync('umount', ['-l', point])
}
