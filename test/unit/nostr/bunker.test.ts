/** The bunker against its clients: what it grants, whom it hears, and that a request is done once whatever ends the node. */
import { getPublicKey, verifyEvent } from 'nostr-tools/pure'
import { expect, it, onTestFinished } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { type Logger, silentLogger } from '../../../src/base/logger.ts'
import { Bunker, type GrantOrder } from '../../../src/nostr/bunker/bunker.ts'
import { isByNameOnly } from '../../../src/nostr/bunker/grant-rules.ts'
import { HomeKeyring } from '../../../src/nostr/keys/keyring.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { BUNKER_KIND, parseNostrConnectUri } from '../../../src/nostr/nips/nip46.ts'
import type { LocalSigner, NostrEvent, SubscriptionSpec } from '../../../src/nostr/types.ts'
import { endUnusedBunkerGrants, recentBunkerRequests } from '../../../src/store/nostr/bunker.ts'
import type { CommitHook, Store } from '../../../src/store/store.ts'
import { TEST_PUBKEY, TEST_WORDS } from '../../support/nostr-node.ts'
import { testScope } from '../../support/scope.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'

const RELAY = 'wss://relay.test'
const DAY_MS = 86_400_000

/** A node with its bunker over a relay that is a list; it can be opened again on what it stored. */
function openNode(dir: string, clock = new ManualClock(), hook: CommitHook = {}, requestsADay = 1000) {
  const store = openStore(`${dir}/pylon.db`, { hook })
  const keyring = new HomeKeyring({ store, clock, logger: silentLogger, nodePubkey: TEST_PUBKEY })
  keyring.unlock(TEST_WORDS)
  const scope = testScope(clock, () => true)
  const heard: SubscriptionSpec[] = []
  const allowed: string[] = []
  const nostr = {
    relays: [RELAY],
    nudgeOutbox: () => {},
    subscribe: (spec: SubscriptionSpec) => {
      heard.push(spec)
      return { close: () => {} } as never
    },
  }
  const dialer = { allow: (url: string) => void allowed.push(url) } as never
  const bunker = new Bunker({ scope, store, clock, logger: silentLogger as Logger, dialer, nostr, keyring, requestsADay })
  bunker.start()
  /** As a relay gives it: past what is not worth hearing. */
  const deliver = async (event: NostrEvent) => {
    for (const spec of heard) {
      const isFor = spec.filters.some((filter) => filter['#p']?.some((key) => event.tags.some(([, to]) => to === key)))
      if (isFor && spec.isWorthIt?.(event, RELAY) !== false) await spec.onEvent(event, RELAY)
    }
  }
  const close = async () => {
    await scope.close(0)
    store.close()
  }
  return { store, clock, bunker, allowed, deliver, close, keyring }
}
type Node = ReturnType<typeof openNode>

async function world() {
  const node = openNode(tempDir())
  onTestFinished(() => node.close())
  return node
}

/** A program elsewhere, with its own key. */
class Client {
  readonly signer: LocalSigner
  readonly #node: Node
  readonly to: string
  #requests = 0

  constructor(node: Node, to: string, secret = 7) {
    this.signer = createSigner(new Uint8Array(32).fill(secret))
    this.#node = node
    this.to = to
  }

