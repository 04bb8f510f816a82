/** Keys at a bunker elsewhere, over a real relay: what it may answer wrongly is refused, each with its code, and nothing of it is used. */
import { finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { afterAll, beforeAll, beforeEach, expect, it, onTestFinished, vi } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { RemoteKeys } from '../../../src/nostr/bunker/remote-keys.ts'
import { FIRST_AGENT_ACCOUNT } from '../../../src/nostr/keys/keyring.ts'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import { parseBunkerUri } from '../../../src/nostr/nips/nip46.ts'
import { createVerifier } from '../../../src/nostr/reading/verify.ts'
import type { NostrEvent, Signer } from '../../../src/nostr/types.ts'
import { enqueueEvent, outboxEvent } from '../../../src/store/nostr/outbox.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { type Misbehaviour, ScriptedBunker } from '../../support/scripted-bunker.ts'

const ANSWER_MS = 1500
const SOON = { timeout: 20_000, interval: 50 }

let sandbox: TestSandbox
let node: TestNostr
let remoteKeys: RemoteKeys
let bunker: ScriptedBunker
let signer: Signer
let account = FIRST_AGENT_ACCOUNT

beforeAll(async () => {
  sandbox = await startSandbox()
  node = startNostr({ relays: [sandbox.relayUrl] })
  remoteKeys = remoteKeysOf(node)
})
afterAll(async () => {
  await node.stop()
  await sandbox.stop()
})

const remoteKeysOf = (of: TestNostr) =>
  new RemoteKeys({ ...of, logger: silentLogger, scope: of.scope.child('remote keys'), answerMs: ANSWER_MS })

beforeEach(async () => {
  bunker = await ScriptedBunker.start(sandbox.relayUrl)
  onTestFinished(() => bunker.stop())
  const uri = parseBunkerUri(bunker.url)
  expect(await remoteKeys.connect(uri)).toBe(bunker.pubkey)
  signer = await node.keyring.keepRemote(bunker.pubkey, uri, account++)
})

const note = (content = 'hello') => ({ kind: 1, content, tags: [['t', 'pylon']], created_at: Math.floor(Date.now() / 1000) })

const onSign =
  (change: (event: NostrEvent) => object): Misbehaviour =>
  ({ method }, right) =>
    method === 'sign_event' ? [{ ...right, result: JSON.stringify(change(JSON.parse(right.result ?? '') as NostrEvent)) }] : undefined

const stranger = generateSecretKey()
const troubleOf = ({ pubkey }: ScriptedBunker) => remoteKeys.troubled().find((one) => one.pubkey === pubkey)?.health
const resigned = (change: (event: NostrEvent) => Partial<NostrEvent>) => {
  const user = generateSecretKey()
  bunker.become(user)
  return onSign((event) => finalizeEvent({ ...event, ...change(event), tags: event.tags.map((tag) => [...tag]) } as never, user))
}

it('signs what was asked, also where the answer comes twice', async () => {
  bunker.misbehave = (_asked, right) => [right, { ...right, error: 'on second thoughts: no', result: '' }]
  const template = note()
  const signed = await signer.sign(template)
  expect(signed).toMatchObject({ ...template, pubkey: bunker.pubkey, id: identify(bunker.pubkey, template).id })
  expect(createVerifier().verify(signed)).toBe(true)
  const peer = getPublicKey(stranger)
  expect(await signer.nip44Decrypt(peer, await signer.nip44Encrypt(peer, 'to both'))).toBe('to both')
  expect(await signer.nip04Decrypt(peer, await signer.nip04Encrypt(peer, 'of old'))).toBe('of old')
})

it.each<[string, () => Misbehaviour, string]>([
  ['another content', () => onSign((event) => ({ ...event, content: 'send me all your sats' })), 'another content'],
  ['other tags', () => onSign((event) => ({ ...event, tags: [['p', 'f'.repeat(64)]] })), 'other tags'],
  ['another time', () => onSign((event) => ({ ...event, created_at: event.created_at + 1 })), 'another time'],
  ['another kind', () => onSign((event) => ({ ...event, kind: 0 })), 'another kind'],
  ['a wrong id', () => onSign((event) => ({ ...event, id: 'a'.repeat(64) })), 'a wrong id'],
  ['a wrong signature', () => onSign((event) => ({ ...event, sig: '0'.repeat(128) })), 'a signature that does not hold'],
  [
    'the signature of another event',
    () => onSign((event) => ({ ...event, sig: finalizeEvent({ ...event, content: 'x', tags: [] } as never, stranger).sig })),
    'does not hold',
  ],
  ['an event that is whole, of another key', () => resigned(() => ({})), 'another key'],
  [
    'garbage',
    () =>
      ({ method }, right) =>
        method === 'sign_event' ? [{ ...right, result: '{"id":' }] : undefined,
    'no signed event',
  ],
  [
    'nothing in it',
    () =>
      ({ method }, right) =>
        method === 'sign_event' ? [{ id: right.id, result: '' }] : undefined,
    'no signed event',
  ],
])('that answers with %s is refused, and nothing is published', async (_what, misbehave, words) => {
  // Before it goes wrong it is known.
  await signer.sign(note())
  bunker.misbehave = misbehave()
  await expect(signer.sign(note())).rejects.toMatchObject({ code: 'bunker_answer_invalid', message: expect.stringContaining(words) })
  const event = identify(bunker.pubkey, note(`never ${Math.random()}`))
  const given: string[] = []
  const key = `test:${event.id}`
  node.nostr.onGivenUp(key, async (_key, why) => void given.push(why))
  const at = Date.now()
  await node.store.write(enqueueEvent({ key, event, relays: node.nostr.relays, notAfter: at + 60_000, at }))
  node.nostr.nudgeOutbox()
  await vi.waitFor(() => expect(given.join()).toContain('bunker_answer_invalid'), SOON)
  expect((await node.nostr.query([{ ids: [event.id] }])).events).toEqual([])
})

it.each<[string, (right: string) => string]>([
  ['what is no ciphertext', () => 'in the clear'],
  ['too much', () => 'x'.repeat(60_000)],
])('that answers an encryption with %s is refused', async (_what, change) => {
  bunker.misbehave = ({ method }, right) => (/_encrypt$/.test(method) ? [{ ...right, result: change(right.result ?? '') }] : undefined)
  const peer = getPublicKey(stranger)
  await expect(signer.nip44Encrypt(peer, 'secret')).rejects.toMatchObject({ code: 'bunker_answer_invalid' })
  await expect(signer.nip04Encrypt(peer, 'secret')).rejects.toMatchObject({ code: 'bunker_answer_invalid' })
})

it.each<[string, () => void]>([
  ['never', () => (bunker.misbehave = () => [])],
  ['by another key', () => (bunker.answersBy = stranger)],
  ['with what cannot be decrypted', () => (bunker.misbehave = () => ['garbage'])],
  ['with what is oversized', () => (bunker.misbehave = () => ['A'.repeat(100_000)])],
  ['to what nobody asked', () => (bunker.misbehave = (_asked, right) => [{ ...right, id: 'another' }])],
])('that answers %s is unreachable, and is told so at once from then on', async (_what, begin) => {
  begin()
  await expect(signer.sign(note())).rejects.toMatchObject({ code: 'bunker_unreachable', retryable: true })
  const asked = bunker.asked.length
  await expect(signer.sign(note())).rejects.toMatchObject({ code: 'bunker_unreachable' })
  expect(bunker.asked.length).toBe(asked)
  expect(troubleOf(bunker)).toMatchObject({ code: 'bunker_unreachable' })
})

it('that signs for another key later signs nothing, until it is the first again', async () => {
  const user = generateSecretKey()
  const other = await ScriptedBunker.start(sandbox.relayUrl, user)
  onTestFinished(() => other.stop())
  const uri = parseBunkerUri(other.url)
  const kept = await node.keyring.keepRemote(await remoteKeys.connect(uri), uri, account++)
  other.become(generateSecretKey())
  await expect(kept.sign(note())).rejects.toMatchObject({ code: 'bunker_key_changed' })
  expect(other.count('sign_event')).toBe(0)
  await expect(kept.nip44Encrypt(getPublicKey(stranger), 'x')).rejects.toMatchObject({ code: 'bunker_key_changed' })
  remoteKeys.watch(other.pubkey)
  other.become(user)
  await vi.waitFor(async () => expect((await kept.sign(note())).pubkey).toBe(other.pubkey), SOON)
})

it('that refuses is heard, and its words are told without what a terminal would obey', async () => {
  bunker.misbehave = ({ method }, right) => (method === 'sign_event' ? [{ id: right.id, error: 'forbidden: \u001b[2Jkind 1' }] : undefined)
  await expect(signer.sign(note())).rejects.toMatchObject({
    code: 'bunker_refused',
    message: 'The bunker refused sign_event: forbidden:  [2Jkind 1',
  })
})

it('that wants its owner to allow it says where, and signs once he has', async () => {
  let allow: (() => void) | undefined
  bunker.misbehave = ({ method, id }, right) => {
    if (method !== 'sign_event' || allow !== undefined) return undefined
    allow = () => undefined
    setTimeout(() => bunker.allow(right), 300)
    return [{ id, result: 'auth_url', error: 'https://bunker.example/allow?x=1' }]
  }
  const signing = signer.sign(note())
  await vi.waitFor(() =>
    expect(troubleOf(bunker)).toMatchObject({
      code: 'bunker_approval',
      reason: expect.stringContaining('https://bunker.example/allow?x=1'),
    }),
  )
  expect((await signing).pubkey).toBe(bunker.pubkey)
  bunker.misbehave = ({ id }) => [{ id, result: 'auth_url', error: 'javascript:alert(1)' }]
  await expect(signer.sign(note())).rejects.toMatchObject({ code: 'bunker_answer_invalid' })
})

it('while it is away things wait, and go once when it is back, also after the node was killed', async () => {
  const dead = startNostr({ relays: [sandbox.relayUrl] })
  const mine = await ScriptedBunker.start(sandbox.relayUrl)
  onTestFinished(() => mine.stop())
  const keys = remoteKeysOf(dead)
  const uri = parseBunkerUri(mine.url)
  const pubkey = await keys.connect(uri)
  await dead.keyring.keepRemote(pubkey, uri, 30)
  mine.isAway = true
  const event = identify(pubkey, note('patience'))
  const at = Date.now()
  await dead.store.write(enqueueEvent({ key: 'patience', event, relays: dead.nostr.relays, notAfter: at + 120_000, at }))
  dead.nostr.nudgeOutbox()
  await vi.waitFor(() => expect(keys.troubled()).toHaveLength(1), SOON)
  await dead.stop({ keep: true, kill: true })
  const alive = startNostr({ relays: [sandbox.relayUrl], dir: dead.dir })
  onTestFinished(() => alive.stop())
  expect(alive.keyring.owns(pubkey)).toBe(true)
  expect(outboxEvent(alive.store, 'patience')).toMatchObject({ id: event.id })
  const again = remoteKeysOf(alive)
  again.start()
  mine.isAway = false
  await vi.waitFor(async () => expect((await alive.nostr.query([{ ids: [event.id] }])).events).toHaveLength(1), {
    timeout: 60_000,
    interval: 200,
  })
  expect((await alive.nostr.query([{ kinds: [1], authors: [pubkey] }])).events).toHaveLength(1)
}, 90_000)

it('brought again after a cut, its string is the same connection', async () => {
  const once = await ScriptedBunker.start(sandbox.relayUrl)
  onTestFinished(() => once.stop())
  const uri = parseBunkerUri(once.url)
  expect(await remoteKeys.connect(uri)).toBe(once.pubkey)
  // Its secret is used up, and the client is known.
  expect(await remoteKeys.connect(uri)).toBe(once.pubkey)
  const wrong = parseBunkerUri(once.url.replace(/secret=.*/, 'secret=guessed'))
  await expect(remoteKeys.connect(wrong)).rejects.toMatchObject({ code: 'bunker_refused' })
})
