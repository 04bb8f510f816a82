/** What each guest must do with one guest-request.json: the full one and the shell script under every shell that is here. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { decodeEvents, decodeResult, decodeStatus } from '../../src/runtime/contract/lifecycle.ts'
import { decodeRuntimeSpec } from '../../src/runtime/contract/spec.ts'
import { guestProgram, scriptedAgent } from '../support/local-runtimes.ts'
import { tempDir } from '../support/temp.ts'

const script = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'src/guest/guest.sh')
const full = [guestProgram.command, ...guestProgram.args]
const shells = [['dash'], ['busybox', 'sh'], ['bash']].filter(([name = '']) => isHere(name))
const guests: [string, string[]][] = [
  ['the full guest', full],
  ...shells.map((shell): [string, string[]] => [`guest.sh under ${shell.join(' ')}`, [...shell, script]]),
  ...(isHere('busybox') ? [busyboxAlone()] : []),
]

/** As in a busybox image: no program but its own. */
function busyboxAlone(): [string, string[]] {
  const dir = mkdtempSync(join(tmpdir(), 'py-busybox-'))
  afterAll(() => rmSync(dir, { recursive: true, force: true }))
  chmodSync(dir, 0o755)
  execFileSync('busybox', ['--install', '-s', dir])
  return ['guest.sh with busybox alone', ['env', `PATH=${dir}`, join(dir, 'sh'), script]]
}

/** For a loaded machine. */
const patience = { timeout: 20_000 }

interface Guest {
  readonly dir: string
  readonly child: ChildProcess
  readonly exit: Promise<number>
}

function start(argv: readonly string[], dir: string, env: NodeJS.ProcessEnv = {}): Guest {
  const [file = '', ...args] = argv
  const child = spawn(file, args, { cwd: dir, stdio: 'ignore', env: { PATH: process.env['PATH'], ...env } })
  onTestFinished(() => void child.kill('SIGKILL'))
  return {
    dir,
    child,
    exit: new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? (signal === 'SIGKILL' ? 137 : 1)))),
  }
}

function run(guest: readonly string[], request: unknown, more: readonly string[] = []): Guest {
  const dir = tempDir()
  const path = join(dir, 'guest-request.json')
  writeFileSync(path, typeof request === 'string' ? request : JSON.stringify(request))
  return start([...guest, '--request', path, '--state-dir', dir, ...more], dir)
}

const request = (command: string, timeout_secs = 20) => ({ schema_version: 2, command, timeout_secs, run_as_root: true })
const statusOf = (dir: string) => decodeStatus(readFileSync(join(dir, 'status.json'), 'utf8'), 'status.json')
const resultOf = (dir: string) => decodeResult(readFileSync(join(dir, 'result.json'), 'utf8'), 'result.json')
const eventsOf = (dir: string) => decodeEvents(readFileSync(join(dir, 'events.jsonl'), 'utf8'), 'events.jsonl')
const logOf = (dir: string, name: string) => readFileSync(join(dir, 'logs', name), 'utf8')

