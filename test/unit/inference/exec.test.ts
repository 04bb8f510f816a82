/** Commands of the owner: what they see, what they leave behind, and names and values from strangers as an environment. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import type { PylonError } from '../../../src/base/errors.ts'
import { paramEnv, runCommand } from '../../../src/inference/exec.ts'
import { sweepTraces } from '../../../src/inference/traces.ts'

test.each([
  [{ temperature: ['0.5'] }, { PYLON_PARAM_TEMPERATURE: '0.5' }],
  [{ 'top-p': ['1', '2'] }, { PYLON_PARAM_TOP_P: '1 2' }],
  [{ '': ['x'] }, {}],
  [{ 'a\0b=c': ['x\0y'] }, { PYLON_PARAM_A_B_C: 'xy' }],
])('%j', (params, expected) => {
  expect(paramEnv(params)).toEqual(expected)
})

test('whatever the names', () => {
  const params = fc.dictionary(fc.string({ unit: 'binary' }), fc.array(fc.string({ unit: 'binary', maxLength: 9000 }), { maxLength: 3 }))
  fc.assert(
    fc.property(params, (given) => {
      for (const [name, value] of Object.entries(paramEnv(given))) {
        expect(name).toMatch(/^PYLON_PARAM_[A-Z0-9_]{1,64}$/)
        expect(value).not.toContain('\0')
        expect(Buffer.byteLength(value)).toBeLessThanOrEqual(4100)
      }
    }),
    { numRuns: 200 },
  )
})

describe('a command of the owner', () => {
  const run = (script: string, input = '') =>
    runCommand({ command: ['sh', '-c', script], timeoutMs: 60_000, maxOutputBytes: 10_000 }, { input }, systemClock)
  const isAlive = (pid: number): boolean => {
    try {
      process.kill(pid, 0)
      return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
    } catch {
      return false
    }
  }

  test('answers when it has ended, and what it left running ends with it', async () => {
    const answer = await run('sleep 300 & echo $!')
    await vi.waitFor(() => expect(isAlive(Number(answer))).toBe(false))
  })

  test('is not waited for by who left its group and holds its output, and who left ends with it', async () => {
    const left = "setsid sh -c 'echo $$; touch said; exec sleep 300' &"
    const answer = await run(`${left} while [ ! -e said ]; do sleep 0.02; done`)
    await vi.waitFor(() => expect(isAlive(Number(answer))).toBe(false))
  })

  test.each([
    ['in a session of its own, its output closed', 'setsid sleep 300 >/dev/null 2>&1 & echo $!'],
    ['twice removed', "setsid sh -c 'setsid sleep 300 >/dev/null 2>&1 & echo $!'"],
    ['without its environment', 'env -i setsid sleep 300 >/dev/null 2>&1 & echo $!'],
    ['after a failure', 'setsid sleep 300 >/dev/null 2>&1 & echo $! >&2; exit 3'],
  ])('leaves nobody: %s', async (_what, script) => {
    const answer = await run(`${script}`).catch((error: PylonError) => String(error.details['stderr']))
    expect(Number(answer)).toBeGreaterThan(1)
    await vi.waitFor(() => expect(isAlive(Number(answer))).toBe(false))
  })

  test('of a node that was killed ends at the next start, and its scratch folder goes; those of who lives stay', async () => {
    const node =
      "const { runCommand } = await import(process.argv[1]); const clock = (await import(process.argv[2])).systemClock; runCommand({ command: ['sh', '-c', 'echo secret > input; pwd >&2; setsid sleep 300 & echo $! > pid; cat pid >&2; sleep 300'], timeoutMs: 1e6, maxOutputBytes: 1000 }, { input: '' }, clock)"
    const urls = ['inference/exec.ts', 'base/clock.ts'].map((path) => new URL(`../../../src/${path}`, import.meta.url).href)
    const child = spawn(process.execPath, ['--input-type=module', '-e', node, ...urls], { stdio: 'ignore' })
    const scratchOf = () => readdirSync(tmpdir()).find((name) => name.startsWith('pylon-exec-') && name.includes(`-${child.pid}-`))
    await vi.waitFor(() => expect(existsSync(join(tmpdir(), scratchOf() ?? 'none', 'pid'))).toBe(true), { timeout: 20_000 })
    const scratch = join(tmpdir(), scratchOf() ?? '')
    const stray = Number(readFileSync(join(scratch, 'pid'), 'utf8'))
    await sweepTraces()
    expect([existsSync(scratch), isAlive(stray)]).toEqual([true, true])
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
    await sweepTraces()
    expect(existsSync(scratch)).toBe(false)
    await vi.waitFor(() => expect(isAlive(stray)).toBe(false))
  })

  test('sees nothing of the environment of the node', async () => {
    vi.stubEnv('PYLON_PASSPHRASE', 'secret words')
    onTestFinished(() => void vi.unstubAllEnvs())
    const names = (await run('env')).split('\n').map((line) => line.split('=')[0])
    const ofShell = ['PWD', 'OLDPWD', 'SHLVL', '_']
    expect(names.filter((name) => name !== '' && !ofShell.includes(name ?? '')).sort()).toEqual(
      ['PATH', 'HOME', 'LANG', 'PYLON_RUN'].filter((name) => name === 'PYLON_RUN' || process.env[name] !== undefined).sort(),
    )
  })

  test('that floods its output or its errors is stopped, and its children with it', async () => {
    await expect(run('yes & echo $!; wait')).rejects.toMatchObject({ code: 'output_too_large' })
    expect(await run('yes | head -c 5000000 >&2; echo done')).toBe('done\n')
  })
})
