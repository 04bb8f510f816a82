/** Our tenant against nodes that cheat, break off or stumble: it pays once, for what it asked, and looks after what comes back. */
import { createHash, randomBytes } from 'node:crypto'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { systemClock, unixSeconds } from '../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import type { Scope } from '../../../src/base/scope.ts'
import type { OwnNode } from '../../../src/customer/machines/own-node.ts'
import { Tenant } from '../../../src/customer/machines/tenant.ts'
import type { ControlCommandInput } from '../../../src/nostr/control/commands.ts'
import type { RuntimeDescriptor } from '../../../src/nostr/control/descriptor.ts'
import {
  CONTROL_CMD_KIND,
  CONTROL_ERROR_KIND,
  CONTROL_RESULT_KIND,
  CONTROL_STATUS_KIND,
  type CommandEnvelope,
  decodeCommand,
  encodeError,
  encodeResult,
  encodeStatus,
  sealEnvelope,
} from '../../../src/nostr/control/envelopes.ts'
import { ControlError } from '../../../src/nostr/control/vocabulary.ts'
import type { LocalSigner } from '../../../src/nostr/types.ts'
import { encodeInvoice } from '../../../src/sandbox/bolt11-encode.ts'
import { refundTokensOf } from '../../../src/store/buying/refund-tokens.ts'
import { getRental, listRentals } from '../../../src/store/buying/rentals.ts'
import { postEntry } from '../../../src/store/money/ledger.ts'
import { enqueueEvent } from '../../../src/store/nostr/outbox.ts'
import type { PayRequest, PayResult, Wallet, Wallets } from '../../../src/wallet/types.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'

const WAIT = { timeout: 30_000, interval: 20 }
const RUNTIME_ID = 'local-0123456789abcdef'
const RENT: ControlCommandInput = { command: 'provision', provider: 'local', protocol: 'acp', runtime_class: 'small', lease_seconds: 60 }

let sandbox: TestSandbox
let home: TestNostr
let server: LocalSigner
let other: LocalSigner
let tenant: Tenant
let scope: Scope
let purse: Purse
let closes: (() => void)[]
/** Of nodes whose home is there no more; they talk until the end. */
let failures: unknown[]

beforeEach(async () => {
  sandbox = await startSandbox()
  home = startNostr({ relays: [sandbox.relayUrl] })
  server = home.keyring.account(11)
  other = home.keyring.account(12)
  purse = new Purse()
  closes = []
  failures = []
  tenant = begin()
})

afterEach(async () => {
  for (const close of closes) close()
  await scope.close()
  await home.stop()
  await sandbox.stop()
  for (const failure of failures) expect(failure).toMatchObject({ code: 'shutting_down' })
})

test('machines of our own work when no relay carries a command: told straight, under the same key, and said so', async () => {
  const asked: string[] = []
  const runtime: RuntimeDescriptor = {
    ...{ runtime_id: RUNTIME_ID, provider: 'local', lifecycle_phase: 'ready', protocol_compatibility: [], metadata: {} },
  }
  const own: OwnNode = {
    pubkey: () => home.keyring.node().pubkey,
    async handle(requester, { idempotencyKey, command }, emit) {
      expect(requester).toBe(home.keyring.customer().pubkey)
      asked.push(`${command.command} ${idempotencyKey}`)
      if (command.command === 'teardown') throw new ControlError('runtime_not_found', 'look', 'it is not there')
      emit({ phase: 'ready', message: 'runtime ready' })
      return { runtime, payload: { operation: command.command } }
    },
  }
  await scope.close()
  tenant = begin(own)
  const told: string[] = []
  const send = (command: ControlCommandInput, key: string) =>
    tenant.send({ server: own.pubkey(), command, idempotencyKey: key }, ({ message }) => told.push(message ?? ''))
  // The relay is there, and nobody hears what it was given.
  expect(await send(RENT, 'near')).toMatchObject({ via: 'straight', runtime: { runtime_id: RUNTIME_ID }, paidMsats: 0n })
  expect(told).toEqual(['no relay answers: straight to this node', 'runtime ready'])
  expect(getRental(home.store, 'near')).toMatchObject({ state: 'answered', runtimeId: RUNTIME_ID })
  await sandbox.stop()
  await vi.waitFor(() => expect(home.nostr.health().some(({ state }) => state === 'connected')).toBe(false), WAIT)
  expect(await send({ command: 'list_runtimes' }, 'look')).toMatchObject({ via: 'straight' })
  await expect(send({ command: 'teardown', runtime_id: RUNTIME_ID }, 'end')).rejects.toMatchObject({ code: 'runtime_not_found' })
  expect(asked).toEqual(['provision near', 'list_runtimes look', 'teardown end'])
}, 60_000)

