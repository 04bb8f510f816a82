/** A customer over a relay and a wallet in memory. */
import { join } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import type { WalletOwner } from '../../../src/base/accounts.ts'
import { msats, sats } from '../../../src/base/amounts.ts'
import { ManualClock } from '../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { Customer } from '../../../src/customer/customer.ts'
import type { Order } from '../../../src/customer/order.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { buildFeedback, buildResult, type Local, type NewFeedback } from '../../../src/nostr/nips/nip90-answers.ts'
import type { IdentifiedEvent, Keyring, LocalSigner, Nostr, NostrEvent } from '../../../src/nostr/types.ts'
import { encodeInvoice } from '../../../src/sandbox/bolt11-encode.ts'
import { Store } from '../../../src/store/store.ts'
import type { PayRequest, PayResult, SentToken, Wallet, WalletEvent, Wallets } from '../../../src/wallet/types.ts'
import { newestAmong } from '../../support/newest.ts'
import { testScope } from '../../support/scope.ts'
import { tempDir } from '../../support/temp.ts'

export const MINT = 'https://mint.test'
export const DAY_MS = 24 * 3600_000
export const key = (n: number): LocalSigner => createSigner(new Uint8Array(32).fill(n))
export const node = key(1)
export const me = key(2)
export const provider = key(3)
export const other = key(4)

type Known = PayResult | { state: 'failed'; reason: string }

export class World {
  readonly clock = new ManualClock()
  readonly store = Store.open(join(tempDir(), 'pylon.db'))
  readonly payments = new Map<string, Known>()
  readonly asked: PayRequest[] = []
  readonly redeemed: string[] = []
  onPay: (request: PayRequest) => Promise<PayResult> = () => Promise.reject(new PylonError('payment_failed', 'no route'))
  onReceive: (token: string) => Promise<void> = async () => {}
  token: SentToken | undefined
  published: NostrEvent[] = []
  /** Answers that the relay has, and sends to whoever asks for them from now on. */
  stored: NostrEvent[] = []
  readonly givenUp = new Map<string, (key: string, why: string) => Promise<void>>()
  #hear: (event: NostrEvent) => void = () => {}
  #tell: (event: WalletEvent) => Promise<void> = async () => {}
  readonly customer: Customer

  constructor() {
    const scope = testScope(this.clock)
    this.customer = new Customer({
      scope,
      store: this.store,
      clock: this.clock,
      logger: silentLogger,
      nostr: this.#nostr(),
      wallets: this.#wallets(),
      config: () => DEFAULT_CONFIG,
    })
    onTestFinished(async () => {
      await scope.close(1000)
      this.store.close()
    })
  }

