/** The shell script under every shell that is here, and what it does that the full guest leaves to its host. */
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test, vi } from 'vitest'
import { tempDir } from '../../support/temp.ts'
import { describeGuest, eventsOf, patience, readPid, request, resultOf, run, start } from './contract.ts'

const script = fileURLToPath(new URL('../../../src/guest/guest.sh', import.meta.url))
const shells = [['dash'], ['busybox', 'sh'], ['bash']].filter(([name = '']) => isHere(name))
const guests: [string, string[]][] = [
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

for (const [name, guest] of guests) describeGuest(name, guest)

describe.each(guests)('%s', (_name, guest) => {
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

function isHere(program: string): boolean {
  try {
    execFileSync('which', [program], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
