/** Commands of the owner: what they see, what they leave behind, and names and values from strangers as an environment. */
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { paramEnv, runCommand } from '../../../src/inference/exec.ts'

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

  test('is not waited for by who left its group and holds its output', async () => {
    const left = "setsid sh -c 'echo $$; touch said; exec sleep 300' &"
    const answer = await run(`${left} while [ ! -e said ]; do sleep 0.02; done`)
    expect(isAlive(Number(answer))).toBe(true)
    process.kill(Number(answer), 'SIGKILL')
  })

  test('sees nothing of the environment of the node', async () => {
    vi.stubEnv('PYLON_PASSPHRASE', 'secret words')
    onTestFinished(() => void vi.unstubAllEnvs())
    const names = (await run('env')).split('\n').map((line) => line.split('=')[0])
    const ofShell = ['PWD', 'OLDPWD', 'SHLVL', '_']
    expect(names.filter((name) => name !== '' && !ofShell.includes(name ?? '')).sort()).toEqual(
      ['PATH', 'HOME', 'LANG'].filter((name) => process.env[name] !== undefined).sort(),
    )
  })

  test('that floods its output or its errors is stopped, and its children with it', async () => {
    await expect(run('yes & echo $!; wait')).rejects.toMatchObject({ code: 'output_too_large' })
    expect(await run('yes | head -c 5000000 >&2; echo done')).toBe('done\n')
  })
})
