/** Words, identity file, keyring and signer: official vectors, wrong input, what survives a restart. */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decrypt as decrypt04, encrypt as encrypt04 } from 'nostr-tools/nip04'
import { decrypt as decrypt44, encrypt as encrypt44, getConversationKey } from 'nostr-tools/nip44'
import { verifyEvent } from 'nostr-tools/pure'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { createIdentity, type Identity, isProtected, readIdentity, unlockIdentity } from '../../../src/nostr/keys/identity.ts'
import { HomeKeyring } from '../../../src/nostr/keys/keyring.ts'
import { parseWords, secretOfAccount, seedOfWords } from '../../../src/nostr/keys/mnemonic.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import type { Store } from '../../../src/store/store.ts'
import { TEST_PUBKEY, TEST_WORDS } from '../../support/nostr-node.ts'
import { openStore } from '../../support/store.ts'
import { testSigner } from '../../support/test-signer.ts'

const WORDS_24 =
  'what bleak badge arrange retreat wolf trade produce cricket blur garlic valid proud rude strong choose busy staff weather area salt hollow arm fade'

let dir = ''
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'pylon-keys-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

function openHome({ pubkey, bunker }: { pubkey: string; bunker?: Identity['bunker'] }) {
  const store = openStore(join(mkdtempSync(join(dir, 'home-')), 'pylon.db'))
  const keyring = new HomeKeyring({ store, clock: systemClock, logger: silentLogger, nodePubkey: pubkey, nodeBunker: bunker })
  return { store, keyring }
}

describe('words', () => {
  it('derive the keys of the NIP-06 vectors', () => {
    const pubkeyOf = (words: string) => createSigner(secretOfAccount(seedOfWords(words), 0)).pubkey
    expect(pubkeyOf(TEST_WORDS)).toBe('17162c921dc4d2518f9a101db33695df1afb56ab82f5ff3e5da6eec3ca5cd917')
    expect(pubkeyOf(WORDS_24)).toBe('d41b22899549e1f3d335a31002cfd382174006e166d3e658e3a5eecdb6463573')
  })

  it('are taken as people type them, and the wrong one is named', () => {
    expect(parseWords(`  ${TEST_WORDS.toUpperCase().replaceAll(' ', ' \n ')} `)).toBe(TEST_WORDS)
    expect(() => parseWords('')).toThrow('got 0')
    expect(() => parseWords('leader monkey')).toThrow('got 2')
    // One key is no node, and is not shown again in what says so.
    for (const secret of ['ab'.repeat(32), `nsec1${'q'.repeat(58)}`]) expect(() => parseWords(secret)).toThrow('pylon agent spawn --import')
    expect(() => parseWords(TEST_WORDS.replace('ring', 'rring'))).toThrow('Word 4 ("rring")')
    expect(() => parseWords(TEST_WORDS.replace('ring', 'rude'))).toThrow('checksum')
  })
})