function begin(own?: OwnNode): Tenant {
  const common = { store: home.store, clock: systemClock, logger: silentLogger, nostr: home.nostr, config: () => DEFAULT_CONFIG }
  scope = testScope()
  const started = new Tenant({ ...common, scope, wallets: purse.wallets, ...(own === undefined ? {} : { own }) })
  started.start()
  return started
}

/** The wallet of the customer: what it was asked to pay, and what it took in. */
class Purse {
  readonly paid: PayRequest[] = []
  outcome: 'paid' | 'unknown' = 'paid'
  /** Tokens whose mint does not answer. */
  readonly away = new Set<string>()
  /** What tokens are worth. */
  readonly tokens = new Map<string, bigint>()
  readonly #spent = new Map<string, string>()

  get wallets(): Wallets {
    const wallet: Partial<Wallet> = {
      owner: { kind: 'customer', pubkey: home.keyring.customer().pubkey },
      balance: () => ({
        balanceSats: sats(100_000n),
        owedSats: sats(0n),
        atRiskSats: sats(0n),
        mints: [{ url: sandbox.mintUrl, balanceSats: sats(100_000n), owedSats: sats(0n), state: 'ok' }],
      }),
      pay: async (request) => {
        if (!this.paid.some((one) => one.idempotencyKey === request.idempotencyKey)) this.paid.push(request)
        return this.#result(request.idempotencyKey)
      },
      payment: (key) => (this.paid.some((one) => one.idempotencyKey === key) ? this.#result(key) : undefined),
      sentToken: () => undefined,
      receiveToken: async ({ idempotencyKey, token, cause, creditAccount }) => {
        if (this.away.has(token)) throw new PylonError('mint_unreachable', 'The mint does not answer.')
        const worth = this.tokens.get(token)
        if (worth === undefined) throw new PylonError('token_locked', 'The token is locked to another key.')
        if ((this.#spent.get(token) ?? idempotencyKey) !== idempotencyKey) throw new PylonError('token_spent', 'The token was spent.')
        this.#spent.set(token, idempotencyKey)
        const amountMsats = worth * 1000n
        const postings = [
          { account: 'customer/wallet/mint' as const, amountMsats },
          { account: creditAccount, amountMsats: -amountMsats },
        ]
        await home.store.write(postEntry({ id: `receive:${idempotencyKey}`, cause, at: systemClock.now(), postings }))
        return { amountSats: sats(worth), mintUrl: sandbox.mintUrl }
      },
    }
    const wallets: Partial<Wallets> = {
      of: () => wallet as Wallet,
      mints: () => [{ url: sandbox.mintUrl, capSats: sats(1_000_000n), addedAt: 0 }],
    }
    return wallets as Wallets
  }

  #result(key: string): PayResult {
    return this.outcome === 'paid'
      ? { state: 'paid', operationId: key, preimage: '00', feeSats: sats(0n) }
      : { state: 'unknown', operationId: key }
  }
}

interface Say {
  status(status: Parameters<typeof encodeStatus>[1], requestId?: string): Promise<void>
  result(payload: { operation: string } & Record<string, string>, runtime?: Partial<RuntimeDescriptor>): Promise<void>
  error(code: ControlError['code']): Promise<void>
}

const descriptor: RuntimeDescriptor = {
  runtime_id: RUNTIME_ID,
  provider: 'local',
  lifecycle_phase: 'ready',
  protocol_compatibility: [],
}

/** A node that does with each command what the test wants. */
async function node(signer: LocalSigner, onCommand: (command: CommandEnvelope, say: Say, nth: number) => Promise<void>): Promise<void> {
  const { nostr, store } = home
  let nth = 0
  const subscription = await nostr.listen({
    filters: [{ kinds: [CONTROL_CMD_KIND], '#p': [signer.pubkey] }],
    onEvent: (event) => {
      const command = decodeCommand(signer.nip44Decrypt(event.pubkey, event.content))
      const send = async (kind: number, text: string) => {
        const at = systemClock.now()
        const reply = signer.sign(await sealEnvelope(signer, event.pubkey, kind, text, unixSeconds(systemClock)))
        await store.write(
          enqueueEvent({ key: randomBytes(8).toString('hex'), event: reply, relays: nostr.relays, notAfter: at + 10_000, at }),
        )
        nostr.nudgeOutbox()
      }
      const { requestId } = command
      void onCommand(
        command,
        {
          status: (status, id = requestId) => send(CONTROL_STATUS_KIND, encodeStatus(id, status)),
          result: (payload, runtime) =>
            send(CONTROL_RESULT_KIND, encodeResult(requestId, { runtime: { ...descriptor, ...runtime }, payload })),
          error: (code) => send(CONTROL_ERROR_KIND, encodeError(requestId, new ControlError(code, undefined, 'no'))),
        },
        ++nth,
      ).catch((error: unknown) => failures.push(error))
    },
  })
  closes.push(() => subscription.close())
}

function invoiceOver(amountSats: bigint): string {
  const paymentHash = createHash('sha256').update(randomBytes(32)).digest()
  return encodeInvoice(
    {
      ...{ network: 'bcrt', amountMsats: amountSats * 1000n, description: 'x', timestampSeconds: Math.floor(Date.now() / 1000) },
      ...{ paymentHash, paymentSecret: randomBytes(32) },
    },
    Buffer.alloc(32, 9),
  )
}

const asking = (invoice: string, more: Record<string, string | number> = {}) => ({
  phase: 'queued' as const,
  runtime_id: RUNTIME_ID,
  message: 'waiting for payment',
  progress: { payment_required: true, lease_id: 'l', lease_seconds: 60, amount_msats: 50_000, invoice, mints: [], ...more },
})

const send = (id: string, options: { command?: ControlCommandInput; to?: LocalSigner } = {}) =>
  tenant.send(
    { server: (options.to ?? server).pubkey, command: options.command ?? RENT, idempotencyKey: id, timeoutMs: 15_000 },
    () => undefined,
  )

const refundOf = (token: string, amountMsats: number) => ({
  phase: 'teardown' as const,
  runtime_id: RUNTIME_ID,
  message: 'what was not used of the lease goes back',
  progress: { refund: { lease_id: 'l', amount_msats: amountMsats, token } },
})

test('a machine that was paid and never came: its refund is redeemed, each part of it once', async () => {
  const invoice = invoiceOver(50n)
  for (const [token, worth] of [
    ['first', 30n],
    ['second', 20n],
  ] as const)
    purse.tokens.set(token, worth)
  let say: Say | undefined
  await node(server, async (_command, speak) => {
    say = speak
    await speak.status(asking(invoice))
    await vi.waitFor(() => expect(purse.paid).toHaveLength(1), WAIT)
    await speak.error('provision_failed')
  })
  await expect(send('one')).rejects.toMatchObject({ code: 'control_refused' })
  expect(getRental(home.store, 'one')).toMatchObject({ state: 'refused', paidMsats: 50_000n, runtimeId: RUNTIME_ID })
  await say?.status(refundOf('foreign', 50_000))
  await say?.status(refundOf('first', 30_000))
  await vi.waitFor(() => expect(getRental(home.store, 'one')?.refundedMsats).toBe(30_000n), WAIT)
  await say?.status(refundOf('first', 30_000))
  // Told of under another name of the same machine.
  await say?.status({ ...refundOf('second', 20_000), message: 'again' }, RUNTIME_ID)
  await vi.waitFor(() => expect(getRental(home.store, 'one')?.refundedMsats).toBe(50_000n), WAIT)
})

test('a refund that cannot be redeemed now is kept and blocks none that comes later, however odd the notices are', async () => {
  const invoice = invoiceOver(50n)
  for (const token of ['away', 'later']) purse.tokens.set(token, 20n)
  purse.away.add('away')
  let say: Say | undefined
  await node(server, async (_command, speak) => {
    say = speak
    await speak.status(asking(invoice))
    await vi.waitFor(() => expect(purse.paid).toHaveLength(1), WAIT)
    await speak.error('provision_failed')
  })
  await expect(send('one')).rejects.toMatchObject({ code: 'control_refused' })
  await say?.status(refundOf('away', 20_000))
  await vi.waitFor(() => expect(refundTokensOf(home.store, 'rental:one')).toMatchObject([{ token: 'away', state: 'waiting' }]), WAIT)
  await say?.status({ ...refundOf('later', 20_000), phase: 'somewhere' as 'teardown', provider: 5 as never })
  await vi.waitFor(() => expect(getRental(home.store, 'one')?.refundedMsats).toBe(20_000n), WAIT)
  purse.away.clear()
  await say?.status(refundOf('nothing', 1))
  await vi.waitFor(() => expect(getRental(home.store, 'one')?.refundedMsats).toBe(40_000n), WAIT)
  expect(refundTokensOf(home.store, 'rental:one').map(({ state }) => state)).toEqual(['redeemed', 'redeemed', 'refused'])
})

test('what is quoted must be what was asked for: length, limit, and the amount of its invoice', async () => {
  const quotes = [
    asking(invoiceOver(50n), { lease_seconds: 59 }),
    asking(invoiceOver(500n), { amount_msats: 500_000 }),
    asking(invoiceOver(51n)),
    asking('lnbcrt1nonsense'),
    asking(invoiceOver(50n), { expires_at: 1 }),
  ]
  const codes = ['payment_failed', 'price_too_high', 'invoice_invalid', 'invoice_invalid', 'invoice_expired']
  await node(server, async ({ idempotencyKey }, say) => {
    const quote = quotes[Number(idempotencyKey.slice(-1))]
    if (quote !== undefined) await say.status(quote)
  })
  const ends = await Promise.allSettled(quotes.map((_quote, i) => send(`k${i}`)))
  expect(ends.map((end) => (end.status === 'rejected' ? (end.reason as PylonError).code : 'answered'))).toEqual(codes)
  expect(purse.paid).toEqual([])
  expect(listRentals(home.store, { limit: 10 }).every((row) => row.state === 'refused' && row.paidMsats === 0n)).toBe(true)
})

test('a run is paid for when the quote covers its time', async () => {
  await node(server, async (_command, say) => await say.status(asking(invoiceOver(50n), { lease_seconds: 599 })))
  const run = { command: 'run', entry_command: 'true' } as const
  await expect(send('run', { command: run })).rejects.toMatchObject({ code: 'payment_failed' })
  expect(purse.paid).toEqual([])
})

test('a second invoice under one key is not paid, in the same call and in the next', async () => {
  await node(server, async (_command, say) => {
    await say.status(asking(invoiceOver(50n)))
    await say.status(asking(invoiceOver(50n)))
  })
  await expect(send('one')).rejects.toMatchObject({ code: 'conflict' })
  await expect(send('one')).rejects.toMatchObject({ code: 'conflict' })
  expect(purse.paid).toHaveLength(1)
  expect(getRental(home.store, 'one')).toMatchObject({ paidMsats: 50_000n })
})

test('the same key and command for another node is another command', async () => {
  await node(server, async (_command, say) => await say.status({ phase: 'queued', message: 'request queued' }))
  const first = send('one').catch((error: unknown) => error)
  await vi.waitFor(() => expect(listRentals(home.store, { limit: 10 })).toHaveLength(1), WAIT)
  await expect(send('one', { to: other })).rejects.toMatchObject({ code: 'idempotency_conflict' })
  await scope.close()
  await first
  await expect(begin().send({ server: other.pubkey, command: RENT, idempotencyKey: 'one' }, () => undefined)).rejects.toMatchObject({
    code: 'idempotency_conflict',
  })
})

test('a payment whose outcome came after a restart is known, and its refund is looked for', async () => {
  const invoice = invoiceOver(50n)
  purse.outcome = 'unknown'
  let refundToken: string | undefined
  await node(server, async ({ command }, say, nth) => {
    if (nth === 1) return await say.status(asking(invoice))
    if (command.command !== 'get_request') return
    const lease = { state: 'refunding', ...(refundToken === undefined ? {} : { refund_token: refundToken }) }
    await say.result({ operation: 'get_request', state: 'failed' }, { metadata: { lease } })
  })
  const cut = send('one').catch((error: unknown) => error)
  await vi.waitFor(() => expect(purse.paid).toHaveLength(1), WAIT)
  await scope.close()
  await cut
  expect(getRental(home.store, 'one')).toMatchObject({ state: 'paying', paidMsats: 0n })
  purse.outcome = 'paid'
  purse.tokens.set('back', 50n)
  refundToken = 'back'
  tenant = begin()
  await vi.waitFor(
    () => expect(getRental(home.store, 'one')).toMatchObject({ state: 'refused', paidMsats: 50_000n, refundedMsats: 50_000n }),
    WAIT,
  )
})

test('a refund that is long in coming, since the mint of the node is down, is not forgotten', async () => {
  purse.tokens.set('late', 50n)
  let say: Say | undefined
  await node(server, async (_command, speak) => {
    say = speak
    await speak.status(asking(invoiceOver(50n)))
    await vi.waitFor(() => expect(purse.paid).toHaveLength(1), WAIT)
    const lease = { state: 'refunding', ends_at: new Date(Date.now() - 7200_000).toISOString() }
    await speak.result({ operation: 'provision' }, { metadata: { lease } })
  })
  await send('one')
  await say?.status(refundOf('late', 50_000))
  await vi.waitFor(() => expect(getRental(home.store, 'one')?.refundedMsats).toBe(50_000n), WAIT)
})

test('a node that talks without end fills nothing, and one that puts off is quoted when time is up', async () => {
  await node(server, async ({ command }, say, nth) => {
    if (command.command === 'list_runtimes') return await say.error('rate_limited')
    if (nth > 1) return
    for (let i = 0; i < 600; i++) await say.status({ phase: 'provisioning', message: `still ${i}` })
    await say.result({ operation: 'provision' })
  })
  const told: string[] = []
  const order = { server: server.pubkey, idempotencyKey: 'one', timeoutMs: 60_000 }
  await tenant.send({ ...order, command: RENT }, ({ message }) => told.push(message ?? ''))
  expect(told).toHaveLength(512)
  const put = tenant.send({ ...order, command: { command: 'list_runtimes' }, idempotencyKey: 'two', timeoutMs: 1500 }, () => undefined)
  await expect(put).rejects.toMatchObject({ code: 'timeout', message: expect.stringMatching(/rate_limited.*--idempotency-key two /s) })
}, 90_000)
