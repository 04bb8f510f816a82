/** The sandbox node, its sandbox process, keys under a passphrase, backup and restore: real processes only. */
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { expect, test, vi } from 'vitest'
import { nodeRoutes } from '../../src/control/contract/node.ts'
import { Rig } from '../support/rig.ts'

interface Status {
  readonly pid: number
  readonly network: string
  readonly locked: boolean
  readonly sandbox: { relay_url: string; mint_url: string; lnurl_base_url: string; state: string }
  readonly identity: { npub: string }
  readonly wallet: { balance_sats: number }
}

/** Of the one node that runs. */
async function statusOf(rig: Rig) {
  const { sandbox, ...status } = await rig.call(nodeRoutes.status, {})
  if (sandbox === null) throw new Error('it has no sandbox')
  return { ...status, sandbox }
}
const shownStatus = async (rig: Rig, ...flags: string[]) => (await rig.ok('status', '--json', ...flags)).json<Status>()
const sandboxPid = (rig: Rig) =>
  Number(
    /"pid":(\d+)/.exec(
      readFileSync(rig.sandboxHome.log, 'utf8')
        .split('\n')
        .filter((line) => line.includes('the sandbox serves'))
        .at(-1) ?? '',
    )?.[1],
  )

test('a sandbox node is a home of its own, is found without flags, and leaves nothing behind', async () => {
  await using rig = new Rig()
  await rig.ok('start', '--sandbox')
  const status = await shownStatus(rig)
  expect(status).toMatchObject({ network: 'sandbox', home: rig.sandboxHome.dir, sandbox: { state: 'ok' } })
  expect(existsSync(rig.home.database)).toBe(false)
  expect(rig.processes()).toHaveLength(2)

  await rig.ok('start')
  const live = await shownStatus(rig)
  expect(live.network).toBe('live')
  expect((await shownStatus(rig, '--sandbox')).pid).toBe(status.pid)
  expect(live.identity.npub).not.toBe(status.identity.npub)

  await rig.ok('stop')
  expect((await shownStatus(rig)).network).toBe('sandbox')
  await rig.ok('stop')
  await vi.waitFor(() => expect(rig.processes()).toEqual([]), 5000)
})

test('a sandbox that dies is started again at the same addresses; one whose node is killed ends', async () => {
  await using rig = new Rig()
  await rig.ok('start', '--sandbox')
  const before = await statusOf(rig)
  const pid = sandboxPid(rig)
  process.kill(pid, 'SIGKILL')
  await vi.waitFor(() => expect(sandboxPid(rig)).not.toBe(pid), { timeout: 20_000, interval: 200 })
  const after = await statusOf(rig)
  expect(after.sandbox).toEqual(before.sandbox)
  expect((await fetch(`${after.sandbox.mint_url}/v1/info`)).status).toBe(200)

  process.kill(after.pid, 'SIGKILL')
  await vi.waitFor(() => expect(rig.processes()).toEqual([]), 10_000)
  await rig.ok('start', '--sandbox')
  expect((await statusOf(rig)).sandbox).toEqual(before.sandbox)
})

test('a second home joins the sandbox, and joins it again without being told', async () => {
  await using first = new Rig()
  await using second = new Rig()
  await first.ok('start', '--sandbox')
  const { sandbox } = await statusOf(first)
  await second.ok('start', '--sandbox', '--relay', sandbox.relay_url, '--mint', sandbox.mint_url)
  expect((await statusOf(second)).sandbox).toEqual(sandbox)
  expect(second.processes()).toHaveLength(1)
  await second.ok('wallet', 'fund', '100')
  await second.ok('stop')
  await second.ok('start', '--sandbox')
  const again = await statusOf(second)
  expect(again.sandbox).toEqual(sandbox)
  expect(again.wallet.balance_sats).toBe(100n)
})

test('a port that another program took meanwhile is a clear error', async () => {
  await using rig = new Rig()
  await rig.ok('start', '--sandbox')
  const { sandbox } = await statusOf(rig)
  await rig.ok('stop')
  const other = createServer()
  await new Promise<void>((resolve) => other.listen(Number(new URL(sandbox.mint_url).port), '127.0.0.1', resolve))
  try {
    const run = await rig.run(['start', '--sandbox'])
    expect(run.code).toBe(1)
    expect(run.stderr).toContain('(port_taken)')
    expect(rig.processes()).toEqual([])
  } finally {
    await new Promise((resolve) => other.close(resolve))
  }
  await rig.ok('start', '--sandbox')
})

