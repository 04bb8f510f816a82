/** Processes told apart, fault orders, the order of closing, the log read back. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { identifyProcess, isSameProcess } from '../../../src/base/process-identity.ts'
import { faultHook } from '../../../src/daemon/fault-points.ts'
import { LogFile, rotateLog } from '../../../src/daemon/home/log-file.ts'
import { childEnv } from '../../../src/daemon/launch/self-command.ts'
import { readLog } from '../../../src/daemon/offline/read-log.ts'
import { Shutdown } from '../../../src/daemon/shutdown.ts'
import { tempDir } from '../../support/temp.ts'

test('a process is itself only with its start time and boot', async () => {
  const me = identifyProcess(process.pid)
  expect(isSameProcess(me)).toBe(true)
  expect(isSameProcess({ ...me, start_time: `${me.start_time}0` })).toBe(false)
  expect(isSameProcess({ ...me, boot_id: 'another' })).toBe(false)
  expect(isSameProcess({ ...me, start_time: null })).toBe(false)
  expect(isSameProcess({ ...me, pid: process.ppid })).toBe(false)
})

test('a process whose name tries to confuse, and one that has ended', async () => {
  const child = spawn('sh', ['-c', 'printf ") R 1 2" > /proc/self/comm; echo; read x'], { stdio: ['pipe', 'pipe', 'ignore'] })
  await once(child.stdout, 'data')
  const identity = identifyProcess(child.pid ?? 0)
  expect(identity.start_time).toMatch(/^\d+$/)
  expect(isSameProcess(identity)).toBe(true)
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
  expect(isSameProcess(identity)).toBe(false)
})

test('closers run in the reverse order, a failing or stuck one stops nobody', async () => {
  const shutdown = new Shutdown(silentLogger)
  const order: string[] = []
  shutdown.onClose('first', () => void order.push('first'))
  shutdown.onClose('stuck', () => new Promise(() => undefined))
  shutdown.onClose('broken', () => {
    throw new Error('no')
  })
  shutdown.onClose('last', async () => void order.push('last'))
  shutdown.request('a')
  shutdown.request('b')
  expect(await shutdown.begun).toBe('a')
  expect(shutdown.signal.aborted).toBe(true)
  expect(await shutdown.close(150)).toBe(false)
  expect(order).toEqual(['last', 'first'])
})

test('a fault order strikes at its commit and its count, and a wrong one is refused', () => {
  const kill = vi.spyOn(process, 'kill').mockReturnValue(true)
  try {
    const hook = faultHook('after:transition_job:ready:2')
    hook.afterCommit?.(['transition_job:ready'])
    hook.afterCommit?.(['transition_job:running', 'put_setting'])
    expect(kill).not.toHaveBeenCalled()
    hook.afterCommit?.(['x', 'transition_job:ready'])
    expect(kill).toHaveBeenCalledExactlyOnceWith(process.pid, 'SIGKILL')
  } finally {
    kill.mockRestore()
  }
  expect(faultHook(undefined)).toEqual({})
  expect(Object.keys(faultHook('before:x'))).toEqual(['beforeCommit'])
  expect(() => faultHook('sometimes:x')).toThrow(expect.objectContaining({ code: 'usage' }))
})

test('children inherit nothing that would run inside them', () => {
  const env = childEnv({ PATH: '/bin', NODE_OPTIONS: '--require x', NODE_CHANNEL_FD: '3' }, { A: '1' })
  expect(env).toEqual({ PATH: '/bin', A: '1' })
})

test('the log is read from its end, with what is no JSON, and followed across rotation', async () => {
  const path = join(tempDir(), 'log')
  const long = 'x'.repeat(100_000)
  writeFileSync(path, `{"n":1}\n{"n":2,"long":"${long}"}\nError: words of a crash\n{"n":3}\n`)
  const read = async (lines: number) => {
    const seen: unknown[] = []
    for await (const line of readLog(path, lines, false, new AbortController().signal)) seen.push(line['n'] ?? line['msg'])
    return seen
  }
  expect(await read(0)).toEqual([])
  expect(await read(2)).toEqual(['Error: words of a crash', 3])
  expect(await read(3)).toEqual([2, 'Error: words of a crash', 3])
  expect(await read(99)).toEqual([1, 2, 'Error: words of a crash', 3])

  const stop = new AbortController()
  const seen: unknown[] = []
  const following = (async () => {
    for await (const line of readLog(path, 1, true, stop.signal)) seen.push(line['n'])
  })()
  await vi.waitFor(() => expect(seen).toEqual([3]))
  appendFileSync(path, '{"n":4}\n{"n"')
  await vi.waitFor(() => expect(seen).toEqual([3, 4]))
  appendFileSync(path, ':5}\n')
  await vi.waitFor(() => expect(seen).toEqual([3, 4, 5]))
  renameSync(path, `${path}.1`)
  writeFileSync(path, '{"n":6}\n')
  await vi.waitFor(() => expect(seen).toEqual([3, 4, 5, 6]))
  stop.abort()
  await following
})

test('a log file is reopened by name, rotated when large, and survives a write that fails', () => {
  const path = join(tempDir(), 'log')
  const log = new LogFile(path, false)
  log.write('one\n')
  renameSync(path, `${path}.old`)
  log.reopen()
  log.write('two\n')
  rotateLog(path)
  writeFileSync(path, Buffer.alloc(11 * 1024 * 1024))
  rotateLog(path)
  expect(() => writeFileSync(path, '', { flag: 'wx' })).not.toThrow()
  expect(() => new LogFile('/dev/full', false).write('x')).not.toThrow()
})

test('a log that grows is moved aside while the node runs', () => {
  const path = join(tempDir(), 'log')
  const log = new LogFile(path, false)
  const line = `${'x'.repeat(1024 * 1024 - 1)}\n`
  for (let n = 0; n < 25; n++) log.write(line)
  log.write('last\n')
  expect(statSync(path).size + statSync(`${path}.1`).size).toBeLessThan(22 * 1024 * 1024)
  expect(readFileSync(path, 'utf8').endsWith('last\n')).toBe(true)
})
