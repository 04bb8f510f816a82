/** Incus through the control plane, over a server that answers as incusd was measured to; the live lane has a real one. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { RecordingIncus } from '../support/recording-incus.ts'
import { Rig } from '../support/rig.ts'
import { shellAgent } from '../support/shell-agents.ts'
import { tempDir } from '../support/temp.ts'

interface Answer {
  readonly runtime: { runtime_id: string; provider: string; lifecycle_phase: string }
  readonly payload: Record<string, unknown>
}

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const PROGRAM = process.env['PYLON_BIN'] ?? `${process.execPath} ${join(root, 'dist', 'pylon.cjs')}`

/** Where the guest program would have been put. */
function guestDir(rig: Rig): string {
  const dir = join(rig.dir, 'guest')
  mkdirSync(dir)
  writeFileSync(join(dir, 'pylon'), `#!/bin/sh\nexec ${PROGRAM} "$@"\n`, { mode: 0o755 })
  return dir
}

test('incus serves pi and acp, and one-shot runs, through kinds 24910 to 24913', async () => {
  await using rig = new Rig()
  const incus = new RecordingIncus(tempDir())
  incus.images.set('image', { 'pylon.guest': 'full' })
  await incus.listen()
  onTestFinished(() => incus.close())
  await rig.ok('start', '--sandbox')
  const settings = { socket: incus.socketPath, guest_dir: guestDir(rig), image: 'image', run_image: 'image', enabled: 'true' }
  for (const [key, value] of Object.entries(settings)) await rig.ok('config', 'set', `runtimes.incus.${key}`, value, '--sandbox')
  for (const protocol of ['pi', 'acp'] as const) {
    const args = ['runtime', 'provision', '--provider', 'incus', '--protocol', protocol, '--command', shellAgent(protocol), '--json']
    const { runtime } = (await rig.ok(...args)).json<Answer>()
    expect(runtime).toMatchObject({ provider: 'incus', lifecycle_phase: 'ready' })
    const said = (await rig.ok('runtime', 'prompt', runtime.runtime_id, 'say from inside', '--json')).json<Answer>()
    expect(said.payload).toMatchObject({ reply: 'from inside' })
    expect((await rig.ok('runtime', 'teardown', runtime.runtime_id, '--json')).json<Answer>().payload).toMatchObject({
      teardown: 'deleted',
    })
  }
  const run = await rig.run(['runtime', 'run', '--provider', 'incus', '--', 'sh', '-c', 'echo out; exit 3'])
  expect(run).toMatchObject({ code: 3, stdout: 'out\n' })
  const made = incus.requests.filter(({ method, path }) => method === 'POST' && path.startsWith('/1.0/instances?')).length
  const removed = incus.requests.filter(({ method, path }) => method === 'DELETE' && /^\/1\.0\/instances\/[^/]+\?/.test(path)).length
  expect(made).toBe(3)
  expect(removed).toBeGreaterThanOrEqual(3)
})
