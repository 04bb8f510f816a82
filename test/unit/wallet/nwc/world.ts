/** A Lightning wallet elsewhere and its relay in memory, behind the interface of nostr; database, keys and codecs of the node are real. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ManualClock } from '../../../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../../../src/base/config.ts'
import { silentLogger } from '../../../../src/base/logger.ts'
import { seededRandom } from '../../../../src/base/random.ts'
import { Scope } from '../../../../src/base/scope.ts'
import { HomeKeyring } from '../../../../src/nostr/keys/keyring.ts'
import { createSigner } from '../../../../src/nostr/keys/signer.ts'
import {
  buildInfo,
  buildNotifications,
  buildNwcResponse,
  encryptionOf,
  NWC_METHODS,
  type NwcAnswer,
  openNwcRequest,
} from '../../../../src/nostr/nips/nip47.ts'
import type { LocalSigner, NostrEvent, SubscriptionSpec } from '../../../../src/nostr/types.ts'
import { type IssuedInvoice, issueInvoice } from '../../../../src/sandbox/mint/invoices.ts'
import { pendingAfter } from '../../../../src/store/nostr/outbox.ts'
import type { CommitHook, Store } from '../../../../src/store/store.ts'
import { decodeInvoice } from '../../../../src/wallet/lightning/bolt11.ts'
import { NwcRail } from '../../../../src/wallet/nwc/rail.ts'
import { TEST_PUBKEY, TEST_WORDS } from '../../../support/nostr-node.ts'
import { openStore } from '../../../support/store.ts'

const key = (n: number): LocalSigner => createSigner(new Uint8Array(32).fill(n))
const CLIENT_SECRET = '15'.repeat(32)
export const NODE = { kind: 'node', pubkey: TEST_PUBKEY } as const

interface Known {
  readonly type: 'incoming' | 'outgoing'
  state: 'pending' | 'settled' | 'failed'
  readonly amount: number
  readonly preimage: string
  readonly invoice: string
}

/** What outlives nodes: the clock, the folder, and the wallet elsewhere with what it did. */
export class OtherWallet {
  readonly clock = new ManualClock()
  readonly dir = mkdtempSync(join(tmpdir(), 'pylon-rail-'))
  readonly signer = key(20)
  readonly url = `nostr+walletconnect://${this.signer.pubkey}?relay=wss%3A%2F%2Frelay.wallet.test&secret=${CLIENT_SECRET}`
  readonly asked: string[] = []
  readonly known = new Map<string, Known>()
  /** Invoices of others, whose preimage who pays learns. */
  readonly others = new Map<string, IssuedInvoice>()
  balance = 1_000_000
  fee = 1000
  /** Nothing reaches it. */
  isAway = false
  /** Answers get lost on the way back. */
  losesAnswers = false
  /** What a payment does before it is answered: nothing where it is not said otherwise. */
  onPay: (known: Known) => NwcAnswer | 'silent' | undefined = () => undefined
  #random = seededRandom(7)
  #seen = new Set<string>()
  #heard: SubscriptionSpec | undefined

  get nowS(): number {
    return Math.floor(this.clock.now() / 1000)
  }

  get info(): NostrEvent {
    return this.signer.sign(buildInfo({ methods: NWC_METHODS, createdAtS: this.nowS }))
  }

  listen(spec: SubscriptionSpec | undefined): void {
    this.#heard = spec
  }

