/** A client of nothing but nostr-tools and a mint rents a runtime over the sandbox's relay: paid, exactly once, its replies recovered. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { nip44 } from 'nostr-tools'
import { finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { runtimesConfig } from '../../../src/base/config-runtimes.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { ControlPlane } from '../../../src/provider/machines/control-plane.ts'
import { MachineService } from '../../../src/provider/machines/service.ts'
import { LocalAdapter } from '../../../src/runtime/local/local-adapter.ts'
import { accountBalance, auditLedger, balancesOf } from '../../../src/store/money/ledger.ts'
import { getRequest } from '../../../src/store/selling/control-requests.ts'
import { createWallets, type OwnWallets, WALLET_DRAIN_MS } from '../../../src/wallet/wallets.ts'
import { guestProgram, scriptedAgent } from '../../support/local-runtimes.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { faucet, fund, openHome, type TestHome, testWords } from '../wallet/home.ts'

type Wire = Record<string, unknown>

interface Refund {
  readonly token: string
  readonly amount_msats: number
}

interface Reply {
  readonly kind: number
  readonly body: Wire
  readonly tags: string[][]
}

/** Speaks the documented wire and no code of ours. */
class PlainClient {
  readonly secret: Uint8Array
  readonly pubkey: string
  readonly replies: Reply[] = []
  readonly #socket: WebSocket
  readonly #server: string

  constructor(url: string, server: string, secret: Uint8Array = generateSecretKey()) {
    this.secret = secret
    this.pubkey = getPublicKey(secret)
    this.#socket = new WebSocket(url)
    this.#server = server
  }

