/** Backups: what goes in comes back, age itself opens them, and whatever was done to one is found before anything is touched. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from 'age-encryption'
import Sqlite from 'better-sqlite3'
import { expect, it, onTestFinished } from 'vitest'
import { homeAt } from '../../../../src/base/paths.ts'
import { encrypt, type Key } from '../../../../src/daemon/backup/age.ts'
import { paddingOf, readTarHeader, tarHeader } from '../../../../src/daemon/backup/tar.ts'
import { restoreHome } from '../../../../src/daemon/offline/restore.ts'
import { verifyBackup } from '../../../../src/daemon/offline/verify-backup.ts'
import { getSetting } from '../../../../src/store/settings.ts'
import { Store } from '../../../../src/store/store.ts'
import { type BackedUp, contentsOf, makeHome, PASSPHRASE, QUICK } from './world.ts'

async function world(): Promise<BackedUp> {
  const made = await makeHome()
  onTestFinished(() => made.store.close())
  return made
}

const restoreInto = (dir: string, from: string, key?: Key) => restoreHome({ home: homeAt(dir), network: 'live', from, key, force: false })

it('comes back as it was, and is private and unreadable meanwhile', async () => {
  const { npub, dir, backup } = await world()
  const file = await backup()
  expect((statSync(file).mode & 0o777).toString(8)).toBe('600')
  for (const words of ['name = "Ada"', 'SQLite format 3', 'xxxxxxxxxx', npub]) expect(readFileSync(file).includes(words)).toBe(false)
  await expect(backup()).rejects.toMatchObject({ code: 'backup_failed' })
  const into = join(dir, 'other')
  expect(await restoreInto(into, file, PASSPHRASE)).toMatchObject({ npub, movedTo: undefined })
  const restored = Store.open(join(into, 'pylon.db'))
  onTestFinished(() => restored.close())
  expect(getSetting<string>(restored, 'filling')).toHaveLength(200_000)
  expect(readFileSync(join(into, 'config.toml'), 'utf8')).toContain('Ada')
  expect(readdirSync(into).filter((name) => name.startsWith('scratch'))).toEqual([])
})

it('is a file of age: what age encrypts it reads, and age reads what it encrypts', async () => {
  const { dir, npub, backup } = await world()
  const file = await backup()
  const plain = await openByAge(file, (age) => age.addPassphrase(PASSPHRASE.passphrase))
  const encrypter = new Encrypter()
  encrypter.setScryptWorkFactor(QUICK)
  encrypter.setPassphrase('another')
  const theirs = join(dir, 'theirs.age')
  writeFileSync(theirs, await encrypter.encrypt(plain))
  expect(await restoreInto(join(dir, 'other'), theirs, { passphrase: 'another' })).toMatchObject({ npub })
})

it('for a key it opens by that key alone', async () => {
  const { dir, npub, backup } = await world()
  const identity = await generateX25519Identity()
  const file = await backup('r.age', { recipient: await identityToRecipient(identity) })
  const into = join(dir, 'other')
  await expect(restoreInto(into, file, { identity: await generateX25519Identity() })).rejects.toMatchObject({ code: 'passphrase_wrong' })
  await expect(restoreInto(into, file, PASSPHRASE)).rejects.toMatchObject({ code: 'passphrase_wrong' })
  await expect(restoreInto(into, file, { identity: 'AGE-SECRET-KEY-1X' })).rejects.toMatchObject({ code: 'usage' })
  await expect(backup('x.age', { recipient: 'age1nonsense' })).rejects.toMatchObject({ code: 'usage' })
  expect(await restoreInto(into, file, { identity })).toMatchObject({ npub })
})

it('with a wrong passphrase, without one, or of another network, is refused and touches nothing', async () => {
  const { dir, home, store, backup } = await world()
  const file = await backup()
  store.close()
  const before = contentsOf(home.dir)
  const again = (key: Key | undefined, network: 'live' | 'sandbox' = 'live') => restoreHome({ home, network, from: file, key, force: true })
  await expect(again({ passphrase: 'wrong' })).rejects.toMatchObject({ code: 'passphrase_wrong' })
  await expect(again(undefined)).rejects.toMatchObject({ code: 'usage' })
  await expect(again(PASSPHRASE, 'sandbox')).rejects.toMatchObject({ code: 'restore_refused' })
  expect(contentsOf(home.dir)).toEqual(before)
  expect(readdirSync(dir)).toEqual(['a.age', 'home'])
})

it('changed in any place, or cut short anywhere, it is refused and nothing is touched', async () => {
  const { dir, home, store, backup } = await world()
  const whole = readFileSync(await backup())
  store.close()
  const bad = join(dir, 'bad.age')
  const codeOf = async (bytes: Buffer) => {
    writeFileSync(bad, bytes)
    return await restoreHome({ home, network: 'live', from: bad, key: PASSPHRASE, force: true }).then(
      () => 'restored',
      (error: { code: string }) => error.code,
    )
  }
  const before = readFileSync(home.database)
  const head = whole.indexOf('\n--- ')
  const places = [0, 10, 25, 40, 60, head + 6, head + 60, head + 70, head + 1000, 70_000, 140_000, whole.length - 20, whole.length - 1]
  for (const at of places) {
    const changed = Buffer.from(whole)
    changed[at] = (changed[at] ?? 0) ^ 1
    const expected = at < head ? ['passphrase_wrong', 'backup_damaged', 'restore_refused'] : ['backup_damaged']
    expect(expected, `a change at ${at}`).toContain(await codeOf(changed))
  }
  for (const length of [0, 10, head, head + 30, head + 70, 65_000, head + 66 + 16 + 65_552, whole.length - 1]) {
    const expected = length < 30 ? ['restore_refused', 'backup_damaged'] : ['backup_damaged']
    expect(expected, `cut at ${length}`).toContain(await codeOf(whole.subarray(0, length)))
  }
  expect(await codeOf(Buffer.concat([whole, Buffer.from('more')]))).toBe('backup_damaged')
  expect(readFileSync(home.database).equals(before)).toBe(true)
  expect(readdirSync(home.dir).filter((name) => /^(scratch|before)/.test(name))).toEqual([])
  expect(await codeOf(whole)).toBe('restored')
})

it('put together anew by somebody who knows the key, with any part another, it is refused', async () => {
  const { dir, backup } = await world()
  const parts = entriesOf(await openByAge(await backup(), (age) => age.addPassphrase(PASSPHRASE.passphrase)))
  const codeOf = async (entries: [string, Buffer][], tail = Buffer.alloc(0)) => {
    const forged = join(dir, 'forged.age')
    const sealed = await encrypt(ReadableStream.from([Buffer.concat([tarOf(entries), tail])]), PASSPHRASE, QUICK)
    writeFileSync(forged, new Uint8Array(await new Response(sealed).arrayBuffer()))
    const into = join(dir, `into-${Math.random()}`)
    return await restoreInto(into, forged, PASSPHRASE).then(
      () => 'restored',
      (error: { code: string }) => {
        expect(existsSync(join(into, 'pylon.db')) || existsSync(join(into, 'identity.json'))).toBe(false)
        return error.code
      },
    )
  }
  expect(parts.map(([name]) => name)).toEqual(['pylon-backup.json', 'identity.json', 'config.toml', 'pylon.db'])
  expect(await codeOf(parts)).toBe('restored')
  for (const [name] of parts) {
    const changed = (content: Buffer) => Buffer.concat([content.subarray(0, -2), Buffer.from('?'), content.subarray(-1)])
    const refusals = ['backup_damaged', 'restore_refused']
    expect(refusals, `${name} changed`).toContain(
      await codeOf(parts.map(([one, content]) => [one, one === name ? changed(content) : content])),
    )
    expect(refusals, `${name} missing`).toContain(await codeOf(parts.filter(([one]) => one !== name)))
    expect(refusals, `${name} twice`).toContain(await codeOf([...parts, [name, Buffer.from('x')]]))
  }
  for (const name of ['../identity.json', 'lease.db', '/etc/passwd']) {
    expect(await codeOf([...parts, [name, Buffer.from('x')]])).toBe('backup_damaged')
  }
  expect(await codeOf(parts, Buffer.from('after the end'))).toBe('backup_damaged')
  // Of a key that is not named by the manifest, whose digests fit.
  const [manifest, ...files] = parts as [[string, Buffer], ...[string, Buffer][]]
  const named = JSON.parse(manifest[1].toString()) as { parts: { name: string }[] }
  const less = { ...named, parts: named.parts.filter(({ name }) => name !== 'config.toml') }
  expect(await codeOf([['pylon-backup.json', Buffer.from(JSON.stringify(less))], ...files])).toBe('backup_damaged')
})

it('a folder of an earlier version, and one unpacked by hand, come back too', async () => {
  const { dir, npub, backup } = await world()
  const parts = entriesOf(await openByAge(await backup(), (age) => age.addPassphrase(PASSPHRASE.passphrase)))
  const unpacked = join(dir, 'unpacked')
  mkdirSync(unpacked)
  for (const [name, content] of parts) writeFileSync(join(unpacked, name), content, { mode: 0o600 })
  const earlier = join(dir, 'earlier')
  cpSync(unpacked, earlier, { recursive: true })
  const manifest = { format: 1, version: '0.1.0', network: 'live', created_at: '2026-01-01T00:00:00.000Z' }
  writeFileSync(join(earlier, 'pylon-backup.json'), JSON.stringify(manifest))
  expect(await restoreInto(join(dir, 'one'), unpacked)).toMatchObject({ npub })
  expect(await restoreInto(join(dir, 'two'), earlier)).toMatchObject({ npub, createdAt: manifest.created_at })
  writeFileSync(join(unpacked, 'config.toml'), '[node]\nname = "Eve"\n')
  await expect(restoreInto(join(dir, 'three'), unpacked)).rejects.toMatchObject({ code: 'backup_damaged' })
  rmSync(join(earlier, 'pylon.db'))
  await expect(restoreInto(join(dir, 'four'), earlier)).rejects.toMatchObject({ code: 'restore_refused' })
})

it('is verified in a scratch folder that goes, while the node of the home runs on', async () => {
  const { dir, home, npub, backup } = await world()
  const file = await backup()
  const before = contentsOf(home.dir)
  const found = await verifyBackup(home, 'live', file, PASSPHRASE)
  expect(found).toMatchObject({ npub, isOwn: true, bytes: statSync(file).size, balanceSats: 0n })
  expect(found.rows).toMatchObject({ settings: 1 })
  expect(contentsOf(home.dir)).toEqual(before)
  expect(await verifyBackup(homeAt(join(dir, 'fresh')), 'live', file, PASSPHRASE)).toMatchObject({ isOwn: undefined })
})

it('of books that do not agree does not pass', async () => {
  const { home, store, backup } = await world()
  store.close()
  const db = new Sqlite(home.database)
  db.exec("INSERT INTO ledger_entries (id, cause_type, cause_id, created_at) VALUES ('e', 'job', 'j', 1)")
  db.exec("INSERT INTO postings (entry_id, account, amount_msats) VALUES ('e', 'node/income/job', 5)")
  db.close()
  const reopened = Store.open(home.database)
  onTestFinished(() => reopened.close())
  const file = await backup('b.age', PASSPHRASE, reopened)
  await expect(verifyBackup(home, 'live', file, PASSPHRASE)).rejects.toMatchObject({ code: 'backup_damaged' })
})

async function openByAge(file: string, key: (age: Decrypter) => void): Promise<Buffer> {
  const age = new Decrypter()
  key(age)
  return Buffer.from(await age.decrypt(new Uint8Array(readFileSync(file))))
}

function entriesOf(tar: Buffer): [string, Buffer][] {
  const found: [string, Buffer][] = []
  for (let at = 0; ; ) {
    const entry = readTarHeader(tar.subarray(at, at + 512))
    if (entry === undefined) return found
    found.push([entry.name, tar.subarray(at + 512, at + 512 + entry.bytes)])
    at += 512 + entry.bytes + paddingOf(entry.bytes)
  }
}

const tarOf = (entries: [string, Buffer][]): Buffer =>
  Buffer.concat([
    ...entries.flatMap(([name, content]) => [
      tarHeader({ name, bytes: content.length }, 1),
      content,
      Buffer.alloc(paddingOf(content.length)),
    ]),
    Buffer.alloc(1024),
  ])

it('has heads that tar itself would read, also of files over 8 GiB', () => {
  const big = { name: 'pylon.db', bytes: 20 * 2 ** 30 + 7 }
  expect(readTarHeader(tarHeader(big, 1))).toEqual(big)
  const head = Buffer.from(tarHeader({ name: 'pylon.db', bytes: 1000 }, 0o777))
  expect(head.toString('latin1', 124, 136)).toBe('00000001750\0')
  expect(head.toString('latin1', 257, 263)).toBe('ustar\0')
  head[0] = 0x41
  expect(() => readTarHeader(head)).toThrow(expect.objectContaining({ code: 'backup_damaged' }))
})