  issue(amountSats: number): IssuedInvoice {
    const nodeKey = new Uint8Array(32).fill(3)
    const issued = issueInvoice({
      ...{ random: this.#random, nodeKey, amountSats, description: 'test', nowSeconds: this.nowS, expirySeconds: 3600 },
    })
    return issued
  }

  /** An invoice of somebody else. */
  somebodys(amountSats: number): string {
    const issued = this.issue(amountSats)
    this.others.set(issued.paymentHash, issued)
    return issued.request
  }

  /** How often each payment hash was really paid from here. */
  paid(): number {
    return [...this.known.values()].filter(({ type, state }) => type === 'outgoing' && state === 'settled').length
  }

  /** A customer pays an invoice that was made here. */
  async customerPays(invoice: string, options: { tell: boolean }): Promise<void> {
    const { paymentHash } = decodeInvoice(invoice)
    const known = this.known.get(paymentHash)
    if (known === undefined) throw new Error('no such invoice')
    known.state = 'settled'
    if (!options.tell || this.isAway) return
    const client = key(0x15)
    for (const template of buildNotifications(this.signer, client.pubkey, 'payment_received', this.#view(paymentHash, known), this.nowS))
      await this.#heard?.onEvent(this.signer.sign(template), 'wss://relay.wallet.test')
  }

  /** Takes what the node sends. */
  async take(event: NostrEvent): Promise<void> {
    const expiry = Number(event.tags.find(([name]) => name === 'expiration')?.[1] ?? Number.POSITIVE_INFINITY)
    if (this.isAway || this.#seen.has(event.id) || expiry <= this.nowS) return
    this.#seen.add(event.id)
    const { method, params } = openNwcRequest(this.signer, event, encryptionOf(event) ?? 'nip04')
    this.asked.push(method)
    const answer = this.#answer(method, params)
    if (answer === 'silent' || this.losesAnswers) return
    const to = { clientPubkey: event.pubkey, requestId: event.id, encryption: encryptionOf(event) ?? ('nip04' as const) }
    await this.#heard?.onEvent(this.signer.sign(buildNwcResponse(this.signer, to, method, answer, this.nowS)), 'wss://relay.wallet.test')
  }

  #answer(method: string, params: Readonly<Record<string, unknown>>): NwcAnswer | 'silent' {
    switch (method) {
      case 'get_balance':
        return { result: { balance: this.balance } }
      case 'make_invoice': {
        const issued = this.issue(Number(params['amount']) / 1000)
        const known: Known = { type: 'incoming', state: 'pending', amount: Number(params['amount']), preimage: '', invoice: issued.request }
        this.known.set(issued.paymentHash, known)
        return { result: this.#view(issued.paymentHash, known) }
      }
      case 'lookup_invoice': {
        const hash = String(params['payment_hash'])
        const known = this.known.get(hash)
        return known === undefined ? { error: { code: 'NOT_FOUND', message: 'no such payment' } } : { result: this.#view(hash, known) }
      }
      case 'pay_invoice': {
        const invoice = String(params['invoice'])
        const { paymentHash, amountMsats = 0n } = decodeInvoice(invoice)
        if (this.known.get(paymentHash)?.state === 'settled') return { error: { code: 'OTHER', message: 'paid already' } }
        const preimage = this.others.get(paymentHash)?.preimage ?? ''
        const known: Known = { type: 'outgoing', state: 'settled', amount: Number(amountMsats), preimage, invoice }
        this.known.set(paymentHash, known)
        const other = this.onPay(known)
        if (known.state === 'settled') this.balance -= known.amount + this.fee
        return other ?? { result: { preimage, fees_paid: this.fee } }
      }
      default:
        return { error: { code: 'NOT_IMPLEMENTED', message: method } }
    }
  }

  #view(paymentHash: string, { type, state, amount, preimage, invoice }: Known) {
    return {
      ...{ type, state, amount, invoice, payment_hash: paymentHash, fees_paid: type === 'outgoing' ? this.fee : 0, created_at: this.nowS },
      ...(state === 'settled' ? { preimage, settled_at: this.nowS } : {}),
    }
  }

  close(): void {
    rmSync(this.dir, { recursive: true, force: true })
  }
}

export interface RailNode {
  readonly store: Store
  readonly rail: NwcRail
  readonly keyring: HomeKeyring
  isDead(): boolean
  /** What waits for the clock is given it. */
  settled<T>(work: Promise<T>): Promise<T>
  stop(): Promise<void>
}

/** A node over the folder of that wallet's world. @param options.dieAt it dies right after the commit with that label, or before it */
export function startRail(world: OtherWallet, options: { dieAt?: string; before?: boolean; receiveBy?: 'mint' | 'nwc' } = {}): RailNode {
  let dead = false
  const hook: CommitHook = {
    beforeCommit(labels) {
      if (options.before === true && options.dieAt !== undefined && labels.includes(options.dieAt)) dead = true
      if (dead) throw new Error('the process is dead')
    },
    afterCommit(labels) {
      if (options.dieAt !== undefined && labels.includes(options.dieAt)) dead = true
    },
  }
  const store = openStore(join(world.dir, 'pylon.db'), { hook })
  const { clock } = world
  const keyring = new HomeKeyring({ store, clock, logger: silentLogger, nodePubkey: TEST_PUBKEY })
  keyring.unlock(TEST_WORDS)
  const scope = Scope.root('rail', { clock, random: seededRandom(1) }, ({ path, error }) => {
    if (!dead) throw new Error(`${path} failed`, { cause: error })
  })
  let flushed = 0
  const flush = async () => {
    for (const { id, event, notAfter } of dead ? [] : pendingAfter(store, flushed, 1000)) {
      flushed = id
      if (notAfter > clock.now()) await world.take(event as NostrEvent)
    }
  }
  const nudgeOutbox = () => {
    setImmediate(() => {
      flush().catch((error: unknown) => {
        if (!dead) throw error
      })
    })
  }
  const config: Config = { ...DEFAULT_CONFIG, wallet: { ...DEFAULT_CONFIG.wallet, receive_by: options.receiveBy ?? 'nwc' } }
  const rail = new NwcRail({
    ...{ scope, store, clock, logger: silentLogger, keyring, invoiceNetwork: 'bcrt', config: () => config },
    dialer: { allow: () => undefined },
    wallets: { useRail: () => () => undefined },
    nostr: {
      nudgeOutbox,
      query: () => Promise.resolve({ events: world.isAway ? [] : [world.info], complete: true }),
      subscribe: (spec) => {
        world.listen({ ...spec, onEvent: async (event, relay) => (dead ? undefined : await spec.onEvent(event, relay)) })
        return { close: () => world.listen(undefined) }
      },
    },
  })
  // What was on its way goes on its way, as the outbox does at a start.
  rail.start()
  nudgeOutbox()
  return {
    store,
    rail,
    keyring,
    isDead: () => dead,
    async settled(work) {
      let isOver = false
      const end = work.finally(() => {
        isOver = true
      })
      end.catch(() => undefined)
      for (let waited = 0; !isOver && waited < 600; waited++) await clock.advance(waited < 5 ? 0 : 500)
      return await end
    },
    async stop() {
      let isOver = false
      const closing = scope.close(0).then(() => {
        isOver = true
      })
      for (let waitMs = 0; !isOver; waitMs = 500) await clock.advance(waitMs)
      await closing
      dead = true
      store.close()
    },
  }
}