test('joining what is no sandbox is a clear error', async () => {
  await using rig = new Rig()
  const run = await rig.run(['start', '--sandbox', '--relay', 'ws://127.0.0.1:9', '--mint', 'http://127.0.0.1:9'])
  expect(run.code).toBe(1)
  expect(run.stderr).toMatch(/no sandbox at http:\/\/127\.0\.0\.1:9.*\(sandbox_failed\)/)
})

test('keys under a passphrase: locked without it, opened by unlock, handed over at restart', async () => {
  await using rig = new Rig()
  const file = join(rig.dir, 'pass')
  writeFileSync(file, 'correct horse\n')
  const made = await rig.ok('init', '--passphrase-file', file, '--json')
  const words = made.json<{ words: string }>().words
  expect(readFileSync(rig.home.identity, 'utf8')).not.toContain(words.split(' ').slice(0, 2).join(' '))

  const started = await rig.ok('start')
  expect(started.stderr).toContain('pylon unlock')
  expect(await shownStatus(rig)).toMatchObject({
    locked: true,
    host: { state: 'off', reason: 'locked' },
    provider: { state: 'off', reason: 'locked' },
  })
  const early = await rig.run(['wallet', 'balance'])
  expect(early.code).toBe(1)
  expect(early.stderr).toContain('(locked)')
  const wrong = await rig.run(['unlock'], { input: 'battery staple\n' })
  expect(wrong.code).toBe(1)
  expect(wrong.stderr).toContain('(passphrase_wrong)')
  expect((await rig.run(['unlock'], { input: 'correct horse\n' })).code).toBe(0)
  expect((await shownStatus(rig)).locked).toBe(false)

  await rig.ok('restart')
  expect((await shownStatus(rig)).locked).toBe(false)
  await rig.ok('stop')
  const other = join(rig.dir, 'other')
  writeFileSync(other, 'battery staple\n')
  const refused = await rig.run(['start', '--passphrase-file', other])
  expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('(passphrase_wrong)') })
  expect((await rig.run(['status'])).code).toBe(3)
  await rig.ok('start', '--passphrase-file', file)
  expect((await shownStatus(rig)).locked).toBe(false)
  expect(rig.logs()).not.toContain('correct horse')
  expect(rig.logs()).not.toContain(words)
})

test('init imports words once, refuses a second time, and moves aside what it replaces; a file that others may read is refused', async () => {
  await using rig = new Rig()
  const words = 'leader monkey parrot ring guide accident before fence cannon height naive bean'
  const imported = await rig.run(['init', '--import', '--json'], { input: `${words}\n` })
  // The first test vector of NIP-06.
  expect(imported.json()).toMatchObject({ pubkey: '17162c921dc4d2518f9a101db33695df1afb56ab82f5ff3e5da6eec3ca5cd917' })
  expect(imported.stdout).not.toContain('leader')
  expect((await rig.run(['init'])).stderr).toContain('(identity_exists)')
  const typo = await rig.run(['init', '--import', '--force'], { input: 'leader leader leader\n' })
  expect(typo.stderr).toContain('(identity_invalid)')
  await rig.ok('start')
  expect((await rig.run(['init', '--force'])).stderr).toContain('(already_running)')
  await rig.ok('stop')
  await rig.ok('init', '--force')
  const files = readdirSync(rig.home.dir)
  expect(files.filter((name) => /^identity\.json\..*old$/.test(name))).toHaveLength(1)
  expect(files.filter((name) => /^pylon\.db\..*old$/.test(name))).toHaveLength(1)
  chmodSync(rig.home.identity, 0o644)
  const run = await rig.run(['start'])
  expect(run.code).toBe(1)
  expect(run.stderr).toMatch(/chmod 600.*\(identity_invalid\)/)
  chmodSync(rig.home.identity, 0o600)
  await rig.ok('start')
})

