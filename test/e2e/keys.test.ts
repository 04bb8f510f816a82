/** Keys of a node that runs: its backups by the clock, and an app elsewhere that signs as an agent; real processes only. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BunkerSigner, parseBunkerInput } from 'nostr-tools/nip46'
import { SimplePool } from 'nostr-tools/pool'
import { generateSecretKey, verifyEvent } from 'nostr-tools/pure'
import { expect, test, vi } from 'vitest'
import { Rig } from '../support/rig.ts'

test('a backup is made by the clock and passes, and an app signs as an agent until it is revoked', async () => {
  await using rig = new Rig()
  const dir = join(rig.dir, 'backups')
  mkdirSync(dir)
  writeFileSync(join(rig.dir, 'pass'), 'correct horse\n')
  const config = [`[backup]`, `dir = ${JSON.stringify(dir)}`, `passphrase_file = ${JSON.stringify(join(rig.dir, 'pass'))}`]
  mkdirSync(rig.sandboxHome.dir, { recursive: true, mode: 0o700 })
  writeFileSync(rig.sandboxHome.config, config.join('\n'), { mode: 0o600 })
  await rig.ok('start', '--sandbox')
  const agent = (await rig.ok('agent', 'spawn', '--name', 'ada', '--json')).json<{ pubkey: string }>()

  const backups = async () => (await rig.ok('status', '--json')).json<{ backups: { state: string; last_file: string | null } }>().backups
  const file = await vi.waitFor(
    async () => {
      const { last_file } = await backups()
      if (last_file === null) throw new Error('no backup yet')
      return last_file
    },
    { timeout: 30_000, interval: 200 },
  )
  expect(await backups()).toMatchObject({ state: 'ok' })
  expect((await rig.ok('backup', '--verify', file, '--json')).json()).toMatchObject({ is_own: true })

  const made = (await rig.ok('bunker', 'create', '--agent', 'ada', '--kinds', '1', '--json')).json<{ id: string; url: string }>()
  const pointer = await parseBunkerInput(made.url)
  if (pointer === null) throw new Error('the string cannot be read')
  const pool = new SimplePool()
  try {
    const app = BunkerSigner.fromBunker(generateSecretKey(), pointer, { pool })
    await app.connect({ name: 'app' })
    const note = { kind: 1, content: 'by an app', tags: [], created_at: Math.floor(Date.now() / 1000) }
    const signed = await app.signEvent(note)
    expect(verifyEvent(signed)).toBe(true)
    expect(signed.pubkey).toBe(agent.pubkey)
    await expect(app.signEvent({ ...note, kind: 0 })).rejects.toContain('forbidden')
    expect((await rig.ok('bunker', 'show', made.id)).stdout).toMatch(/sign_event\s+0\s+refused: forbidden/)
    expect((await rig.ok('bunker', 'list')).stdout).toContain('active')
    await rig.ok('bunker', 'revoke', made.id)
    await expect(app.signEvent(note)).rejects.toContain('revoked')
  } finally {
    pool.destroy()
  }
})
