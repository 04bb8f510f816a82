/** The lease: one holder of many takers, dropped however the holder dies. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { acquireLease } from '../../../../src/daemon/home/lease.ts'
import { tempDir } from '../../../support/temp.ts'

const script = join(import.meta.dirname, '..', '..', '..', 'support', 'lease-child.ts')

async function take(path: string): Promise<{ child: ChildProcess; said: string }> {
  const child = spawn(process.execPath, [script, path], { stdio: ['pipe', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const [chunk] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer]
  return { child, said: chunk.toString().trim() }
}

test('of five takers at once exactly one holds it, and kill -9 frees it', async () => {
  const path = join(tempDir(), 'lease.db')
  const takers = await Promise.all([1, 2, 3, 4, 5].map(() => take(path)))
  expect(takers.map(({ said }) => said).sort()).toEqual([
    'already_running',
    'already_running',
    'already_running',
    'already_running',
    'held',
  ])
  expect(() => acquireLease(path)).toThrow(expect.objectContaining({ code: 'already_running' }))
  const holder = takers.find(({ said }) => said === 'held')?.child
  const ended = once(holder as ChildProcess, 'exit')
  holder?.kill('SIGKILL')
  await ended
  acquireLease(path).release()
})

test('who wants to keep it waits out those who only look', async () => {
  const path = join(tempDir(), 'lease.db')
  const { child } = await take(path)
  const ended = once(child, 'exit')
  await new Promise<void>((resolve) => child.stdin?.end(resolve))
  acquireLease(path, 5000).release()
  await ended
})

test('a folder that is not there is a clear error', () => {
  expect(() => acquireLease(join(tempDir(), 'none', 'lease.db'))).toThrow(expect.objectContaining({ code: 'home_unusable' }))
})
