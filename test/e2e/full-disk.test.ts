/** A home on a disk that is full: clear words, nothing lost, and the node goes on once there is room. */
import { spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { Rig } from '../support/rig.ts'

/** Writes until nothing more fits. */
function fill(path: string): void {
  const fd = openSync(path, 'w')
  const block = Buffer.alloc(1024)
  try {
    while (writeSync(fd, block) === block.length);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
  } finally {
    closeSync(fd)
  }
}

test('a full disk', async ({ skip }) => {
  await using rig = new Rig()
  const disk = join(rig.dir, 'd')
  mkdirSync(disk)
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', disk], { encoding: 'utf8' })
  skip(mounted.status !== 0, `a small file system needs root and mount: ${mounted.stderr?.trim() ?? mounted.error?.message}`)
  const rubbish = join(disk, 'rubbish')
  const env = { PYLON_HOME: join(disk, 'h') }
  const run = (...args: string[]) => rig.run([...args, '--sandbox'], { env })
  try {
    expect((await run('start')).code).toBe(0)
    expect((await run('wallet', 'fund', '100')).code).toBe(0)
    fill(rubbish)
    // Small writes may still find room in the files that are there, so that the state comes and goes at first.
    const isFull = async () => {
      const sent = await run('wallet', 'send', '1')
      const { store } = (await run('status', '--json')).json<{ store: { state: string; reason: string | null } }>()
      return sent.stderr.includes('(disk_full)') && store.state === 'degraded' && store.reason?.includes('full') === true
    }
    await vi.waitUntil(isFull, { timeout: 60_000, interval: 100 })
    const doctor = await run('doctor', '--json')
    expect(doctor.json<{ checks: object[] }>().checks).toContainEqual(expect.objectContaining({ name: 'disk', state: 'failed' }))
    rmSync(rubbish)
    expect((await run('wallet', 'fund', '100')).code).toBe(0)
    expect((await run('status', '--json')).json()).toMatchObject({ store: { state: 'ok' } })
    expect((await run('doctor', '--json')).json<{ checks: object[] }>().checks).toContainEqual(
      expect.objectContaining({ name: 'ledger', state: 'ok' }),
    )
    const before = (await run('wallet', 'balance', '--json')).json<{ balance_sats: number }>().balance_sats

    expect((await run('stop')).code).toBe(0)
    fill(rubbish)
    const start = await run('start')
    expect(start.code).toBe(1)
    expect(start.stderr).toMatch(/^pylon: [^\n]+free some space[^\n]+\(disk_full\)\n$/)
    rmSync(rubbish)
    expect((await run('start')).code).toBe(0)
    expect((await run('wallet', 'balance', '--json')).json<{ balance_sats: number }>().balance_sats).toBe(before)
  } finally {
    await run('stop', '--force')
    // The sandbox child ends a moment after its node.
    await vi.waitUntil(() => spawnSync('umount', [disk]).status === 0, { timeout: 20_000, interval: 200 })
  }
})