  event(method: string, params: readonly unknown[], scheme: 'nip44' | 'nip04' = 'nip44', atS = Math.floor(this.#node.clock.now() / 1000)) {
    const text = JSON.stringify({ id: `r${++this.#requests}`, method, params })
    const content = scheme === 'nip44' ? this.signer.nip44Encrypt(this.to, text) : this.signer.nip04Encrypt(this.to, text)
    return this.signer.sign({ kind: BUNKER_KIND, created_at: atS, tags: [['p', this.to]], content })
  }

  async ask(method: string, ...params: readonly unknown[]) {
    const event = this.event(method, params)
    await this.#node.deliver(event)
    return this.answerTo(event)
  }

  answerTo({ id }: NostrEvent, store: Store = this.#node.store): { id: string; result: string; error?: string } | undefined {
    const answers = answersIn(store, `bunker-answer:${id}`)
    expect(answers.length).toBeLessThan(2)
    const [answer] = answers
    if (answer === undefined) return undefined
    expect(answer.pubkey).toBe(this.to)
    expect(verifyEvent(answer as never)).toBe(true)
    const open = answer.content.includes('?iv=') ? this.signer.nip04Decrypt : this.signer.nip44Decrypt
    return JSON.parse(open.call(this.signer, this.to, answer.content))
  }
}

const answersIn = (store: Store, key: string): NostrEvent[] =>
  store
    .sql('SELECT event FROM outbox_messages WHERE key = ?')
    .all(key)
    .map((row) => JSON.parse(String(row['event'])))

const order = (more: Partial<GrantOrder> = {}): GrantOrder => ({
  ...{ key: 'k', userPubkey: TEST_PUBKEY, name: 'phone', methods: ['sign_event'], kinds: null, expiresAt: null },
  ...more,
})

const partsOf = (url: string) => {
  const { host, searchParams } = new URL(url.replace('bunker://', 'http://'))
  return { signerPubkey: host, secret: searchParams.get('secret') ?? '', relays: searchParams.getAll('relay') }
}

async function connected(node: Node, more: Partial<GrantOrder> = {}) {
  const { grant, url } = await node.bunker.create(order(more))
  const { signerPubkey, secret } = partsOf(url)
  const client = new Client(node, signerPubkey)
  expect(await client.ask('connect', signerPubkey, secret, '', '{"name":"My app"}')).toMatchObject({ result: 'ack' })
  return { client, grant, url, secret }
}

const note = (node: Node, more: Record<string, unknown> = {}) =>
  JSON.stringify({ kind: 1, content: 'hello', tags: [['t', 'x']], created_at: Math.floor(node.clock.now() / 1000), ...more })

it('signs for the client that brought the secret, by a key of its own', async () => {
  const node = await world()
  const { client, grant, url } = await connected(node)
  expect(partsOf(url)).toMatchObject({ signerPubkey: grant.signerPubkey, relays: [RELAY] })
  expect(grant.signerPubkey).not.toBe(TEST_PUBKEY)
  expect(await client.ask('get_public_key')).toEqual({ id: 'r2', result: TEST_PUBKEY })
  expect(await client.ask('ping')).toMatchObject({ result: 'pong' })
  expect(await client.ask('switch_relays')).toMatchObject({ result: 'null' })
  const signed = JSON.parse((await client.ask('sign_event', note(node)))?.result ?? '')
  expect(signed).toMatchObject({ pubkey: TEST_PUBKEY, content: 'hello', kind: 1 })
  expect(verifyEvent(signed)).toBe(true)
  expect(node.bunker.get(grant.id)).toMatchObject({ clientPubkey: client.signer.pubkey, clientName: 'My app' })
  expect(await client.ask('connect', grant.signerPubkey, 'whatever')).toMatchObject({ result: 'ack' })
})

it('a secret is good once: whoever comes second, or with another, is told nothing', async () => {
  const node = await world()
  const { grant, url } = await node.bunker.create(order())
  const { signerPubkey, secret } = partsOf(url)
  const wrong = new Client(node, signerPubkey, 8)
  expect(await wrong.ask('connect', signerPubkey, 'wrong')).toBeUndefined()
  expect(await wrong.ask('sign_event', note(node))).toBeUndefined()
  const [first, second] = [new Client(node, signerPubkey, 7), new Client(node, signerPubkey, 9)]
  const events = [first, second].map((client) => client.event('connect', [signerPubkey, secret]))
  await Promise.all(events.map((event) => node.deliver(event)))
  expect(node.bunker.get(grant.id).clientPubkey).toBe(first.signer.pubkey)
  expect(second.answerTo(events[1] as NostrEvent)).toBeUndefined()
  expect(await second.ask('connect', signerPubkey, secret)).toBeUndefined()
  expect(await second.ask('sign_event', note(node))).toBeUndefined()
  expect(recentBunkerRequests(node.store, grant.id, 100)).toHaveLength(1)
})

it('kinds that say who a key is, authenticate, take back, move money or command are signed only by name', async () => {
  const node = await world()
  const { client } = await connected(node)
  for (const kind of [
    0, 3, 5, 62, 9734, 9321, 10_002, 10_050, 13_194, 17_375, 22_242, 23_194, 23_195, 24_133, 24_910, 27_235, 31_990, 5050,
  ]) {
    expect(isByNameOnly(kind)).toBe(true)
    expect((await client.ask('sign_event', note(node, { kind })))?.error, `${kind}`).toBe(
      `forbidden: this connection may not sign kind ${kind}`,
    )
  }
  const { client: named } = await connected(node, { key: 'named', kinds: [0, 7] })
  expect((await named.ask('sign_event', note(node, { kind: 0 })))?.error).toBeUndefined()
  expect((await named.ask('sign_event', note(node)))?.error).toContain('may not sign kind 1')
})

it('encrypts and decrypts only where that was granted', async () => {
  const node = await world()
  const { client } = await connected(node)
  const peer = createSigner(new Uint8Array(32).fill(5))
  for (const method of ['nip44_encrypt', 'nip44_decrypt', 'nip04_encrypt', 'nip04_decrypt']) {
    expect((await client.ask(method, peer.pubkey, 'x'))?.error).toBe(`forbidden: this connection may not use ${method}`)
  }
  const { client: reader } = await connected(node, {
    key: 'r',
    methods: ['nip44_encrypt', 'nip44_decrypt', 'nip04_encrypt', 'nip04_decrypt'],
  })
  expect(peer.nip44Decrypt(TEST_PUBKEY, (await reader.ask('nip44_encrypt', peer.pubkey, 'one'))?.result ?? '')).toBe('one')
  expect(await reader.ask('nip44_decrypt', peer.pubkey, peer.nip44Encrypt(TEST_PUBKEY, 'two'))).toMatchObject({ result: 'two' })
  expect(peer.nip04Decrypt(TEST_PUBKEY, (await reader.ask('nip04_encrypt', peer.pubkey, 'three'))?.result ?? '')).toBe('three')
  expect(await reader.ask('nip04_decrypt', peer.pubkey, peer.nip04Encrypt(TEST_PUBKEY, 'four'))).toMatchObject({ result: 'four' })
  expect((await reader.ask('nip44_decrypt', peer.pubkey, 'rubbish'))?.error).toContain('invalid')
  expect((await reader.ask('nip44_encrypt', 'nobody', 'x'))?.error).toContain('invalid')
  expect((await reader.ask('sign_event', note(node)))?.error).toContain('may not use sign_event')
})

it('what is malformed, of another author, of the future or too long is refused in words', async () => {
  const node = await world()
  const { client } = await connected(node)
  const errorOf = async (...params: unknown[]) => (await client.ask('sign_event', ...params))?.error
  expect(await errorOf()).toContain('malformed')
  expect(await errorOf('{')).toContain('malformed')
  expect(await errorOf(note(node, { tags: [[1]] }))).toContain('malformed')
  expect(await errorOf(note(node, { pubkey: 'f'.repeat(64) }))).toContain('another author')
  expect(await errorOf(note(node, { created_at: Math.floor(node.clock.now() / 1000) + 86_400 }))).toContain('future')
  expect(await errorOf(note(node, { content: '"'.repeat(15_000) }))).toBeUndefined()
  expect(await errorOf(note(node, { content: '\u0001'.repeat(9_335) }))).toContain('too long')
  expect(await errorOf(JSON.parse(note(node)))).toBeUndefined()
  expect((await client.ask('get_relays'))?.error).toContain('unsupported')
  const rubbish = client.signer.sign({
    kind: BUNKER_KIND,
    created_at: Math.floor(node.clock.now() / 1000),
    tags: [['p', client.to]],
    content: 'x',
  })
  await node.deliver(rubbish)
  expect(client.answerTo(rubbish)).toBeUndefined()
})

it('a client that knows NIP-04 alone is answered so', async () => {
  const node = await world()
  const { client } = await connected(node)
  const event = client.event('ping', [], 'nip04')
  await node.deliver(event)
  expect(client.answerTo(event)).toMatchObject({ result: 'pong' })
})

it('is not acted on when it is played again, or dated long before or after', async () => {
  const node = await world()
  const { client, grant } = await connected(node)
  const event = client.event('sign_event', [note(node)])
  await Promise.all([node.deliver(event), node.deliver(event)])
  await node.deliver(event)
  expect(client.answerTo(event)?.error).toBeUndefined()
  expect(recentBunkerRequests(node.store, grant.id, 100)).toHaveLength(2)
  const nowS = Math.floor(node.clock.now() / 1000)
  for (const atS of [nowS - 400, nowS + 400]) {
    const odd = client.event('sign_event', [note(node)], 'nip44', atS)
    await node.deliver(odd)
    expect(client.answerTo(odd)?.error).toContain('stale')
  }
})

it('ends by revoking, by logout, by its time, and a string that nobody used after a day', async () => {
  const node = await world()
  const { client, grant } = await connected(node)
  await node.bunker.revoke(grant.id)
  expect((await client.ask('sign_event', note(node)))?.error).toContain('revoked')
  const { client: other, grant: second } = await connected(node, { key: '2' })
  expect(await other.ask('logout')).toMatchObject({ result: 'ack' })
  expect((await other.ask('ping'))?.error).toContain('revoked')
  expect(node.bunker.get(second.id).revokedAt).not.toBeNull()
  const { client: third } = await connected(node, { key: '3', expiresAt: node.clock.now() + 1000 })
  await node.clock.advance(2000)
  expect((await third.ask('ping'))?.error).toContain('expired')
  const unused = partsOf((await node.bunker.create(order({ key: '4' }))).url)
  await node.clock.advance(DAY_MS + 1)
  expect(await new Client(node, unused.signerPubkey).ask('connect', unused.signerPubkey, unused.secret)).toBeUndefined()
  const restored = partsOf((await node.bunker.create(order({ key: '5' }))).url)
  await node.store.write(endUnusedBunkerGrants({ at: node.clock.now() }))
  expect(await new Client(node, restored.signerPubkey).ask('connect', restored.signerPubkey, restored.secret)).toBeUndefined()
})

it('a flood is refused and then not heard, and ends with the minute', async () => {
  const node = await world()
  const { client, grant } = await connected(node)
  const events = Array.from({ length: 610 }, () => client.event('ping', []))
  for (const event of events) await node.deliver(event)
  expect(client.answerTo(events[250] as NostrEvent)?.error).toBeUndefined()
  expect(client.answerTo(events[320] as NostrEvent)?.error).toContain('rate-limited')
  expect(client.answerTo(events[609] as NostrEvent)).toBeUndefined()
  expect(recentBunkerRequests(node.store, grant.id, 1000)).toHaveLength(601)
  await node.clock.advance(60_000)
  expect(await client.ask('ping')).toMatchObject({ result: 'pong' })
})

it('what one connection may ask in a day is bounded too', async () => {
  const node = openNode(tempDir(), new ManualClock(), {}, 5)
  onTestFinished(() => node.close())
  const { client } = await connected(node)
  for (let i = 0; i < 5; i++) expect(await client.ask('ping')).toMatchObject({ result: 'pong' })
  await node.clock.advance(60_000)
  expect((await client.ask('ping'))?.error).toContain('too much today')
  await node.clock.advance(DAY_MS)
  expect(await client.ask('ping')).toMatchObject({ result: 'pong' })
})

it('what is long is not opened for who has no connection yet', async () => {
  const node = await world()
  const { url } = await node.bunker.create(order())
  const { signerPubkey, secret } = partsOf(url)
  const client = new Client(node, signerPubkey)
  expect(await client.ask('connect', signerPubkey, secret, '', 'x'.repeat(9000))).toBeUndefined()
  expect(await client.ask('connect', signerPubkey, secret)).toMatchObject({ result: 'ack' })
})

it('answers a client that made the string by its secret, and grants what its owner says', async () => {
  const node = await world()
  const secret = new Uint8Array(32).fill(7)
  const uri = parseNostrConnectUri(
    `nostrconnect://${getPublicKey(secret)}?relay=${encodeURIComponent('wss://theirs.test')}&secret=abc&perms=sign_event%3A0&name=Web`,
  )
  const grant = await node.bunker.connect(uri, order())
  const again = await node.bunker.connect(uri, order())
  expect(again).toEqual(grant)
  const client = new Client(node, grant.signerPubkey)
  const answers = answersIn(node.store, `bunker-answer:connect-${grant.id}`)
  expect(answers).toHaveLength(1)
  expect(JSON.parse(client.signer.nip44Decrypt(client.to, answers[0]?.content ?? ''))).toMatchObject({ result: 'abc' })
  expect(grant).toMatchObject({ relays: ['wss://theirs.test'], clientName: 'Web', clientPubkey: client.signer.pubkey })
  // A stranger's relay has no exception of the guard.
  expect(node.allowed).toEqual([])
  expect((await client.ask('sign_event', note(node, { kind: 0 })))?.error).toContain('forbidden')
  expect((await client.ask('sign_event', note(node)))?.error).toBeUndefined()
  for (const bad of ['bunker://x', `nostrconnect://${'a'.repeat(64)}?relay=wss://r.test`, `nostrconnect://${'a'.repeat(64)}?secret=x`]) {
    expect(() => parseNostrConnectUri(bad)).toThrow(expect.objectContaining({ code: 'bunker_invalid' }))
  }
})

it('signs for an agent only while it is one', async () => {
  const node = await world()
  const { client } = await connected(node, { userPubkey: node.keyring.account(10).pubkey })
  expect((await client.ask('sign_event', note(node)))?.error).toContain('is no more')
})

it.each(['bind_bunker_client', 'claim_bunker_request'].flatMap((label) => [[label, true] as const, [label, false] as const]))(
  'the node dies at %s (before its commit: %s): the secret is used once and the request done once',
  async (label, isBefore) => {
    const dir = tempDir()
    let isDead = false
    let isArmed = label === 'bind_bunker_client'
    const hook: CommitHook = {
      beforeCommit(labels) {
        if (isArmed && isBefore && labels.includes(label)) isDead = true
        if (isDead) throw new Error('the process is dead')
      },
      afterCommit(labels) {
        if (isArmed && labels.includes(label)) isDead = true
      },
    }
    const dying = openNode(dir, new ManualClock(), hook)
    const { grant, url } = await dying.bunker.create(order())
    const { signerPubkey, secret } = partsOf(url)
    const client = new Client(dying, signerPubkey)
    const connect = client.event('connect', [signerPubkey, secret])
    const sign = client.event('sign_event', [note(dying)])
    await dying.deliver(connect).catch(() => {})
    isArmed = true
    if (label === 'claim_bunker_request') await dying.deliver(sign).catch(() => {})
    expect(isDead).toBe(true)
    await dying.close().catch(() => {})
    const again = openNode(dir, dying.clock)
    onTestFinished(() => again.close())
    for (const event of [connect, sign, connect, sign]) await again.deliver(event)
    expect(client.answerTo(connect, again.store)).toMatchObject({ result: 'ack' })
    expect(client.answerTo(sign, again.store)?.error).toBeUndefined()
    expect(recentBunkerRequests(again.store, grant.id, 10)).toHaveLength(2)
    expect(again.bunker.get(grant.id).clientPubkey).toBe(client.signer.pubkey)
  },
)
