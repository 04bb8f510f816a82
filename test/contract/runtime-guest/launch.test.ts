/** The full guest with a launch file: an agent that is kept alive and served. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { decodeRuntimeSpec } from '../../../src/runtime/contract/spec.ts'
import { guestProgram, scriptedAgent } from '../../support/local-runtimes.ts'
import { tempDir } from '../../support/temp.ts'
import { eventsOf, fullGuest, logOf, patience, resultOf, start, statusOf } from './contract.ts'

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
    expect(await start([...fullGuest, '--spec', path], dir).exit).toBe(0)
    expect(existsSync(path)).toBe(false)
    expect(logOf(dir, 'stdout.log')).toBe('word\n')
  })

  test('gives an agent that keeps dying up', async () => {
    const dir = tempDir()
    const { exit } = start([...fullGuest, '--spec', launch(dir, 'exit 3', { protocol: 'acp', prompt })], dir)
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
      [...fullGuest, '--spec', launch(dir, `echo x >> ${dir}/lives; exec ${scriptedAgent('pi')}`, { protocol: 'pi', prompt })],
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
    const { exit, child } = start([...fullGuest, '--spec', launch(dir, scriptedAgent('acp'), { protocol: 'acp', prompt })], dir)
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
    expect(await start([...fullGuest, '--spec', path], dir).exit).toBe(2)
    expect(resultOf(dir)).toMatchObject({ status: 'failed', exit_code: 2 })
  })
})
