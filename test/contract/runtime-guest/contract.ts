/** What each guest must do with one guest-request.json: the full one and the shell script under every shell that is here. */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { decodeEvents, decodeResult, decodeStatus } from '../../../src/runtime/contract/lifecycle.ts'
import { guestProgram } from '../../support/local-runtimes.ts'
import { tempDir } from '../../support/temp.ts'

export const fullGuest = [guestProgram.command, ...guestProgram.args]

/** For a loaded machine. */
export const patience = { timeout: 20_000 }

interface Guest {
  readonly dir: string
  readonly child: ChildProcess
  readonly exit: Promise<number>
}

export function start(argv: readonly string[], dir: string, env: NodeJS.ProcessEnv = {}): Guest {
  const [file = '', ...args] = argv
  const child = spawn(file, args, { cwd: dir, stdio: 'ignore', env: { PATH: process.env['PATH'], ...env } })
  onTestFinished(() => void child.kill('SIGKILL'))
  return {
    dir,
    child,
    exit: new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? (signal === 'SIGKILL' ? 137 : 1)))),
  }
}

export function run(guest: readonly string[], request: unknown, more: readonly string[] = []): Guest {
  const dir = tempDir()
  const path = join(dir, 'guest-request.json')
  writeFileSync(path, typeof request === 'string' ? request : JSON.stringify(request))
  return start([...guest, '--request', path, '--state-dir', dir, ...more], dir)
}

export const request = (command: string, timeout_secs = 20) => ({ schema_version: 2, command, timeout_secs, run_as_root: true })
export const statusOf = (dir: string) => decodeStatus(readFileSync(join(dir, 'status.json'), 'utf8'), 'status.json')
export const resultOf = (dir: string) => decodeResult(readFileSync(join(dir, 'result.json'), 'utf8'), 'result.json')
export const eventsOf = (dir: string) => decodeEvents(readFileSync(join(dir, 'events.jsonl'), 'utf8'), 'events.jsonl')
export const logOf = (dir: string, name: string) => readFileSync(join(dir, 'logs', name), 'utf8')

export function describeGuest(name: string, guest: readonly string[]): void {
  describe(name, () => {
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
}

export function readPid(dir: string): string {
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