describe('the identity file', () => {
  const path = () => join(dir, 'identity.json')

  it('holds the words in clear without a passphrase, for the owner only', async () => {
    const { identity, words } = await createIdentity(path(), systemClock)
    expect(words.split(' ').length).toBe(12)
    expect(statSync(path()).mode & 0o777).toBe(0o600)
    expect(readIdentity(path())).toEqual(identity)
    expect(isProtected(identity)).toBe(false)
    expect(await unlockIdentity(identity)).toBe(words)
  })

  it('holds how the node key is reached at a bunker, sealed, and opens for its own words and key alone', async () => {
    const bunker = { signerPubkey: 'ab'.repeat(32), relays: ['wss://relay.example'], secret: 'only-once' }
    const pubkey = 'cd'.repeat(32)
    const { identity } = await createIdentity(path(), systemClock, { words: TEST_WORDS, passphrase: 'right', remote: { pubkey, bunker } })
    expect(identity.pubkey).toBe(pubkey)
    expect(readIdentity(path())).toEqual(identity)
    for (const secret of ['only-once', 'relay.example']) expect(readFileSync(path(), 'utf8')).not.toContain(secret)
    expect(await unlockIdentity(identity, 'right')).toBe(TEST_WORDS)
    await expect(unlockIdentity({ ...identity, pubkey: TEST_PUBKEY }, 'right')).rejects.toThrow(/do not belong/)
    const { store, keyring } = openHome(identity)
    expect(() => keyring.unlock(WORDS_24)).toThrow(/another identity/)
    keyring.unlock(TEST_WORDS)
    expect(keyring.node().pubkey).toBe(pubkey)
    expect(keyring.remotes()).toEqual([{ pubkey, bunker }])
    await expect(keyring.node().sign({ kind: 1, created_at: 1, tags: [], content: '' })).rejects.toMatchObject({
      code: 'bunker_unreachable',
    })
    for (const held of [() => keyring.localSigner(pubkey), () => keyring.exportKey(pubkey)])
      expect(held).toThrow(expect.objectContaining({ code: 'bunker_unable' }))
    // Its sats are those of the words' account 0, which is no key of this home.
    const local = openHome({ ...identity, pubkey: TEST_PUBKEY, bunker: undefined })
    local.keyring.unlock(TEST_WORDS)
    expect(keyring.walletSeed(pubkey)).toEqual(local.keyring.walletSeed(TEST_PUBKEY))
    expect(keyring.walletSigner(pubkey).pubkey).toBe(local.keyring.walletSigner(TEST_PUBKEY).pubkey)
    expect(keyring.customer().pubkey).toBe(local.keyring.customer().pubkey)
    expect([keyring.owns(pubkey), keyring.owns(TEST_PUBKEY)]).toEqual([true, false])
    for (const opened of [store, local.store]) opened.close()
  })

  it('holds only ciphertext under a passphrase, and opens with no other', async () => {
    const { identity } = await createIdentity(path(), systemClock, { words: TEST_WORDS, passphrase: 'right' })
    const text = readFileSync(path(), 'utf8')
    for (const word of ['leader', 'monkey', 'right']) expect(text).not.toContain(word)
    expect(isProtected(identity)).toBe(true)
    await expect(unlockIdentity(identity)).rejects.toMatchObject({ code: 'locked' })
    await expect(unlockIdentity(identity, 'wrong')).rejects.toMatchObject({ code: 'passphrase_wrong' })
    expect(await unlockIdentity(identity, 'right')).toBe(TEST_WORDS)
  })

  it('is replaced only by force, and the old one is kept', async () => {
    const first = await createIdentity(path(), systemClock)
    await expect(createIdentity(path(), systemClock)).rejects.toMatchObject({ code: 'identity_exists' })
    await expect(createIdentity(path(), systemClock, { words: 'x', force: true })).rejects.toMatchObject({ code: 'identity_invalid' })
    expect(readIdentity(path())).toEqual(first.identity)
    const second = await createIdentity(path(), systemClock, { words: TEST_WORDS, force: true })
    expect(second.identity.pubkey).toBe(TEST_PUBKEY)
    expect(existsSync(second.movedTo ?? '')).toBe(true)
    expect(JSON.parse(readFileSync(second.movedTo ?? '', 'utf8'))).toEqual(first.identity)
  })

  it('is refused when others may read it, when it is damaged, or when key and words differ', async () => {
    expect(readIdentity(path())).toBeUndefined()
    const { identity } = await createIdentity(path(), systemClock, { words: TEST_WORDS })
    chmodSync(path(), 0o640)
    expect(() => readIdentity(path())).toThrow('chmod 600')
    chmodSync(path(), 0o600)
    await expect(unlockIdentity({ ...identity, secret: WORDS_24 })).rejects.toMatchObject({ code: 'identity_invalid' })
    for (const text of ['', '{', '[]', '{"version":2}', JSON.stringify({ ...identity, pubkey: 'x' })]) {
      writeFileSync(path(), text)
      expect(() => readIdentity(path())).toThrow('not a valid identity file')
    }
  })
})

describe('the keyring', () => {
  function open(locked = false): { keyring: HomeKeyring; store: Store } {
    const store = openStore(join(dir, 'pylon.db'))
    const keyring = new HomeKeyring({ store, clock: systemClock, logger: silentLogger, nodePubkey: TEST_PUBKEY })
    if (!locked) keyring.unlock(TEST_WORDS)
    return { keyring, store }
  }

  it('gives nothing away while locked, and still knows its own', async () => {
    const first = open()
    const agent = first.keyring.account(10).pubkey
    const imported = await first.keyring.importKey('11'.repeat(32))
    first.store.close()
    const { keyring, store } = open(true)
    expect(keyring.locked).toBe(true)
    for (const use of [
      () => keyring.node(),
      () => keyring.customer(),
      () => keyring.signer(agent),
      () => keyring.walletSeed(agent),
      () => keyring.walletSigner(agent),
      () => keyring.exportKey(agent),
      () => keyring.words(),
    ]) {
      expect(use).toThrow(expect.objectContaining({ code: 'locked' }))
    }
    expect([TEST_PUBKEY, agent, imported.pubkey, testSigner(1).pubkey].map((pubkey) => keyring.owns(pubkey))).toEqual([
      true,
      true,
      true,
      false,
    ])
    expect(() => keyring.unlock(WORDS_24)).toThrow(expect.objectContaining({ code: 'identity_invalid' }))
    keyring.unlock(TEST_WORDS)
    expect(keyring.signer(agent).pubkey).toBe(agent)
    expect(keyring.signer(imported.pubkey).pubkey).toBe(imported.pubkey)
    expect(() => keyring.signer(testSigner(1).pubkey)).toThrow(expect.objectContaining({ code: 'not_found' }))
    expect(keyring.nextAccount()).toBe(11)
    store.close()
  })

  it('keeps wallets apart from keys and from each other, the same after a restart', () => {
    const first = open()
    const node = first.keyring.node().pubkey
    const customer = first.keyring.customer().pubkey
    const seeds = [node, customer].map((pubkey) => Buffer.from(first.keyring.walletSeed(pubkey)).toString('hex'))
    expect(seeds.map((seed) => seed.length)).toEqual([128, 128])
    const keys = [node, customer].map((pubkey) => first.keyring.walletSigner(pubkey).pubkey)
    expect(new Set([...seeds, ...keys, node, customer]).size).toBe(6)
    first.store.close()
    const second = open()
    expect([node, customer].map((pubkey) => Buffer.from(second.keyring.walletSeed(pubkey)).toString('hex'))).toEqual(seeds)
    expect([node, customer].map((pubkey) => second.keyring.walletSigner(pubkey).pubkey)).toEqual(keys)
    second.store.close()
  })

  it('moves a key with its wallet by a bundle', async () => {
    const { keyring, store } = open()
    const agent = keyring.account(12)
    const bundle = keyring.exportKey(agent.pubkey)
    const elsewhere = openStore(join(dir, 'other.db'))
    const otherPubkey = createSigner(secretOfAccount(seedOfWords(WORDS_24), 0)).pubkey
    const other = new HomeKeyring({ store: elsewhere, clock: systemClock, logger: silentLogger, nodePubkey: otherPubkey })
    other.unlock(WORDS_24)
    const imported = await other.importKey(JSON.stringify(bundle))
    expect(imported.pubkey).toBe(agent.pubkey)
    expect(other.exportKey(agent.pubkey)).toEqual(bundle)
    expect(other.walletSigner(agent.pubkey).pubkey).toBe(keyring.walletSigner(agent.pubkey).pubkey)
    await expect(other.importKey(bundle.nsec)).rejects.toMatchObject({ code: 'agent_exists' })
    for (const bad of ['', 'nsec1', '{}', JSON.stringify({ ...bundle, wallet_seed: 'short' })]) {
      await expect(other.importKey(bad)).rejects.toMatchObject({ code: 'identity_invalid' })
    }
    elsewhere.close()
    expect(readFileSync(join(dir, 'other.db')).includes(bundle.wallet_seed ?? 'none')).toBe(false)
    store.close()
  })
})

