/** The daemon as a good background process: one a home, ready when start returns, gone when stop returns, whatever was killed before. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, openSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { expect, test, vi } from 'vitest'
import { readFileIfAny } from '../../src/base/files.ts'
import { nodeRoutes } from '../../src/control/contract/node.ts'
import { PROGRAM, Rig } from '../support/rig.ts'

interface Status {
  readonly running: boolean
  readonly pid: number
  readonly mode: string
  readonly network: string
  readonly locked: boolean
  readonly sandbox: { relay_url: string; mint_url: string; lnurl_base_url: string } | null
  readonly identity: { npub: string }
}

const statusOf = (rig: Rig) => rig.call(nodeRoutes.status, {})
const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8)

test('starts, keeps everything private, tells its status by the contract, and stops', async () => {
  await using rig = new Rig()
  chmodSync(rig.home.dir, 0o755)
  const before = await rig.run(['status', '--json'])
  expect(before.code).toBe(3)
  expect(before.json()).toMatchObject({ network: 'live', running: false })

  const started = await rig.ok('start', '--json')
  const status = (await rig.ok('status', '--json')).json()
  expect(Object.keys(status)[0]).toBe('network')
  expect(status).toMatchObject({
    network: 'live',
    running: true,
    home: rig.home.dir,
    pid: started.json<Status>().pid,
    mode: 'both',
    locked: false,
    sandbox: null,
    identity: { npub: expect.stringMatching(/^npub1/), pubkey: expect.stringMatching(/^[0-9a-f]{64}$/) },
    host: { agents: [] },
    provider: { state: 'degraded', kinds: expect.any(Array), backends: expect.any(Array), jobs: {} },
    relays: [{ url: 'ws://127.0.0.1:9', outbox_depth: expect.any(Number) }],
    wallet: { balance_sats: 0, at_risk_sats: 0, mints: [] },
    runtimes: { state: 'ok' },
  })

  expect(modeOf(rig.home.dir)).toBe('700')
  expect(modeOf(join(rig.home.dir, 'logs'))).toBe('700')
  for (const path of [rig.home.socket, rig.home.database, rig.home.identity, rig.home.log, rig.home.pidFile, rig.home.lease]) {
    expect(`${path} ${modeOf(path)}`).toBe(`${path} 600`)
  }

  const stopped = await rig.ok('stop')
  expect(stopped.stdout).toContain('has stopped')
  expect((await rig.run(['status'])).code).toBe(3)
  expect(existsSync(rig.home.socket)).toBe(false)
  expect(existsSync(rig.home.pidFile)).toBe(false)
  expect((await rig.ok('stop')).stdout).toContain('not running')
})

test('starting a running node says so and how to change its mode; stopped by a signal it is named by every command, and ends when it is asked to', async () => {
  await using rig = new Rig()
  const first = (await rig.ok('start', '--mode', 'provider', '--json')).json<Status>()
  const again = await rig.ok('start', '--json')
  expect(again.json()).toMatchObject({ pid: first.pid, was_running: true, mode: 'provider' })
  const other = await rig.ok('start', '--mode', 'host')
  expect(other.stdout).toContain('already running')
  expect(other.stderr).toContain('pylon restart --mode host')

  process.kill(first.pid, 'SIGSTOP')
  const [status, doctor] = await Promise.all([rig.run(['status']), rig.run(['doctor', '--json'])])
  expect([status.code, status.stderr]).toEqual([1, expect.stringMatching(/stopped or hung.*\(timeout\)/)])
  expect(doctor.json<{ checks: object[] }>().checks[0]).toMatchObject({ name: 'node', state: 'failed' })
  expect((await rig.ok('stop')).stderr).toContain('does not answer')
})

test('two starts at once give one daemon, and both succeed', async () => {
  await using rig = new Rig()
  const runs = await Promise.all([1, 2, 3].map(() => rig.run(['start', '--json'])))
  expect(runs.map((run) => [run.code, run.stderr])).toEqual([
    [0, ''],
    [0, ''],
    [0, ''],
  ])
  expect(new Set(runs.map((run) => run.json<Status>().pid)).size).toBe(1)
  expect(rig.processes()).toHaveLength(1)
})

test('what keeps the daemon from starting is said, with exit code 1', async () => {
  await using rig = new Rig()
  writeFileSync(rig.home.config, '[node]\nmode = "sideways"\n')
  const run = await rig.run(['start'])
  expect(run.code).toBe(1)
  expect(run.stderr).toMatch(/^pylon: .*node\.mode.*\(config_invalid\)\n$/)
  const asJson = await rig.run(['start', '--json'])
  expect(JSON.parse(asJson.stderr)).toMatchObject({ error: { code: 'config_invalid', retryable: false } })
  expect(rig.processes()).toEqual([])
})

test('a daemon that dies before it is ready shows how; SIGHUP takes a new configuration, SIGTERM ends it cleanly', async () => {
  await using rig = new Rig()
  const run = await rig.run(['start'], { env: { PYLON_FAULT: 'after:put_setting' } })
  expect(run.code).toBe(1)
  expect(run.stderr).toMatch(/signal SIGKILL.*\(start_failed\)/)

  await rig.ok('start')
  const { pid } = await statusOf(rig)
  writeFileSync(rig.home.config, `${readFileSync(rig.home.config, 'utf8')}[wallet]\nmint_cap_sats = 7\n`)
  process.kill(pid, 'SIGHUP')
  await vi.waitFor(() => expect(rig.logs()).toContain('wallet.mint_cap_sats'))
  process.kill(pid, 'SIGTERM')
  await vi.waitFor(() => expect(rig.processes()).toEqual([]), 10_000)
  expect(rig.logs()).toContain('"clean":true')
  expect(existsSync(rig.home.pidFile)).toBe(false)
})

test('starts again after kill -9, over its leftovers; stop --force kills at once, and a frozen daemon is killed after the timeout', async () => {
  await using rig = new Rig()
  await rig.ok('start')
  const before = await statusOf(rig)
  process.kill(before.pid, 'SIGKILL')
  await vi.waitFor(() => expect(rig.processes()).toEqual([]))
  expect(existsSync(rig.home.socket)).toBe(true)
  expect((await rig.run(['status'])).code).toBe(3)
  await rig.ok('start')
  const after = await statusOf(rig)
  expect(after.pid).not.toBe(before.pid)
  expect(after.identity).toEqual(before.identity)

  expect((await rig.ok('stop', '--force')).stdout).toContain('was killed')
  await rig.ok('start')
  process.kill((await statusOf(rig)).pid, 'SIGSTOP')
  const run = await rig.ok('stop', '--timeout', '1', '--json')
  expect(run.json()).toMatchObject({ stopped: true, how: 'killed' })
})

test('what lies at the socket path and is no socket stays there', async () => {
  await using rig = new Rig()
  writeFileSync(rig.home.socket, 'precious')
  const run = await rig.run(['start'])
  expect(run.code).toBe(1)
  expect(run.stderr).toContain('(home_unusable)')
  expect(readFileSync(rig.home.socket, 'utf8')).toBe('precious')
})

test('a PID file that names an innocent process: it lives', async () => {
  await using rig = new Rig()
  const innocent = spawn('sleep', ['300'], { stdio: 'ignore' })
  try {
    const record = { pid: innocent.pid, start_time: '1', boot_id: 'x', version: '0', socket: rig.home.socket }
    for (const text of [JSON.stringify(record), String(innocent.pid), JSON.stringify({ pid: innocent.pid })]) {
      writeFileSync(rig.home.pidFile, text)
      expect((await rig.ok('stop', '--force')).stdout).toContain('not running')
      expect((await rig.ok('stop')).stdout).toContain('not running')
    }
    expect(innocent.exitCode).toBeNull()
    expect(innocent.signalCode).toBeNull()
  } finally {
    innocent.kill('SIGKILL')
  }
})

test('a home path that is too long for a socket is refused in clear words', async () => {
  await using rig = new Rig()
  const long = join(rig.dir, 'x'.repeat(120))
  const run = await rig.run(['start'], { env: { PYLON_HOME: long } })
  expect(run.code).toBe(1)
  expect(run.stderr).toMatch(/control socket path is \d+ bytes long.*\(home_unusable\)/)
  expect(existsSync(long)).toBe(false)
})

test('a home that is a file, or below one, is refused in clear words', async () => {
  await using rig = new Rig()
  const file = join(rig.dir, 'f')
  writeFileSync(file, '')
  for (const home of [file, join(file, 'below')]) {
    const run = await rig.run(['start'], { env: { PYLON_HOME: home } })
    expect(run.code).toBe(1)
    expect(run.stderr).toContain('(home_unusable)')
  }
})

test('a damaged database is refused with the way out', async () => {
  await using rig = new Rig()
  writeFileSync(rig.home.database, 'this is not a database, whatever its name says'.repeat(200))
  const run = await rig.run(['start'])
  expect(run.code).toBe(1)
  expect(run.stderr).toMatch(/pylon restore.*\(database_corrupt\)/)
})

test('wrong usage gives exit code 2 and one line', async () => {
  await using rig = new Rig()
  const wrong = [
    ['--json=false'],
    ['fly'],
    ['start', '--wings'],
    ['start', '--mode', 'sideways'],
    ['start', '--relay', 'http://x'],
    ['start', '--sandbox', '--mint', 'http://127.0.0.1:1'],
    ['stop', '--timeout', 'soon'],
    ['logs', '-n', '-1'],
    ['config', 'set', 'node.mode'],
    ['config'],
  ]
  for (const args of wrong) {
    const run = await rig.run(args)
    expect({ args, code: run.code, out: run.stdout }).toEqual({ args, code: 2, out: '' })
    expect(run.stderr).toMatch(/^pylon: [^\n]+\(usage\)\n$/)
  }
  expect(rig.processes()).toEqual([])
})

test('NODE_OPTIONS of the caller does not reach the daemon', async () => {
  await using rig = new Rig()
  const spy = join(rig.dir, 'spy.cjs')
  writeFileSync(
    spy,
    `require('node:fs').appendFileSync(${JSON.stringify(join(rig.dir, 'spied'))}, process.argv.slice(2).join(' ') + '\\n')`,
  )
  expect((await rig.run(['start'], { env: { NODE_OPTIONS: `--require ${spy}` } })).code).toBe(0)
  expect(readFileIfAny(join(rig.dir, 'spied')) ?? '').not.toContain('daemon')
  // Nor the launcher, or the executable where that is what runs here.
  const launcher = process.env['PYLON_BIN'] ?? join(import.meta.dirname, '..', '..', 'bin', 'pylon')
  const env = { ...process.env, NODE_OPTIONS: '--require /nowhere/at/all.cjs' }
  expect(spawnSync(launcher, ['--version'], { env }).status).toBe(0)
})

test('logs are shown, followed, and rotated when large at start', async () => {
  await using rig = new Rig()
  mkdirSync(join(rig.home.dir, 'logs'))
  writeFileSync(rig.home.log, 'x'.repeat(11 * 1024 * 1024))
  await rig.ok('start')
  expect(statSync(`${rig.home.log}.1`).size).toBe(11 * 1024 * 1024)
  expect((await rig.ok('logs', '-n', '1')).stdout.trimEnd().split('\n')).toHaveLength(1)
  const follow = rig.spawn(['logs', '-f', '-n', '0', '--json'])
  let seen = ''
  follow.stdout?.on('data', (chunk: Buffer) => {
    seen += chunk.toString()
  })
  await vi.waitFor(async () => {
    await rig.ok('config', 'set', 'wallet.mint_cap_sats', String(seen.length + 1000))
    expect(seen).toContain('configuration read again')
  }, 20_000)
  await rig.ok('stop')
  expect((await rig.ok('logs')).stdout).toContain('ended')
})

test('config is shown, set and refused', async () => {
  await using rig = new Rig()
  expect((await rig.ok('config', 'path')).stdout.trim()).toBe(rig.home.config)
  await rig.ok('config', 'set', 'provider.concurrency', '9')
  expect((await rig.ok('config', 'get', 'provider.concurrency')).stdout.trim()).toBe('9')
  const refused = await rig.run(['config', 'set', 'provider.concurrency', '0'])
  expect(refused.code).toBe(1)
  expect(refused.stderr).toContain('(config_invalid)')
  expect((await rig.run(['config', 'get', 'provider.nonsense'])).stderr).toContain('(config_unknown_key)')
  expect((await rig.ok('config', 'show', '--json')).json()).toMatchObject({ network: 'live', provider: { concurrency: 9 } })
  await rig.ok('start')
  expect((await rig.ok('config', 'set', 'node.mode', 'host')).stderr).toContain('pylon restart')
  const { pid } = (await rig.ok('restart', '--json')).json<Status>()

  writeFileSync(rig.home.config, 'broken = [')
  for (const args of [['config', 'show'], ['config', 'set', 'node.name', 'x'], ['restart']]) {
    const broken = await rig.run(args)
    expect({ args, code: broken.code, err: broken.stderr }).toEqual({ args, code: 1, err: expect.stringContaining('(config_invalid)') })
  }
  expect(await statusOf(rig)).toMatchObject({ pid, mode: 'host' })
})

const unshare = ['--pid', '--fork', '--mount-proc']
const canUnshare = process.platform === 'linux' && spawnSync('unshare', [...unshare, 'true']).status === 0

test('as the first process of a container it reaps what others left and passes signals on', { skip: !canUnshare }, async () => {
  await using rig = new Rig()
  const daemon = spawn('unshare', [...unshare, ...PROGRAM, 'daemon'], { env: rig.env(), stdio: 'ignore' })
  const ended = once(daemon, 'exit')
  const childrenOf = (pid: number) => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number)
  await vi.waitFor(() => expect(existsSync(rig.home.pidFile)).toBe(true), 30_000)
  const first = childrenOf(daemon.pid ?? 0)[0] ?? 0
  spawnSync('nsenter', ['-t', String(first), '-p', '-m', 'sh', '-c', '(sleep 0.2 &)'])
  await vi.waitFor(() => expect(childrenOf(first)).toHaveLength(1), 10_000)
  process.kill(first, 'SIGTERM')
  expect(await ended).toEqual([0, null])
  expect(readFileSync(rig.home.log, 'utf8')).toMatch(/"reason":"SIGTERM"/)
})

test('restart starts a stopped node, and says so', async () => {
  await using rig = new Rig()
  expect((await rig.ok('restart')).stdout).toContain('was not running')
  expect((await rig.ok('restart')).stdout).toContain('runs again')
})

test('reads offline: doctor, earnings, jobs and agents; a newer database is refused and left as it is', async () => {
  await using rig = new Rig()
  expect((await rig.run(['earnings'])).code).toBe(3)
  await rig.ok('start')
  await rig.ok('stop')
  expect((await rig.ok('doctor', '--json')).json()).toMatchObject({ network: 'live', ok: true })
  expect((await rig.ok('earnings', '--json')).json()).toMatchObject({ network: 'live', total_msats: 0 })
  expect((await rig.ok('jobs', 'list', '--json')).json()).toMatchObject({ jobs: [] })
  expect((await rig.ok('agent', 'list', '--json')).json()).toMatchObject({ agents: [] })
  chmodSync(rig.home.dir, 0o750)
  const run = await rig.run(['doctor'])
  expect(run.code).toBe(1)
  expect(run.stdout).toContain('chmod 700')
  chmodSync(rig.home.dir, 0o700)

  const db = new Sqlite(rig.home.database)
  db.pragma('user_version = 9999')
  db.close()
  for (const args of [['start'], ['earnings']]) {
    const refused = await rig.run(args)
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain('(database_newer)')
  }
  expect(await rig.run(['doctor'])).toMatchObject({ code: 1, stdout: expect.stringMatching(/FAILED +database: .*newer/) })
})

test('stdout that nobody reads does not hold anything up; what goes on until it is stopped ends then', async () => {
  await using rig = new Rig()
  const child = rig.spawn(['start'])
  child.stdout?.destroy()
  const code = await new Promise((resolve) => child.once('exit', resolve))
  expect(code).toBe(0)
  expect((await statusOf(rig)).pid).toBeGreaterThan(0)

  for (const args of [
    ['status', '--watch'],
    ['logs', '-f'],
  ]) {
    const watching = rig.spawn(args)
    const ended = new Promise((resolve) => watching.once('exit', (exit) => resolve(exit)))
    let err = ''
    watching.stderr?.on('data', (chunk: Buffer) => {
      err += chunk.toString()
    })
    await new Promise((resolve) => watching.stdout?.once('data', resolve))
    watching.stdout?.destroy()
    // The log ends at its next line.
    await rig.ok('config', 'set', 'node.about', JSON.stringify(args.join(' ')))
    expect({ args, code: await ended, err }).toEqual({ args, code: 0, err: '' })
  }
})

test('an answer that cannot be written is a failure', { skip: !existsSync('/dev/full') }, async () => {
  await using rig = new Rig()
  const [command = '', ...args] = [...PROGRAM, 'config', 'path']
  const child = spawn(command, args, { env: rig.env(), stdio: ['ignore', openSync('/dev/full', 'w'), 'pipe'] })
  let err = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    err += chunk.toString()
  })
  const code = await new Promise((resolve) => child.once('close', resolve))
  expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining('could not be written') })
})

test('a symlinked home works', async () => {
  await using rig = new Rig()
  const link = join(rig.dir, 'l')
  symlinkSync(rig.home.dir, link)
  expect((await rig.run(['start'], { env: { PYLON_HOME: link } })).code).toBe(0)
  expect((await statusOf(rig)).pid).toBeGreaterThan(0)
})

test('something else that listens on the socket is not taken for a node', async () => {
  await using rig = new Rig()
  const server = createServer((socket) => socket.resume().end('220 smtp.example.com ESMTP\r\n'))
  await new Promise<void>((resolve) => server.listen(rig.home.socket, resolve))
  try {
    const run = await rig.run(['status'])
    expect(run.code).toBe(1)
    expect(run.stderr).toMatch(/^pylon: [^\n]+\(internal\)\n$/)
  } finally {
    await new Promise((resolve) => server.close(resolve))
  }
})