describe.each(guests)('%s', (_name, guest) => {
  test('tells its life in the files, bound to this boot', async () => {
    const { dir, exit } = run(guest, request('echo out; echo err >&2'))
    expect(await exit).toBe(0)
    const boot_id = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    expect(statusOf(dir)).toMatchObject({ state: 'completed', boot_id, details: { exit_code: 0 } })
    expect(resultOf(dir)).toMatchObject({ status: 'completed', exit_code: 0 })
    const events = eventsOf(dir)
    expect(events.map(({ seq, kind, boot_id }) => [seq, kind, boot_id])).toEqual([
      [1, 'booted', boot_id],
      [2, 'starting', boot_id],
      [3, 'completed', boot_id],
    ])
    expect(events[1]?.details).toEqual({ command: 'echo out; echo err >&2', run_as_root: true })
    expect([logOf(dir, 'stdout.log'), logOf(dir, 'stderr.log')]).toEqual(['out\n', 'err\n'])
    expect(logOf(dir, 'guest.log')).toContain('out\n')
    expect(readdirSync(dir).filter((name) => name.includes('tmp'))).toEqual([])
  })

  test('passes the exit code on', async () => {
    const { dir, exit } = run(guest, request('exit 42'))
    expect(await exit).toBe(42)
    expect(resultOf(dir)).toMatchObject({ status: 'failed', exit_code: 42, message: 'the command exited with 42' })
    expect(statusOf(dir).state).toBe('failed')
  })

  test('runs what the request says, letter by letter', async () => {
    const words = `tab\t "quotes" \\ back 'single' $HOME é € 😀 \u2028 / end`
    const { dir, exit } = run(guest, request(`cat <<'END'\n${words}\nEND\n`))
    expect(await exit).toBe(0)
    expect(logOf(dir, 'stdout.log')).toBe(`${words}\n`)
    const escaped = run(
      guest,
      '{ "run_as_root" : true,\n"timeout_secs":5, "command":"printf \\u0027\\u00e9\\ud83d\\ude00\\/\\u0027", "schema_version":2 }\n',
    )
    expect(await escaped.exit).toBe(0)
    expect(logOf(escaped.dir, 'stdout.log')).toBe('é😀/')
  })

  test('leaves artifacts where its environment says', async () => {
    const { dir, exit } = run(guest, request('echo kept > "$PYLON_ARTIFACTS_DIR/a"'))
    expect(await exit).toBe(0)
    expect(readFileSync(join(dir, 'artifacts/a'), 'utf8')).toBe('kept\n')
  })

  test('ends a run at its time, whatever it started and however it resists', async () => {
    const { dir, exit } = run(
      guest,
      request(`trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & echo $! > pid; while :; do sleep 0.1; done`, 1),
    )
    expect(await exit).toBe(124)
    expect(resultOf(dir)).toMatchObject({ status: 'failed', exit_code: 124, details: { failure_reason: 'timeout' } })
    await vi.waitFor(() => expect(isRunning(readPid(dir))).toBe(false), patience)
  })

  test.each([
    ['a pipe', 'mkfifo'],
    ['a folder', 'mkdir'],
    ['a link to another file', 'ln -s ../outside'],
  ])('leaves a result where its command puts %s in the place of its files', async (_what, make) => {
    const parent = tempDir()
    writeFileSync(join(parent, 'outside'), 'as it was')
    const dir = join(parent, 'state')
    mkdirSync(dir)
    const names = [
      'events.jsonl',
      'status.json',
      'result.json',
      '.timeout',
      '.error',
      'logs/stdout.log',
      'logs/stderr.log',
      'logs/guest.log',
    ]
    const outside = make.startsWith('ln') ? '$(case $f in logs/*) echo ../;; esac)' : ''
    const link = make.startsWith('ln') ? `ln -s ${outside}../outside $f` : `${make} $f`
    const path = join(dir, 'guest-request.json')
    writeFileSync(path, JSON.stringify(request(`cd ${dir}; for f in ${names.join(' ')}; do rm -rf $f; ${link}; done; exit 3`)))
    for (const _life of ['first', 'second']) {
      expect(await start([...guest, '--request', path, '--state-dir', dir], dir).exit).toBe(3)
      expect(resultOf(dir)).toMatchObject({ status: 'failed', exit_code: 3 })
      expect(statusOf(dir)).toMatchObject({ state: 'failed' })
    }
    expect(readFileSync(join(parent, 'outside'), 'utf8')).toBe('as it was')
  })

  test('ends a run at its time, though its command hides the clock', async () => {
    const { dir, exit } = run(guest, request('mkfifo .timeout; exec sleep 60', 1))
    expect(await exit).toBe(124)
    expect(resultOf(dir)).toMatchObject({ details: { failure_reason: 'timeout' } })
  })

  test('says in words that it can write nowhere', async () => {
    const dir = tempDir()
    const path = join(dir, 'guest-request.json')
    writeFileSync(path, JSON.stringify(request('true')))
    const child = spawn(guest[0] ?? '', [...guest.slice(1), '--request', path, '--state-dir', join(path, 'x')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    let words = ''
    child.stderr.on('data', (chunk: Buffer) => {
      words += chunk.toString()
    })
    const code = await new Promise((resolve) => child.once('close', resolve))
    expect(code).toBeGreaterThan(0)
    expect(words).toContain(join(path, 'x'))
    expect(words).not.toMatch(/\n\s+at /)
  })

  test('leaves nothing running that the command left behind', async () => {
    const { dir, exit } = run(guest, request('sleep 300 & echo $! > pid'))
    expect(await exit).toBe(0)
    await vi.waitFor(() => expect(isRunning(readPid(dir))).toBe(false), patience)
  })

  test('leaves a result when it is told to stop', async () => {
    const { dir, child, exit } = run(guest, request('echo $$ > pid; sleep 300'))
    await vi.waitFor(() => expect(readPid(dir)).not.toBe(''), patience)
    child.kill('SIGTERM')
    expect(await exit).toBe(143)
    expect(resultOf(dir)).toMatchObject({ status: 'failed', exit_code: 143, details: { failure_reason: 'terminated' } })
    expect(isRunning(readPid(dir))).toBe(false)
  })

  test('names a missing program', async () => {
    const { dir, exit } = run(guest, request('/no/such/program'))
    expect(await exit).toBe(127)
    expect(resultOf(dir)).toMatchObject({ status: 'failed', exit_code: 127 })
  })

  test.each([
    ['no JSON', '{', ''],
    ['nothing', '', ''],
    ['another schema', JSON.stringify({ ...request('true'), schema_version: 1 }), 'schema_version'],
    ['an unknown field', JSON.stringify({ ...request('true'), extra: 1 }), 'extra'],
    ['no time', JSON.stringify({ ...request('true'), timeout_secs: 0 }), 'timeout_secs'],
    ['a blank command', JSON.stringify(request(' \n')), 'command'],
    ['a NUL in the command', '{"schema_version":2,"command":"a\\u0000b","timeout_secs":5,"run_as_root":true}', 'command'],
    ['no user', '{"schema_version":2,"command":"true","timeout_secs":5}', 'run_as_root'],
    ['something after it', `${JSON.stringify(request('true'))} x`, ''],
  ])('refuses a request that is %s, with a result', async (_what, text, word) => {
    const { dir, exit } = run(guest, text)
    expect(await exit).toBe(2)
    const result = resultOf(dir)
    expect(result).toMatchObject({ status: 'failed', exit_code: 2, details: { failure_reason: 'guest_bootstrap_failed' } })
    expect(result.message).toContain('bootstrap failed')
    expect(result.message).toContain(word)
  })

  test('refuses a request that is not there, with a result', async () => {
    const dir = tempDir()
    const { exit } = start([...guest, '--request', join(dir, 'none.json'), '--state-dir', dir], dir)
    expect(await exit).toBe(2)
    expect(resultOf(dir).status).toBe('failed')
  })

  test('forgets the result of its earlier life and counts on', async () => {
    const first = run(guest, request('exit 1'))
    await first.exit
    const path = join(first.dir, 'guest-request.json')
    writeFileSync(path, JSON.stringify(request('true')))
    const second = start([...guest, '--request', path, '--state-dir', first.dir], first.dir)
    expect(await second.exit).toBe(0)
    expect(resultOf(first.dir).status).toBe('completed')
    expect(eventsOf(first.dir).map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6])
  })

  test.runIf(process.getuid?.() === 0)('runs as nobody where the request says so', async () => {
    const dir = tempDir()
    chmodSync(dir, 0o755)
    const path = join(dir, 'guest-request.json')
    writeFileSync(path, JSON.stringify({ ...request('id -u'), run_as_root: false }))
    expect(await start([...guest, '--request', path, '--state-dir', dir], dir).exit).toBe(0)
    expect(logOf(dir, 'stdout.log')).toBe('65534\n')
    expect(eventsOf(dir)[1]?.details).toMatchObject({ run_as_root: false })
  })
})

describe.each(guests.slice(1))('%s', (_name, guest) => {
  test('starts a failed run again by the policy it is given', async () => {
    const { dir, exit } = run(guest, request('[ -e tried ] || { touch tried; exit 1; }'), ['--restart', 'on_failure'])
    expect(await exit).toBe(0)
    expect(eventsOf(dir).map(({ kind }) => kind)).toEqual(['booted', 'starting', 'starting', 'completed'])
  })

  test('leaves a result for a guest that dies without one, and only then', async () => {
    const dir = tempDir()
    const supervise = [...guest, '--supervise', '--state-dir', dir, '--']
    expect(await start([...supervise, 'sh', '-c', 'kill -9 $$'], dir).exit).toBe(137)
    expect(resultOf(dir)).toMatchObject({ status: 'failed', exit_code: 137, details: { failure_reason: 'guest_died' } })
    expect(await start([...supervise, '/no/such/program'], dir).exit).toBe(127)
    expect(resultOf(dir)).toMatchObject({ exit_code: 127 })
    const said = { schema_version: 1, status: 'completed', finished_at: '2026-01-01T00:00:00Z', message: 'mine' }
    expect(await start([...supervise, 'sh', '-c', `echo '${JSON.stringify(said)}' > ${dir}/result.json; exit 5`], dir).exit).toBe(5)
    expect(resultOf(dir)).toEqual(said)
  })

  test('passes a stop on to what it supervises', async () => {
    const dir = tempDir()
    const guestOf = start(
      [
        ...guest,
        '--supervise',
        '--state-dir',
        dir,
        '--',
        'sh',
        '-c',
        `echo $$ > ${dir}/pid; trap 'exit 9' TERM; while :; do sleep 0.05; done`,
      ],
      dir,
    )
    await vi.waitFor(() => expect(readPid(dir)).not.toBe(''), patience)
    guestOf.child.kill('SIGTERM')
    expect(await guestOf.exit).toBe(9)
  })
})

describe('the full guest with a launch file', () => {
  const launch = (dir: string, entry_command: string, more: object = {}) => {
    const path = join(dir, 'launch.json')
    const spec = decodeRuntimeSpec({
      identity: { runtime_id: 'local-1', instance_name: 'i' },
      entry_command,
      paths: Object.fromEntries(
        Object.entries(decodeRuntimeSpec({ identity: { runtime_id: 'a', instance_name: 'b' } }).paths).map(([name, value]) => [
          name,
          value.replace('/run/pika-cloud', dir),
        ]),
      ),
      policies: { restart_policy: 'on_failure' },
    })
    writeFileSync(path, JSON.stringify({ schema_version: 1, spec, protocol: null, ...more }))
    return path
  }
  const prompt = { listen: { unix: 'prompt.sock' }, ticket_key: 'ab'.repeat(32) }

  test('removes the file that holds its secrets', async () => {
    const dir = tempDir()
    const path = launch(dir, 'echo $SECRET', { env: { SECRET: 'word' } })
    expect(await start([...full, '--spec', path], dir).exit).toBe(0)
    expect(existsSync(path)).toBe(false)
    expect(logOf(dir, 'stdout.log')).toBe('word\n')
  })

  test('gives an agent that keeps dying up', async () => {
    const dir = tempDir()
    const { exit } = start([...full, '--spec', launch(dir, 'exit 3', { protocol: 'acp', prompt })], dir)
    expect(await exit).toBe(3)
    expect(resultOf(dir)).toMatchObject({
      status: 'failed',
      exit_code: 3,
      details: { failure_reason: 'agent_crash_loop', agent_kind: 'acp' },
    })
    expect(eventsOf(dir).filter(({ kind }) => kind === 'starting')).toHaveLength(6)
  })

  test('starts an agent that died again, and ends when told to', async () => {
    const dir = tempDir()
    const { child, exit } = start(
      [...full, '--spec', launch(dir, `echo x >> ${dir}/lives; exec ${scriptedAgent('pi')}`, { protocol: 'pi', prompt })],
      dir,
    )
    const ready = () => expect(eventsOf(dir).at(-1)?.kind).toBe('ready')
    await vi.waitFor(ready, patience)
    execFileSync('pkill', ['-9', '-P', String(child.pid)])
    await vi.waitFor(() => {
      expect(readFileSync(join(dir, 'lives'), 'utf8')).toBe('x\nx\n')
      ready()
    }, 10_000)
    child.kill('SIGTERM')
    expect(await exit).toBe(0)
    expect(resultOf(dir)).toMatchObject({ status: 'completed', message: 'stopped by the host' })
  })

  test('serves prompts on a socket whose path is too long for one', async () => {
    const dir = join(tempDir(), 'x'.repeat(120))
    mkdirSync(dir)
    const { exit, child } = start([...full, '--spec', launch(dir, scriptedAgent('acp'), { protocol: 'acp', prompt })], dir)
    await vi.waitFor(() => expect(statusOf(dir).state).toBe('ready'), patience)
    const short = join(tempDir(), 's')
    symlinkSync(dir, short)
    const env = { ...process.env, PYLON_TICKET: 'none' }
    const answer = execFileSync(guestProgram.command, [...guestProgram.args, '--prompt', join(short, 'prompt.sock')], {
      input: '{}',
      env,
      encoding: 'utf8',
    })
    expect(JSON.parse(answer)).toMatchObject({ error: 'unauthorized' })
    child.kill('SIGTERM')
    expect(await exit).toBe(0)
  })

  test('leaves a result for a launch file that it can not read', async () => {
    const dir = tempDir()
    const path = join(dir, 'launch.json')
    writeFileSync(path, '{"schema_version":1,"spec":{}}')
    expect(await start([...full, '--spec', path], dir).exit).toBe(2)
    expect(resultOf(dir)).toMatchObject({ status: 'failed', exit_code: 2 })
  })
})

function readPid(dir: string): string {
  try {
    return readFileSync(join(dir, 'pid'), 'utf8').trim()
  } catch {
    return ''
  }
}

function isRunning(pid: string): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'latin1').includes(') Z ')
  } catch {
    return false
  }
}

function isHere(program: string): boolean {
  try {
    execFileSync('which', [program], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