describe('the signer', () => {
  const key = (last: number) => new Uint8Array([...new Array<number>(31).fill(0), last])

  it('reads the official NIP-44 vector', () => {
    const payload =
      'AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABee0G5VSK0/9YypIObAtDKfYEAjD35uVkHyB0F4DwrcNaCXlCWZKaArsGrY6M9wnuTMxWfp1RTN9Xga8no+kF5Vsb'
    expect(createSigner(key(1)).nip44Decrypt(createSigner(key(2)).pubkey, payload)).toBe('a')
    expect(createSigner(key(2)).nip44Decrypt(createSigner(key(1)).pubkey, payload)).toBe('a')
  })

  it('understands nostr-tools and is understood by it', () => {
    const ours = createSigner(key(7))
    const theirs = createSigner(key(9)).pubkey
    const conversation = getConversationKey(key(9), ours.pubkey)
    const text = 'grüße, 世界 🌍'.repeat(50)
    expect(decrypt44(ours.nip44Encrypt(theirs, text), conversation)).toBe(text)
    expect(ours.nip44Decrypt(theirs, encrypt44(text, conversation))).toBe(text)
    expect(decrypt04(key(9), ours.pubkey, ours.nip04Encrypt(theirs, text))).toBe(text)
    expect(ours.nip04Decrypt(theirs, encrypt04(key(9), ours.pubkey, text))).toBe(text)
    const event = ours.sign({ kind: 1, created_at: 1_700_000_000, tags: [['t', 'a"b\\c\n']], content: text })
    expect(verifyEvent({ ...event, tags: event.tags.map((tag) => [...tag]) })).toBe(true)
  })

  it('never signs twice alike, and answers bad ciphertext with a typed error', () => {
    const signer = createSigner(key(7))
    const template = { kind: 1, created_at: 1, tags: [], content: '' }
    expect(signer.sign(template).id).toBe(signer.sign(template).id)
    expect(signer.sign(template).sig).not.toBe(signer.sign(template).sig)
    const peer = testSigner(1).pubkey
    const cipher = signer.nip44Encrypt(peer, 'x')
    for (const bad of ['', '#x', 'AA', cipher.slice(0, -4), `${cipher.slice(0, -4)}AAAA`, 'x'.repeat(2_000_000)]) {
      expect(() => signer.nip44Decrypt(peer, bad)).toThrow(expect.objectContaining({ code: 'decrypt_failed' }))
      expect(() => signer.nip04Decrypt(peer, bad)).toThrow(expect.objectContaining({ code: 'decrypt_failed' }))
    }
    for (const notAKey of ['', 'f'.repeat(64), 'zz', '0'.repeat(64)]) {
      expect(() => signer.nip44Decrypt(notAKey, cipher)).toThrow(expect.objectContaining({ code: 'decrypt_failed' }))
    }
    expect(() => signer.nip44Encrypt(peer, '')).toThrow(expect.objectContaining({ code: 'event_invalid' }))
  })
})
