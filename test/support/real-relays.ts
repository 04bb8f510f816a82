/** Relays that nobody here wrote, for the live lane: got by a script, each run in a folder of its own. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const LIVE = fileURLToPath(new URL('../live/', import.meta.url))
const SETUP_TIMEOUT_MS = 280_000
const BUILD_TIMEOUT_MS = 3_000_000
const START_MS = 20_000

interface Recipe {
  readonly setup: 'python' | 'go' | 'rust'
  readonly title: string
  run(
    program: string,
    dir: string,
    port: number,
  ): { readonly command: string; readonly args: readonly string[]; readonly env?: Record<string, string> }
}

const RECIPES: readonly Recipe[] = [
  {
    setup: 'python',
    title: 'nostr-relay (Python), which serves only who has logged in, one key a connection',
    run(program, dir, port) {
      const lines = [
        'relay_name: pylon test',
        'storage:',
        `  sqlalchemy.url: sqlite+aiosqlite:///${join(dir, 'nostr.sqlite3')}`,
        '  validators: [nostr_relay.validators.is_signed]',
        'gunicorn:',
        `  bind: 127.0.0.1:${port}`,
        '  workers: 1',
        'authentication:',
        '  enabled: true',
        '  authenticator_class: pylon_auth.LoggedIn',
        `  relay_urls: ["ws://127.0.0.1:${port}"]`,
        '  actions: {save: w, query: r}',
        'subscription_limit: 10',
      ]
      const config = join(dir, 'config.yaml')
      writeFileSync(config, `${lines.join('\n')}\n`)
      return { command: program, args: ['-c', config, 'serve'], env: { PYTHONPATH: join(LIVE, 'relay-python') } }
    },
  },
  {
    setup: 'go',
    title: 'khatru over eventstore (Go), which gives a quarter of its limit and answers NIP-77 by a notice',
    run: (program, dir, port) => ({ command: program, args: [`127.0.0.1:${port}`, join(dir, 'events')] }),
  },
  {
    setup: 'rust',
    title: 'nostr-rs-relay (Rust), which withholds private messages without a word, one key a connection',
    run(program, dir, port) {
      const lines = [
        '[info]',
        `relay_url = "ws://127.0.0.1:${port}"`,
        '[database]',
        `data_directory = "${dir}"`,
        '[network]',
        'address = "127.0.0.1"',
        `port = ${port}`,
        '[authorization]',
        'nip42_auth = true',
        'nip42_dms = true',
      ]
      const config = join(dir, 'config.toml')
      writeFileSync(config, `${lines.join('\n')}\n`)
      return { command: program, args: ['--config', config] }
    },
  },
]

export interface RealRelay {
  readonly url: string
  stop(): Promise<void>
}

export interface RelaySoftware {
  readonly title: string
  /** Why it can't be had here. */
  readonly missing: string | undefined
  start(): Promise<RealRelay>
}

/** All of them; what is not there yet is fetched and built first. */
export const realRelays = (): RelaySoftware[] =>
  RECIPES.map((recipe) => {
    const timeout = process.env['PYLON_TEST_BUILD_RUST'] === '1' ? BUILD_TIMEOUT_MS : SETUP_TIMEOUT_MS
    const setup = spawnSync('sh', [join(LIVE, 'setup-relay.sh'), recipe.setup], { encoding: 'utf8', timeout })
    const program = setup.stdout?.trim() ?? ''
    const missing =
      setup.status === 0 ? undefined : (setup.stderr?.trim() || setup.error?.message || 'test/live/setup-relay.sh failed').slice(-300)
    return { title: recipe.title, missing, start: () => startRelay(recipe, program) }
  })

async function startRelay(recipe: Recipe, program: string): Promise<RealRelay> {
  const dir = mkdtempSync(join(tmpdir(), 'pylon-relay-'))
  const port = await freePort()
  const { command, args, env } = recipe.run(program, dir, port)
  const child = spawn(command, args, {
    cwd: dir,
    env: { PATH: process.env['PATH'] ?? '', HOME: dir, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString('utf8')).slice(-4000)
    })
  }
  const relay: RealRelay = {
    url: `ws://127.0.0.1:${port}`,
    async stop() {
      await end(child)
      rmSync(dir, { recursive: true, force: true, maxRetries: 5 })
    },
  }
  if (await answers(port, child)) return relay
  await relay.stop()
  throw new Error(`${recipe.title} does not start: ${said}`)
}

/** Its workers too. */
async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null) return
  const ended = new Promise((resolve) => child.once('close', resolve))
  const kill = setTimeout(() => process.kill(-(child.pid ?? 0), 'SIGKILL'), 3000)
  process.kill(-child.pid, 'SIGTERM')
  await ended
  clearTimeout(kill)
}

async function answers(port: number, child: ChildProcess): Promise<boolean> {
  const until = Date.now() + START_MS
  while (Date.now() < until && child.exitCode === null) {
    const response = await fetch(`http://127.0.0.1:${port}`, { headers: { accept: 'application/nostr+json' } }).catch(() => undefined)
    if (response?.ok === true) return true
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return false
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}
