/** Our bunker with the client of nostr-tools, over a relay: both ways to connect, and what it signs, encrypts and refuses. */

import { BunkerSigner, createNostrConnectURI, parseBunkerInput } from 'nostr-tools/nip46'
import { SimplePool } from 'nostr-tools/pool'
import { generateSecretKey, getPublicKey, verifyEvent } from 'nostr-tools/pure'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { Bunker, type GrantOrder } from '../../../src/nostr/bunker/bunker.ts'
import { parseNostrConnectUri } from '../../../src/nostr/nips/nip46.ts'
import { startNostr, TEST_PUBKEY, type TestNostr } from '../../support/nostr-node.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'

let sandbox: TestSandbox
let node: TestNostr
let bunker: Bunker
const pool = new SimplePool()

beforeAll(async () => {
  sandbox = await startSandbox()
  node = startNostr({ relays: [sandbox.relayUrl] })
  bunker = new Bunker({ ...node, clock: node.scope.clock, logger: silentLogger, scope: node.scope.child('bunker') })
  bunker.start()
})
afterAll(async () => {
  pool.destroy()
  await node.stop()
  await sandbox.stop()
})

const order = (more: Partial<GrantOrder>): GrantOrder => ({
  ...{
    key: 'k',
    userPubkey: TEST_PUBKEY,
    name: 'app',
    methods: ['sign_event', 'nip44_encrypt', 'nip44_decrypt', 'nip04_encrypt', 'nip04_decrypt'],
  },
  ...{ kinds: null, expiresAt: null },
  ...more,
})

const note = (kind = 1) => ({ kind, content: 'hello', tags: [['t', 'pylon']], created_at: Math.floor(Date.now() / 1000) })

it('by a bunker:// string: it signs and encrypts as the key, which it never has', async () => {
  const { url, grant } = await bunker.create(order({}))
  const pointer = await parseBunkerInput(url)
  if (pointer === null) throw new Error('nostr-tools does not read the string')
  const signer = BunkerSigner.fromBunker(generateSecretKey(), pointer, { pool })
  await signer.connect({ name: 'nostr-tools' })
  expect(await signer.getPublicKey()).toBe(TEST_PUBKEY)
  await signer.ping()
  const signed = await signer.signEvent(note())
  expect(verifyEvent(signed)).toBe(true)
  expect(signed).toMatchObject({ ...note(), created_at: signed.created_at, pubkey: TEST_PUBKEY })
  const peer = getPublicKey(generateSecretKey())
  expect(await signer.nip44Decrypt(peer, await signer.nip44Encrypt(peer, 'to myself and a peer'))).toBe('to myself and a peer')
  expect(await signer.nip04Decrypt(peer, await signer.nip04Encrypt(peer, 'of old'))).toBe('of old')
  await expect(signer.signEvent(note(0))).rejects.toBe('forbidden: this connection may not sign kind 0')
  expect(await signer.switchRelays()).toBe(false)
  expect(bunker.get(grant.id)).toMatchObject({ clientName: 'nostr-tools' })
  await signer.logout()
  expect(bunker.get(grant.id).revokedAt).not.toBeNull()
})

it('by a nostrconnect:// string of the app', async () => {
  const secret = generateSecretKey()
  const uri = createNostrConnectURI({
    clientPubkey: getPublicKey(secret),
    relays: [sandbox.relayUrl],
    secret: 'of the app',
    name: 'Web app',
  })
  const waiting = BunkerSigner.fromURI(secret, uri, { pool }, 20_000)
  // It hears from now on only: its subscription is to be there first.
  await pool.ensureRelay(sandbox.relayUrl)
  await pool.querySync([sandbox.relayUrl], { kinds: [1], limit: 1 })
  const grant = await bunker.connect(parseNostrConnectUri(uri), order({ key: 'web', kinds: [1] }))
  const signer = await waiting
  expect(await signer.getPublicKey()).toBe(TEST_PUBKEY)
  expect(verifyEvent(await signer.signEvent(note()))).toBe(true)
  await expect(signer.signEvent(note(7))).rejects.toContain('may not sign kind 7')
  await bunker.revoke(grant.id)
  await expect(signer.signEvent(note())).rejects.toContain('revoked')
  await signer.close()
})
