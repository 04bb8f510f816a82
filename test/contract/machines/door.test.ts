/** The door of a runtime as a guest of any make sees it: raw frames over its socket, a relay behind it. */
import { existsSync, statSync } from 'node:fs'
import { request } from 'node:http'
import { dirname, join } from 'node:path'
import { finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { WebSocket } from 'ws'
import { silentLogger } from '../../../src/base/logger.ts'
import { RelayDoors } from '../../../src/provider/machines/doors.ts'
import { decodeRuntimeSpec } from '../../../src/runtime/contract/spec.ts'
import { getRuntime, insertRuntime, type RuntimeRow } from '../../../src/store/selling/runtimes.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { tempDir } from '../../support/temp.ts'

const owner = generateSecretKey()
const ownerPubkey = getPublicKey(owner)
const now = () => Math.floor(Date.now() / 1000)
const group = 'ab'.repeat(32)

let sandbox: TestSandbox
let nostr: TestNostr

beforeAll(async () => {
  sandbox = await startSandbox()
  nostr = startNostr({ relays: [sandbox.relayUrl] })
})

afterAll(async () => {
  await nostr.stop()
  await sandbox.stop()
})

const openDoors = (dir: string, node = nostr) =>
  new RelayDoors({ scope: testScope(), store: node.store, logger: silentLogger, nostr: node.nostr, dir })

let made = 0

async function newRuntime(withSession = true, node = nostr): Promise<RuntimeRow> {
  const id = `local-${(++made).toString(16).padStart(16, '0')}`
  await node.store.write(
    insertRuntime({
      id,
      provider: 'local',
      ownerPubkey,
      runtimeClass: 'c',
      protocol: 'acp',
      spec: JSON.parse(
        JSON.stringify(decodeRuntimeSpec({ identity: { runtime_id: id, instance_name: id }, policies: { restart_policy: 'never' } })),
      ),
      region: null,
      botPubkey: null,
      keepVolume: false,
      expiresAt: null,
      input: withSession ? { session: { token: '00'.repeat(32), relays: [] } } : {},
      reason: 'test',
      at: Date.now(),
    }),
  )
  return getRuntime(node.store, id) as RuntimeRow
}

/** Somebody at the door, with a key. */
class Guest {
  readonly secret: Uint8Array
  readonly pubkey: string
  readonly frames: unknown[][] = []
  readonly socket: WebSocket
  isClosed = false

  constructor(path: string, secret = generateSecretKey()) {
    this.secret = secret
    this.pubkey = getPublicKey(secret)
    this.socket = new WebSocket(`ws+unix:${path}:/`)
    this.socket.on('message', (data) => this.frames.push(JSON.parse(String(data))))
    this.socket.on('close', () => {
      this.isClosed = true
    })
    this.socket.on('error', () => undefined)
    onTestFinished(() => this.socket.terminate())
  }

  async heard(match: (frame: unknown[]) => boolean): Promise<unknown[]> {
    return await vi.waitFor(
      () => {
        const found = this.frames.find(match)
        if (found === undefined) throw new Error(`not heard among ${JSON.stringify(this.frames).slice(0, 500)}`)
        return found
      },
      { timeout: 10_000, interval: 10 },
    )
  }

  sign(kind: number, tags: string[][] = [], content = 'x', secret = this.secret, created_at = now()) {
    return finalizeEvent({ kind, tags, content, created_at }, secret)
  }

  say(...frame: unknown[]): void {
    this.socket.send(JSON.stringify(frame))
  }

  async prove(change: Partial<{ challenge: string; kind: number; created_at: number }> = {}): Promise<unknown[]> {
    const [, challenge] = await this.heard(([type]) => type === 'AUTH')
    const tags = [
      ['relay', 'ws://door'],
      ['challenge', change.challenge ?? String(challenge)],
    ]
    return await this.answerTo('AUTH', this.sign(change.kind ?? 22_242, tags, '', this.secret, change.created_at ?? now()))
  }

  async answerTo(type: string, event: { readonly id: string }): Promise<unknown[]> {
    this.say(type, event)
    return await this.heard((frame) => frame[0] === 'OK' && frame[1] === event.id)
  }
}

async function doorOf(row: RuntimeRow, doors = openDoors(join(tempDir(), 'doors'))): Promise<string> {
  const door = await doors.open(row)
  if (door === undefined) throw new Error('no door')
  return door.socketPath
}

async function guestIn(): Promise<{ guest: Guest; path: string; row: RuntimeRow }> {
  const row = await newRuntime()
  const path = await doorOf(row)
  const guest = new Guest(path)
  expect(await guest.prove()).toEqual(['OK', expect.any(String), true, ''])
  return { guest, path, row }
}

/** A client that the relay knows itself. */
async function atRelay(): Promise<Guest> {
  const path = sandbox.relayUrl
  const client = new Guest('/nowhere')
  client.socket.removeAllListeners('close')
  const socket = new WebSocket(path)
  Object.assign(client, { socket })
  socket.on('message', (data) => client.frames.push(JSON.parse(String(data))))
  await new Promise((resolve) => socket.once('open', resolve))
  onTestFinished(() => socket.terminate())
  return client
}

describe('the door of a runtime', () => {
  test('is private, says what it is, and is there only for who has a session', async () => {
    const row = await newRuntime()
    const dir = join(tempDir(), 'doors')
    const doors = openDoors(dir)
    const path = await doorOf(row, doors)
    expect([statSync(path).mode & 0o777, statSync(dirname(path)).mode & 0o777]).toEqual([0o600, 0o700])
    const body = await new Promise<string>((resolve) => {
      request({ socketPath: path, path: '/' }, (response) => {
        let text = ''
        response.on('data', (chunk) => {
          text += chunk
        })
        response.on('end', () => resolve(text))
      }).end()
    })
    expect(JSON.parse(body)).toMatchObject({ supported_nips: [1, 11, 42], limitation: { auth_required: true, max_subscriptions: 10 } })
    expect(await doors.open(await newRuntime(false))).toBeUndefined()
    await doors.close(row.id)
    expect(existsSync(dirname(path))).toBe(false)
  })

  test('lets nothing through before a key is proven, and is bound to the first', async () => {
    const row = await newRuntime()
    const path = await doorOf(row)
    const guest = new Guest(path)
    await guest.heard(([type]) => type === 'AUTH')
    expect((await guest.answerTo('EVENT', guest.sign(443)))[3]).toMatch(/^auth-required: /)
    guest.say('REQ', 'a', { kinds: [1059], '#p': [guest.pubkey] })
    expect((await guest.heard(([type]) => type === 'CLOSED'))[2]).toMatch(/^auth-required: /)
    expect((await guest.prove({ challenge: 'another' }))[3]).toMatch(/^invalid: /)
    expect((await guest.prove({ kind: 1 }))[3]).toMatch(/^invalid: /)
    expect((await guest.prove({ created_at: now() - 3600 }))[3]).toMatch(/clock/)
    expect((await guest.prove())[2]).toBe(true)
    expect(getRuntime(nostr.store, row.id)?.botPubkey).toBe(guest.pubkey)

    const thief = new Guest(path)
    expect((await thief.prove()).slice(2)).toEqual([false, 'restricted: this runtime has another key for good'])
    expect((await thief.answerTo('EVENT', thief.sign(443)))[2]).toBe(false)
    const again = new Guest(path, guest.secret)
    expect((await again.prove())[2]).toBe(true)
    // One at a time.
    await vi.waitFor(() => expect([guest.isClosed, thief.isClosed]).toEqual([true, true]))
    const itsOwner = new Guest(await doorOf(await newRuntime()), owner)
    expect((await itsOwner.prove()).slice(2)).toEqual([false, 'restricted: the key of a runtime is not that of its owner'])
  })

  test('brings what is said out, and what is said to it in, stored and live', async () => {
    const { guest } = await guestIn()
    const relay = await atRelay()
    const said = [
      guest.sign(443, [['relays', sandbox.relayUrl]]),
      guest.sign(30_443, [['d', 'x']]),
      guest.sign(10_051, [['relay', sandbox.relayUrl]]),
      guest.sign(445, [['h', group]], 'secret', generateSecretKey()),
      guest.sign(1059, [['p', ownerPubkey]], 'wrapped', generateSecretKey(), now() - 2 * 86_400),
    ]
    for (const event of said) expect(await guest.answerTo('EVENT', event)).toEqual(['OK', event.id, true, ''])
    relay.say('REQ', 'all', { ids: said.map(({ id }) => id) })
    await relay.heard(([type]) => type === 'EOSE')
    expect(relay.frames.filter(([type]) => type === 'EVENT').map((frame) => (frame[2] as { id: string }).id)).toHaveLength(5)

    const stored = relay.sign(445, [['h', group]], 'before', generateSecretKey())
    await relay.answerTo('EVENT', stored)
    guest.say('REQ', 'g', { kinds: [445], '#h': [group] })
    guest.say('REQ', 'w', { kinds: [1059], '#p': [guest.pubkey] })
    await guest.heard((frame) => frame[0] === 'EOSE' && frame[1] === 'g')
    await guest.heard((frame) => frame[0] === 'EOSE' && frame[1] === 'w')
    const told = (id: string) => guest.frames.filter((frame) => frame[0] === 'EVENT' && (frame[2] as { id: string }).id === id)
    expect(told(stored.id)).toHaveLength(1)
    const live = relay.sign(445, [['h', group]], 'live', generateSecretKey())
    const wrap = relay.sign(1059, [['p', guest.pubkey]], 'live', generateSecretKey(), now() - 86_400)
    const other = relay.sign(445, [['h', 'cd'.repeat(32)]], 'other', generateSecretKey())
    for (const event of [other, live, wrap]) await relay.answerTo('EVENT', event)
    await guest.heard((frame) => frame[0] === 'EVENT' && (frame[2] as { id: string }).id === live.id)
    await guest.heard((frame) => frame[0] === 'EVENT' && (frame[2] as { id: string }).id === wrap.id)
    expect([told(live.id), told(wrap.id), told(other.id)].map((frames) => frames.length)).toEqual([1, 1, 0])
    guest.say('CLOSE', 'g')
    const later = relay.sign(445, [['h', group]], 'later', generateSecretKey())
    await relay.answerTo('EVENT', later)
    const more = relay.sign(1059, [['p', guest.pubkey]], 'more', generateSecretKey())
    await relay.answerTo('EVENT', more)
    await guest.heard((frame) => frame[0] === 'EVENT' && (frame[2] as { id: string }).id === more.id)
    expect(told(later.id)).toEqual([])
  })

  test('refuses every other event in words', async () => {
    const { guest } = await guestIn()
    const stranger = generateSecretKey()
    const refusals: [string, ReturnType<Guest['sign']>, RegExp][] = [
      ['a note', guest.sign(1), /^restricted: kind 1 /],
      ['a DM', guest.sign(4, [['p', ownerPubkey]]), /^restricted: /],
      ['a profile', guest.sign(0), /^restricted: /],
      ["somebody else's key package", guest.sign(443, [], 'x', stranger), /^restricted: only for the key/],
      ["somebody else's list", guest.sign(10_051, [], 'x', stranger), /^restricted: only for the key/],
      [
        'a group event of two groups',
        guest.sign(
          445,
          [
            ['h', group],
            ['h', group],
          ],
          'x',
          stranger,
        ),
        /^restricted: /,
      ],
      ['a group event of none', guest.sign(445, [], 'x', stranger), /^restricted: /],
      ['a group event by its own key', guest.sign(445, [['h', group]]), /^invalid: /],
      ['a wrap to a stranger', guest.sign(1059, [['p', getPublicKey(stranger)]], 'x', stranger), /^restricted: /],
      [
        'a wrap to two',
        guest.sign(
          1059,
          [
            ['p', ownerPubkey],
            ['p', getPublicKey(stranger)],
          ],
          'x',
          stranger,
        ),
        /^restricted: /,
      ],
      ['a deletion by another', guest.sign(5, [['e', group]], '', stranger), /^restricted: /],
      [
        'a deletion of a note',
        guest.sign(5, [
          ['e', group],
          ['k', '1'],
        ]),
        /^restricted: /,
      ],
      ['a deletion of another address', guest.sign(5, [['a', `30443:${ownerPubkey}:x`]]), /^restricted: /],
      ['one of next week', guest.sign(443, [], 'x', guest.secret, now() + 7 * 86_400), /^invalid: .* dated/],
      ['one of last month', guest.sign(445, [['h', group]], 'x', stranger, now() - 30 * 86_400), /^invalid: .* dated/],
      [
        'one with many tags',
        guest.sign(
          443,
          Array.from({ length: 101 }, () => ['t', 'x']),
        ),
        /^invalid: .* tags/,
      ],
      ['one that is too long', guest.sign(445, [['h', group]], 'x'.repeat(65_500), stranger), /^invalid: .* bytes/],
      ['one with a forged signature', { ...guest.sign(443), sig: '00'.repeat(64) }, /^invalid: the signature/],
    ]
    for (const [what, event, words] of refusals) {
      const answer = await guest.answerTo('EVENT', event)
      expect([what, answer[2]]).toEqual([what, false])
      expect(answer[3], what).toMatch(words)
    }
    const gone = guest.sign(5, [
      ['a', `30443:${guest.pubkey}:x`],
      ['k', '30443'],
    ])
    expect((await guest.answerTo('EVENT', gone))[2]).toBe(true)
  })

  test('refuses every other question in words', async () => {
    const { guest } = await guestIn()
    const { pubkey } = guest
    const questions: [string, unknown[]][] = [
      ['all', [{}]],
      ['nothing', []],
      ['notes', [{ kinds: [1], authors: [pubkey] }]],
      ['wraps of others', [{ kinds: [1059], '#p': [ownerPubkey] }]],
      ['all wraps', [{ kinds: [1059] }]],
      ['all groups', [{ kinds: [445] }]],
      ['key packages of strangers', [{ kinds: [443], authors: ['ee'.repeat(32)] }]],
      ['all key packages', [{ kinds: [30_443] }]],
      ['two kinds by the tag of one', [{ kinds: [445, 1059], '#p': [pubkey] }]],
      ['by search', [{ kinds: [445], '#h': [group], search: 'x' }]],
      ['many filters', Array.from({ length: 5 }, () => ({ kinds: [445], '#h': [group] }))],
      ['no filter', ['x']],
    ]
    for (const [what, filters] of questions) {
      guest.say('REQ', what, ...filters)
      const [type, , words] = await guest.heard(([, id]) => id === what)
      expect([what, type]).toEqual([what, 'CLOSED'])
      expect(words, what).toMatch(/^(restricted|invalid): /)
    }
    guest.say('REQ', '', { kinds: [445], '#h': [group] })
    guest.say('COUNT', 'x', {})
    guest.say('NEG-OPEN', 'x', {}, '')
    guest.socket.send('no json')
    guest.socket.send('{}')
    await vi.waitFor(() => expect(guest.frames.filter(([type]) => type === 'NOTICE')).toHaveLength(5))
    const groups = Array.from({ length: 50 }, (_, i) => i.toString(16).padStart(64, '0'))
    guest.say('REQ', 'many', { kinds: [445], '#h': groups })
    expect((await guest.heard(([, id]) => id === 'many'))[0]).toBe('EOSE')
    guest.say('REQ', 'more', { kinds: [445], '#h': groups.map((id) => `f${id.slice(1)}`) })
    expect(await guest.heard(([, id]) => id === 'more')).toEqual(['CLOSED', 'more', 'restricted: a runtime hears of 64 groups'])
  })

  test('bounds subscriptions, requests, events and frames, and ends who sends too much at once', async () => {
    const { guest, path } = await guestIn()
    for (let i = 0; i < 11; i++) guest.say('REQ', `s${i}`, { kinds: [445], '#h': [group], limit: 1 })
    expect((await guest.heard(([type]) => type === 'CLOSED')).slice(0, 2)).toEqual(['CLOSED', 's10'])
    for (let i = 0; i < 40; i++) guest.say('REQ', 's1', { kinds: [445], '#h': [group], limit: 1 })
    expect((await guest.heard((frame) => frame[0] === 'CLOSED' && frame[1] === 's1'))[2]).toMatch(/^rate-limited: /)
    for (let i = 0; i < 80; i++) guest.say('EVENT', guest.sign(1, [['n', String(i)]]))
    await vi.waitFor(() =>
      expect(guest.frames.filter((frame) => frame[0] === 'OK' && String(frame[3]).startsWith('rate-limited')).length).toBeGreaterThan(10),
    )
    for (let i = 0; i < 200; i++) guest.say('CLOSE', 'x')
    await guest.heard((frame) => frame[0] === 'NOTICE' && String(frame[1]).startsWith('rate-limited'))
    guest.say('REQ', 'late', { kinds: [445], '#h': [group] })
    expect((await guest.heard(([, id]) => id === 'late'))[2]).toMatch(/^rate-limited: /)
    const late = guest.sign(443)
    expect((await guest.answerTo('EVENT', late))[3]).toMatch(/^rate-limited: /)
    guest.socket.send('x'.repeat(128 * 1024))
    await vi.waitFor(() => expect(guest.isClosed).toBe(true))
    // Another door is as wide as before.
    const other = await guestIn()
    expect((await other.guest.answerTo('EVENT', other.guest.sign(443)))[2]).toBe(true)
    expect(path).not.toBe(other.path)
  })

  test('says what the relay said of an event that it refused', async () => {
    const { ScriptedRelay } = await import('../../support/scripted-relay.ts')
    const relay = await ScriptedRelay.start({
      onFrame: (frame, connection) => {
        if (frame[0] !== 'EVENT') return false
        const event = frame[1] as { id: string; kind: number }
        if (event.kind !== 443) return false
        connection.send(['OK', event.id, false, 'blocked: no key packages here'])
        return true
      },
    })
    const node = startNostr({ relays: [relay.url] })
    onTestFinished(async () => {
      await node.stop()
      await relay.stop()
    })
    const row = await newRuntime(true, node)
    const guest = new Guest(await doorOf(row, openDoors(join(tempDir(), 'doors'), node)))
    await guest.prove()
    const event = guest.sign(443)
    expect(await guest.answerTo('EVENT', event)).toEqual(['OK', event.id, false, 'blocked: no key packages here'])
    // Sent again, it is asked again.
    guest.frames.length = 0
    expect((await guest.answerTo('EVENT', event))[2]).toBe(false)
    expect((await guest.answerTo('EVENT', guest.sign(10_051)))[2]).toBe(true)
  })

  test('opens again after a restart, at a path of any length, for the same key', async () => {
    const row = await newRuntime()
    const dir = join(tempDir(), 'a'.repeat(120), 'doors')
    const { mkdirSync } = await import('node:fs')
    mkdirSync(dirname(dir))
    const first = openDoors(dir)
    const path = await doorOf(row, first)
    const link = join(tempDir(), 'd')
    const { symlinkSync } = await import('node:fs')
    symlinkSync(dirname(path), link)
    const guest = new Guest(join(link, 'relay.sock'))
    await guest.prove()
    const second = openDoors(dir)
    expect(await doorOf(getRuntime(nostr.store, row.id) as RuntimeRow, second)).toBe(path)
    const thief = new Guest(join(link, 'relay.sock'))
    expect((await thief.prove())[2]).toBe(false)
    const again = new Guest(join(link, 'relay.sock'), guest.secret)
    expect((await again.prove())[2]).toBe(true)
  })
})
