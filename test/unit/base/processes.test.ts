/** Programs that this one starts: what they see, what is kept of what they say, and that all of a group ends. */
import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { outputOf, ProcessGroup, runProgram, spawnProcess } from '../../../src/base/processes.ts'

const LIMITS = { timeoutMs: 10_000, maxBytes: 1000 }
const env = { PATH: process.env['PATH'] ?? '' }
const sh = (script: string) => ({ argv: ['sh', '-c', script], env, ...LIMITS })

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

async function untilGone(pid: number): Promise<void> {
  for (let i = 0; i < 100 && isAlive(pid); i++) await delay(20)
  expect(isAlive(pid)).toBe(false)
}

test('a program sees the environment that it was given and no other', async () => {
  const { stdout } = await runProgram({ ...sh('env'), env: { ...env, ONLY: 'this' } })
  const names = stdout.split('\n').map((line) => line.split('=')[0])
  expect(names).toContain('ONLY')
  expect(names).not.toContain('HOME')
})

test('its exit code, its output up to the limit, and whether something was cut off', async () => {
  expect(await runProgram(sh('echo out; echo err >&2; exit 3'))).toEqual({
    exitCode: 3,
    stdout: 'out\n',
    stderr: 'err\n',
    truncated: false,
  })
  const { stdout, truncated } = await runProgram(sh('yes | head -c 5000'))
  expect([stdout.length, truncated]).toEqual([1000, true])
  await expect(outputOf(sh('echo why >&2; exit 1'))).rejects.toMatchObject({ code: 'runtime_failed', message: 'sh ended with 1: why' })
})

test('what does not start, takes too long or is given up is an error, and nothing of it is left', async () => {
  await expect(runProgram({ ...sh(''), argv: ['/no/such/program'] })).rejects.toMatchObject({ code: 'ENOENT' })
  expect(() => spawnProcess([], { env })).toThrow('empty')
  await expect(runProgram({ ...sh('sleep 60'), timeoutMs: 100 })).rejects.toMatchObject({ code: 'timeout' })
  const enough = new AbortController()
  const run = runProgram({ ...sh('sleep 60'), signal: enough.signal })
  enough.abort(new Error('enough'))
  await expect(run).rejects.toThrow('enough')
})

test('what a program leaves running ends with it, and its pipes are not waited for', async () => {
  const group = new ProcessGroup(['sh', '-c', 'sleep 60 & echo $!'], { env, pipeGraceMs: 50, clock: systemClock })
  let said = ''
  group.process.stdout?.on('data', (chunk: Buffer) => {
    said += chunk.toString()
  })
  expect(await group.exited).toEqual({ code: 0, signal: null })
  await untilGone(Number(said))
})

test('who does not hear SIGTERM is killed after the grace', async () => {
  const group = new ProcessGroup(['sh', '-c', `trap '' TERM; echo up; sleep 60; sleep 60`], { env, pipeGraceMs: 50, clock: systemClock })
  await new Promise((resolve) => group.process.stdout?.once('data', resolve))
  group.stop(100)
  group.stop(100)
  expect(await group.exited).toEqual({ code: 137, signal: 'SIGKILL' })
})