test('a backup of a running node comes back elsewhere, money included', async () => {
  await using rig = new Rig()
  await rig.ok('start', '--sandbox')
  await rig.ok('wallet', 'fund', '250')
  const { identity } = await statusOf(rig)
  const path = join(rig.dir, 'backup.age')
  const pass = passphraseIn(rig)
  expect((await rig.run(['backup', path], { input: '' })).stderr).toMatch(/--passphrase-file.*\(usage\)/)
  await rig.ok('backup', path, ...pass)
  expect((statSync(path).mode & 0o777).toString(8)).toBe('600')
  expect((await rig.run(['backup', path, ...pass])).stderr).toContain('(backup_failed)')
  const verified = (await rig.ok('backup', '--verify', path, ...pass, '--json')).json()
  expect(verified).toMatchObject({ network: 'sandbox', is_own: true, balance_sats: 250 })
  expect((await rig.run(['backup', '--verify', path], { input: 'wrong\n' })).stderr).toContain('(passphrase_wrong)')
  // What is spent after the backup must not come back with it.
  const { token } = (await rig.ok('wallet', 'send', '100', '--json')).json<{ token: string }>()
  await rig.ok('wallet', 'receive', token, '--wallet', 'customer')
  expect((await rig.run(['restore', path, ...pass, '--sandbox', '--force'])).stderr).toContain('(already_running)')
  await rig.ok('stop')

  const refused = await rig.run(['restore', path, ...pass, '--sandbox'])
  expect(refused.code).toBe(1)
  expect(refused.stderr).toContain('(restore_refused)')
  expect((await rig.run(['restore', path, ...pass])).stderr).toContain('add --sandbox')
  for (const file of [rig.sandboxHome.database, rig.sandboxHome.identity]) rmSync(file)
  await rig.ok('restore', path, ...pass, '--sandbox')
  await rig.ok('start', '--sandbox')
  expect(await statusOf(rig)).toMatchObject({ identity })
  expect(rig.logs()).toContain('asked a mint after the restore')
  const { balance_sats } = (await rig.ok('wallet', 'balance', '--json')).json<{ balance_sats: number }>()
  expect(balance_sats).toBeGreaterThan(140)
  expect(balance_sats).toBeLessThan(151)
  expect((await rig.ok('doctor', '--json')).json()).toMatchObject({ ok: true })
})

function passphraseIn(rig: Rig): [string, string] {
  const file = join(rig.dir, 'passphrase')
  writeFileSync(file, 'correct horse\n')
  return ['--passphrase-file', file]
}

test('a backup of a stopped node that was changed, and a folder of an earlier one that is damaged, newer or incomplete, touch nothing; nor is a database without its identity given a new one', async () => {
  await using rig = new Rig()
  await rig.ok('start')
  await rig.ok('stop')
  const pass = passphraseIn(rig)
  const file = join(rig.dir, 'backup.age')
  await rig.ok('backup', file, ...pass)
  const before = readFileSync(rig.home.database)
  const bytes = readFileSync(file)
  bytes[bytes.length - 100] = (bytes[bytes.length - 100] ?? 0) ^ 1
  writeFileSync(file, bytes)
  expect((await rig.run(['restore', file, ...pass, '--force'])).stderr).toContain('(backup_damaged)')
  const path = join(rig.dir, 'backup')
  const database = join(path, 'pylon.db')
  mkdirSync(path)
  for (const name of ['pylon.db', 'identity.json']) copyFileSync(join(rig.home.dir, name), join(path, name))
  const manifest = { format: 1, version: '0.1.0', network: 'live', created_at: '2026-01-01T00:00:00.000Z' }
  writeFileSync(join(path, 'pylon-backup.json'), JSON.stringify(manifest))
  const db = new Sqlite(database)
  db.pragma('user_version = 9999')
  db.close()
  expect((await rig.run(['restore', path, '--force'])).stderr).toContain('(database_newer)')
  writeFileSync(database, 'rubbish'.repeat(1000))
  expect((await rig.run(['restore', path, '--force'])).stderr).toContain('(database_corrupt)')
  rmSync(database)
  expect((await rig.run(['restore', path, '--force'])).stderr).toContain('(restore_refused)')
  expect((await rig.run(['restore', join(rig.dir, 'nowhere')])).stderr).toContain('(restore_refused)')
  expect(readFileSync(rig.home.database).equals(before)).toBe(true)
  expect(readdirSync(rig.home.dir).filter((name) => /restore|scratch/.test(name))).toEqual([])

  rmSync(rig.home.identity)
  const run = await rig.run(['start'])
  expect(run.code).toBe(1)
  expect(run.stderr).toMatch(/pylon restore.*\(identity_invalid\)/)
})