  #nostr(): Nostr {
    const signers = new Map([node, me].map((signer) => [signer.pubkey, signer]))
    const keyring: Keyring = {
      locked: false,
      node: () => node,
      customer: () => me,
      account: () => me,
      signer: (pubkey) => signers.get(pubkey) ?? me,
      localSigner: (pubkey) => signers.get(pubkey) ?? me,
      owns: (pubkey) => signers.has(pubkey),
      walletSeed: () => new Uint8Array(64),
      walletSigner: () => me,
    }
    return {
      keyring,
      relays: ['wss://relay.test'],
      verifier: 'test',
      start: () => undefined,
      health: () => [],
      subscribe: () => ({ close: () => undefined }),
      query: async () => ({ events: this.published, complete: true }),
      listen: async (spec) => {
        this.#hear = (event) => spec.onEvent(event, 'wss://relay.test')
        for (const event of this.stored) this.#hear(event)
        return { close: () => undefined }
      },
      nudgeOutbox: () => undefined,
      onPublished: () => undefined,
      onGivenUp: (prefix, handler) => void this.givenUp.set(prefix, handler),
      relaysToReach: async () => ['wss://relay.test'],
      dmRelaysOf: async () => undefined,
      newestOf: async (pubkey, kinds) => newestAmong(this.published, pubkey, kinds, ['wss://relay.test']),
      profileOf: async () => undefined,
    }
  }

  #wallets(): Wallets {
    const unused = () => Promise.reject(new PylonError('internal', 'not here'))
    const of = (owner: WalletOwner): Wallet => ({
      owner,
      lockPubkey: `02${me.pubkey}`,
      balance: () => ({
        balanceSats: sats(1000),
        owedSats: sats(0),
        atRiskSats: sats(0),
        mints: [{ url: MINT, balanceSats: sats(1000), owedSats: sats(0), state: 'ok' }],
      }),
      createInvoice: unused,
      invoice: () => undefined,
      inspectToken: unused,
      receiveToken: async ({ token }) => {
        await this.onReceive(token)
        this.redeemed.push(token)
        return { amountSats: sats(5), mintUrl: MINT }
      },
      sendToken: unused,
      sentToken: () => this.token,
      reclaim: async () => {
        if (this.token === undefined) return unused()
        this.token = { ...this.token, state: 'reclaimed' }
        return this.token
      },
      pay: (request) => {
        this.asked.push(request)
        return this.onPay(request)
      },
      payment: (idempotencyKey) => this.payments.get(idempotencyKey),
    })
    return {
      of,
      mints: () => [{ url: MINT, capSats: sats(10_000), addedAt: 0 }],
      addMint: unused,
      removeMint: unused,
      transfer: unused,
      restore: unused,
      start: async () => {},
      onEvent: (_cause, handler) => {
        this.#tell = handler
      },
    }
  }

  async order(more: Partial<Order> = {}): Promise<{ id: string; eventId: string }> {
    const order: Order = {
      kind: 5001,
      inputs: [{ data: 'text', type: 'text' }],
      params: [],
      encrypt: false,
      pay: 'auto',
      payWith: 'invoice',
      timeoutMs: 600_000,
      ...more,
    }
    const view = await this.customer.submit(order, 'job-1')
    return { id: view.purchase_id, eventId: view.job_id }
  }

  /** The same hash is the same invoice. */
  invoice(amountSats: number, hash = amountSats): string {
    const timestampSeconds = Math.floor(this.clock.now() / 1000)
    const paymentHash = new Uint8Array(32).fill(hash % 251).fill(hash >> 8, 0, 1)
    return encodeInvoice(
      {
        ...{ network: 'bcrt', amountMsats: BigInt(amountSats) * 1000n, timestampSeconds, paymentHash },
        ...{ paymentSecret: new Uint8Array(32).fill(7), description: 'job' },
      },
      new Uint8Array(32).fill(9),
    )
  }

  offer(eventId: string, from: LocalSigner, amountSats: number, bolt11 = this.invoice(amountSats)): void {
    this.answer(eventId, from, { status: 'payment-required', price: { amountMsats: msats(amountSats * 1000), bolt11 } })
  }

  answer(eventId: string, from: LocalSigner, feedback: Omit<Local<NewFeedback>, 'request' | 'createdAtS'>): void {
    const createdAtS = Math.floor(this.clock.now() / 1000)
    this.#hear(from.sign(buildFeedback({ ...feedback, request: { id: eventId, pubkey: me.pubkey }, createdAtS })))
  }

  result(eventId: string, from: LocalSigner, content: string): void {
    this.#hear(this.resultOf(eventId, from, content))
  }

  resultOf(eventId: string, from: LocalSigner, content: string): NostrEvent {
    const request = { ...me.sign({ kind: 5001, created_at: 1, tags: [], content: '' }), id: eventId }
    return from.sign(buildResult({ request, content, createdAtS: 2 }))
  }

  /** Requests that were put out after the first, in their order. */
  again(): IdentifiedEvent[] {
    const rows = this.store.sql('SELECT event FROM outbox_messages WHERE kind = 5001 ORDER BY id').all()
    return rows.slice(1).map((row) => JSON.parse(String(row['event'])) as IdentifiedEvent)
  }

  hear(event: NostrEvent): void {
    this.#hear(event)
  }

  tell(event: WalletEvent): Promise<void> {
    return this.#tell(event)
  }

  /** @param stepMs passes before each look: what waits for the clock may not have begun to when an offer is seen */
  async until(check: () => void, stepMs = 0): Promise<void> {
    await expect
      .poll(
        async () => {
          if (stepMs > 0) await this.clock.advance(stepMs)
          check()
          return true
        },
        { timeout: 10_000 },
      )
      .toBe(true)
  }
}