  async open(): Promise<this> {
    await new Promise((resolve, reject) => {
      this.#socket.addEventListener('open', resolve)
      this.#socket.addEventListener('error', reject)
    })
    const heard = new Promise<void>((resolve) => {
      this.#socket.addEventListener('message', ({ data }) => {
        const [type, , event] = JSON.parse(String(data)) as [string, string, { kind: number; content: string; tags: string[][] }]
        if (type === 'EOSE') resolve()
        if (type !== 'EVENT') return
        const body = JSON.parse(nip44.decrypt(event.content, nip44.getConversationKey(this.secret, this.#server))) as Wire
        this.replies.push({ kind: event.kind, body, tags: event.tags })
      })
    })
    this.#socket.send(JSON.stringify(['REQ', 'r', { kinds: [24911, 24912, 24913], authors: [this.#server], '#p': [this.pubkey] }]))
    await heard
    return this
  }

  /** Sends raw content. */
  sendText(text: string, createdAtS = Math.floor(Date.now() / 1000)): void {
    const content = nip44.encrypt(text, nip44.getConversationKey(this.secret, this.#server))
    const event = finalizeEvent({ kind: 24910, created_at: createdAtS, tags: [['p', this.#server]], content }, this.secret)
    this.#socket.send(JSON.stringify(['EVENT', event]))
    // Relays and clients repeat themselves.
    this.#socket.send(JSON.stringify(['EVENT', event]))
  }

  send(idempotencyKey: string, command: Wire, createdAtS?: number): string {
    const requestId = `r-${Math.random()}`
    this.sendText(
      JSON.stringify({ schema: 'agent.control.cmd.v1', request_id: requestId, idempotency_key: idempotencyKey, ...command }),
      createdAtS,
    )
    return requestId
  }

  statuses = (requestId: string) => this.replies.filter(({ kind, body }) => kind === 24911 && body['request_id'] === requestId)
  ends = (requestId: string) => this.replies.filter(({ kind, body }) => kind > 24911 && body['request_id'] === requestId)

  async end(requestId: string): Promise<Reply> {
    await expect.poll(() => this.ends(requestId).length, { timeout: 30_000, interval: 50 }).toBeGreaterThan(0)
    return this.ends(requestId)[0] as Reply
  }

  async call(idempotencyKey: string, command: Wire): Promise<Reply> {
    return await this.end(this.send(idempotencyKey, command))
  }

  close(): void {
    this.#socket.close()
  }
}

let sandbox: TestSandbox
let dir: string
let payerDir: string
let nostr: TestNostr
const walletScope = testScope()
let wallets: OwnWallets
let machines: MachineService
let adapter: LocalAdapter
let payer: TestHome
let client: PlainClient
let stranger: PlainClient

beforeAll(async () => {
  sandbox = await startSandbox()
  dir = mkdtempSync(join(tmpdir(), 'pyl-m-'))
  payerDir = mkdtempSync(join(tmpdir(), 'pyl-p-'))
  nostr = startNostr({ relays: [sandbox.relayUrl], dir })
  nostr.dialer.allow(new URL(sandbox.mintUrl).origin)
  const config: Config = {
    ...DEFAULT_CONFIG,
    runtimes: runtimesConfig.parse({
      allow_unisolated: true,
      classes: [
        {
          name: 'nano',
          provider: 'local',
          region: 'here',
          protocols: ['acp'],
          price_msats_per_hour: 360_000,
          acp_command: scriptedAgent('acp'),
        },
      ],
    }),
  }
  const common = { store: nostr.store, clock: systemClock, logger: silentLogger, config: () => config, nostr: nostr.nostr }
  wallets = createWallets({ ...common, scope: walletScope, dialer: nostr.dialer, invoiceNetwork: 'bcrt' })
  await wallets.addMint(sandbox.mintUrl)
  adapter = new LocalAdapter({ dir: join(dir, 'local'), scope: testScope(), guest: guestProgram })
  const ofMachines = { ...common, scope: testScope() }
  const transport = new ControlPlane(ofMachines)
  machines = new MachineService({ ...ofMachines, transport, wallets, network: 'sandbox', adapters: () => [adapter] })
  await wallets.start()
  await machines.start()
  payer = await openHome({ dir: payerDir, mintUrls: [sandbox.mintUrl], words: testWords() })
  await fund(payer, payer.node, sandbox.mintUrl, 1000)
  const server = nostr.keyring.node().pubkey
  client = await new PlainClient(sandbox.relayUrl, server).open()
  stranger = await new PlainClient(sandbox.relayUrl, server).open()
}, 60_000)

afterAll(async () => {
  client?.close()
  stranger?.close()
  for (const { handle } of (await adapter?.listOwned()) ?? []) await adapter.teardown(handle, { keepVolume: false })
  await machines?.close()
  await walletScope.close(WALLET_DRAIN_MS)
  await payer?.close()
  await nostr?.stop({ keep: true })
  await sandbox?.stop()
  for (const path of [dir, payerDir]) rmSync(path, { recursive: true, force: true })
})

const RENT = { command: 'provision', provider: 'local', protocol: 'acp', runtime_class: 'nano', lease_seconds: 300 }

async function token(amount: bigint): Promise<string> {
  const sent = await payer.node.sendToken({
    idempotencyKey: `t-${Math.random()}`,
    cause: { type: 'owner', id: 'test' },
    amountSats: sats(amount),
    debitAccount: 'node/expense/lease',
    coverReceiverFee: true,
  })
  return sent.token
}

const runtimeOf = (reply: Reply) => reply.body['runtime'] as { runtime_id: string; lifecycle_phase: string; metadata: Wire }

test('rents by invoice, prompts, replays, is conflicted and scoped, and tears down', async () => {
  const requestId = client.send('rent-1', RENT)
  await expect.poll(() => client.statuses(requestId).some(({ body }) => body['progress'] !== undefined), { timeout: 30_000 }).toBe(true)
  const asked = client.statuses(requestId).find(({ body }) => body['progress'] !== undefined)?.body['progress'] as Wire
  expect(asked).toMatchObject({ payment_required: true, amount_msats: 30_000, mints: [sandbox.mintUrl] })
  // Live: said before anything was paid.
  expect(client.ends(requestId)).toEqual([])
  await faucet(sandbox.mintUrl, String(asked['invoice']))
  const provisioned = await client.end(requestId)
  expect(provisioned).toMatchObject({ kind: 24912, body: { schema: 'agent.control.result.v1', payload: { operation: 'provision' } } })
  expect(provisioned.tags).toEqual([['p', client.pubkey]])
  const { runtime_id } = runtimeOf(provisioned)
  expect(client.statuses(requestId).map(({ body }) => body['phase'])).toEqual(expect.arrayContaining(['queued', 'provisioning', 'ready']))

  const again = await client.call('rent-1', RENT)
  expect(runtimeOf(again).runtime_id).toBe(runtime_id)
  expect((await adapter.listOwned()).map((owned) => owned.runtimeId)).toEqual([runtime_id])
  expect((await client.call('rent-1', { ...RENT, lease_seconds: 301 })).body).toMatchObject({ code: 'idempotency_conflict' })

  expect((await client.call('p', { command: 'prompt', runtime_id, message: 'say hello' })).body).toMatchObject({
    payload: { operation: 'prompt' },
  })
  expect((await stranger.call('g', { command: 'get_runtime', runtime_id })).body).toMatchObject({ code: 'runtime_not_found' })
  expect((await stranger.call('t', { command: 'teardown', runtime_id })).body).toMatchObject({ code: 'runtime_not_found' })

  const down = await client.call('down', { command: 'teardown', runtime_id })
  expect(runtimeOf(down).lifecycle_phase).toBe('teardown')
  expect(await adapter.listOwned()).toEqual([])
  expect(-accountBalance(nostr.store, 'node/income/lease')).toBe(30_000n)
}, 90_000)

test('rents by token; a reply that was lost is recovered by the same key and by get_request', async () => {
  const lost = await new PlainClient(sandbox.relayUrl, nostr.keyring.node().pubkey).open()
  const run = {
    command: 'run',
    runtime_class: 'nano',
    entry_command: 'echo from inside; exit 7',
    timeout_s: 60,
    lease_token: await token(10n),
  }
  const sent = lost.send('run-1', run)
  await expect.poll(() => lost.statuses(sent).length, { timeout: 30_000 }).toBeGreaterThan(0)
  // Nobody listens when the answer comes, and the relay keeps nothing of these kinds.
  lost.close()
  await expect.poll(() => getRequest(nostr.store, lost.pubkey, 'run-1')?.state, { timeout: 30_000 }).toBe('succeeded')
  const back = await new PlainClient(sandbox.relayUrl, nostr.keyring.node().pubkey, lost.secret).open()
  expect(back.ends(sent)).toEqual([])
  const { lease_token: _spent, ...bare } = run
  const recovered = await back.call('run-1', bare)
  expect(recovered.body).toMatchObject({ payload: { operation: 'run', exit_code: 7, stdout: 'from inside\n' } })
  expect((await back.call('q', { command: 'get_request', key: 'run-1' })).body).toMatchObject({
    payload: { operation: 'get_request', state: 'succeeded', result: { exit_code: 7 } },
  })
  back.close()
  expect(await adapter.listOwned()).toEqual([])
}, 60_000)

test('one token pays for one machine, whoever sends it, under whatever key, and at once', async () => {
  const before = -accountBalance(nostr.store, 'node/income/lease')
  const run = { command: 'run', runtime_class: 'nano', entry_command: 'true', timeout_s: 60, lease_token: await token(6n) }
  const ends = await Promise.all([
    client.call('twice-1', run),
    client.call('twice-2', run),
    stranger.call('twice-1', run),
    client.call('twice-3', { ...run, entry_command: 'false' }),
  ])
  expect(ends.filter(({ kind }) => kind === 24912)).toHaveLength(1)
  for (const { kind, body } of ends) if (kind === 24913) expect(body).toMatchObject({ code: 'payment_failed' })
  expect((await stranger.call('twice-4', run)).body).toMatchObject({ code: 'payment_failed' })
  expect(await adapter.listOwned()).toEqual([])
  expect(-accountBalance(nostr.store, 'node/income/lease') - before).toBe(6_000n)
  expect([...balancesOf(nostr.store, 'node', 'deposit')]).toEqual([])
  expect(auditLedger(nostr.store)).toEqual({ ok: true, problems: [] })
}, 60_000)

test('what a failed machine cost goes back locked to its tenant, and is worth all of it', async () => {
  const broken = { ...RENT, entry_command: '/nonexistent/agent', lease_token: await token(30n) }
  const sent = client.send('broken', broken)
  expect((await client.end(sent)).body).toMatchObject({ code: 'provision_failed' })
  const told = () => client.statuses(sent).flatMap(({ body }) => (body['progress'] as { refund?: Refund } | undefined)?.refund ?? [])
  await expect.poll(() => told().length, { timeout: 20_000 }).toBe(1)
  const refund = told()[0] as Refund
  expect(refund.token).toMatch(/^cashuB/)
  // Begun seconds are the tenant's, who brought the command.
  expect(refund.amount_msats).toBeGreaterThan(10_000)
  await expect(payer.node.inspectToken(refund.token)).resolves.toMatchObject({ lock: 'other' })
  expect(auditLedger(nostr.store)).toEqual({ ok: true, problems: [] })
}, 60_000)

test('says what is wrong with a command, and passes over what is not meant for it', async () => {
  client.sendText('no json {')
  await expect.poll(() => client.ends('unknown-request').length).toBe(1)
  expect(client.ends('unknown-request')[0]?.body).toMatchObject({ schema: 'agent.control.error.v1', code: 'invalid_command_json' })
  client.sendText(JSON.stringify({ schema: 'agent.control.cmd.v2', request_id: 'v2', idempotency_key: 'k', command: 'list_runtimes' }))
  expect((await client.end('v2')).body).toMatchObject({
    code: 'invalid_schema',
    hint: 'expected agent.control.cmd.v1',
    detail: 'got agent.control.cmd.v2',
  })
  client.sendText(
    JSON.stringify({ schema: 'agent.control.cmd.v1', request_id: 'enum', idempotency_key: 'k', ...RENT, provider: 'mainframe' }),
  )
  expect((await client.end('enum')).body).toMatchObject({ code: 'invalid_command_json' })
  expect((await client.call('x', { ...RENT, runtime_class: 'none' })).body).toMatchObject({ code: 'runtime_class_unavailable' })
  // A clock that is off, either way (the relay takes no event from further ahead).
  const now = Math.floor(Date.now() / 1000)
  for (const skew of [-1800, 600]) {
    const requestId = client.send(`skew${skew}`, { command: 'list_runtimes' }, now + skew)
    expect((await client.end(requestId)).kind).toBe(24912)
  }
  const tooOld = client.send('old', { command: 'list_runtimes' }, now - 7200)
  const fresh = client.send('fresh', { command: 'list_runtimes' })
  await client.end(fresh)
  expect(client.ends(tooOld)).toEqual([])
  // Every command came twice and was answered once.
  expect(client.ends(fresh)).toHaveLength(1)
}, 30_000)

test('who sends nothing but nonsense is answered a little, and holds up nobody', async () => {
  const flooder = await new PlainClient(sandbox.relayUrl, nostr.keyring.node().pubkey).open()
  for (let i = 0; i < 60; i++) flooder.sendText(`no json ${i}`)
  // Handled in order: when this is answered the rest was looked at.
  const last = flooder.send('list', { command: 'list_runtimes' })
  expect((await flooder.end(last)).kind).toBe(24912)
  expect((await client.call('mine', { command: 'list_runtimes' })).kind).toBe(24912)
  expect(flooder.ends('unknown-request').length).toBeLessThanOrEqual(32)
  expect(flooder.ends('unknown-request').length).toBeGreaterThan(0)
  flooder.close()
}, 30_000)

test('the offer is on the relay, addressable by its class', async () => {
  const { events } = await nostr.nostr.query([{ kinds: [30910], authors: [nostr.keyring.node().pubkey] }])
  expect(events).toHaveLength(1)
  expect(events[0]?.tags).toEqual(
    expect.arrayContaining([
      ['d', 'nano'],
      ['provider', 'local'],
      ['region', 'here'],
      ['protocol', 'acp'],
      ['price_msats_per_hour', '360000'],
    ]),
  )
})
