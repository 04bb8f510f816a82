/**
 * The owner's Lightning wallet elsewhere (NIP-47) with its own moods: it answers late, twice or not at all, calls a payment failed that
 * it goes on with, and pays long after it was asked.
 */
import { type Random, randomBelow, seededRandom } from '../../src/base/random.ts'
import { createSigner } from '../../src/nostr/keys/signer.ts'
import {
  buildInfo,
  buildNotifications,
  buildNwcResponse,
  encryptionOf,
  formatNwcUri,
  NWC_METHODS,
  NWC_REQUEST_KIND,
  type NwcAnswer,
  openNwcRequest,
} from '../../src/nostr/nips/nip47.ts'
import type { EventTemplate, NostrEvent } from '../../src/nostr/types.ts'
import { issueInvoice } from '../../src/sandbox/mint/invoices.ts'
import { decodeInvoice } from '../../src/wallet/lightning/bolt11.ts'
import { RELAYS } from './places.ts'
import type { World } from './world.ts'

interface Known {
  readonly type: 'incoming' | 'outgoing'
  state: 'pending' | 'settled' | 'failed'
  readonly sats: number
  preimage: string
  readonly invoice: string
}

const FEE_SATS = 1
const LATE_MS = 50_000
const HOUR_S = 3600

export class LightningWallet {
  readonly url: string
  readonly #world: World
  readonly #random: Random
  readonly #signer
  readonly #client
  readonly #send: (frame: string) => void
  readonly #known = new Map<string, Known>()
  readonly #seen = new Set<string>()
  isWell = true

  constructor(world: World, seed: number) {
    this.#world = world
    this.#random = seededRandom(seed + 2 ** 29)
    this.#signer = createSigner(new Uint8Array(32).fill(20), this.#random)
    const secret = new Uint8Array(32).fill(21)
    this.#client = createSigner(secret, this.#random)
    const relays = RELAYS.map((origin) => origin.replace('http', 'ws'))
    this.url = formatNwcUri({ walletPubkey: this.#signer.pubkey, relays, secret: Buffer.from(secret).toString('hex') })
    this.#send = world.visitRelays((frame) => this.#hear(frame))
    this.#send(JSON.stringify(['REQ', 'asked', { kinds: [NWC_REQUEST_KIND], '#p': [this.#signer.pubkey] }]))
    this.#publish(buildInfo({ methods: NWC_METHODS, createdAtS: this.#nowS }))
  }

  /** What went out less what came in, and what that cost. */
  get balance(): { outSats: number; feeSats: number } {
    const settled = [...this.#known.values()].filter(({ state }) => state === 'settled')
    const sent = settled.filter(({ type }) => type === 'outgoing')
    const outSats = settled.reduce((sum, { type, sats }) => sum + (type === 'outgoing' ? sats : -sats), 0)
    return { outSats, feeSats: sent.length * FEE_SATS }
  }

  /** Payment hashes that were paid from here, or to here. */
  settled(type: Known['type']): string[] {
    return [...this.#known].flatMap(([hash, known]) => (known.type === type && known.state === 'settled' ? [hash] : []))
  }

  /** Somebody pays an invoice that was made here. @returns the preimage; undefined where there is none to be paid */
  receive(request: string): string | undefined {
    const found = [...this.#known].find(([, { type, invoice, state }]) => type === 'incoming' && invoice === request && state === 'pending')
    if (found === undefined || decodeInvoice(request).expiresAt <= this.#world.clock.now()) return undefined
    const [hash, known] = found
    known.state = 'settled'
    if (this.isWell || this.#chance(0.6))
      for (const told of buildNotifications(this.#signer, this.#client.pubkey, 'payment_received', this.#view(hash, known), this.#nowS))
        this.#publish(told)
    return known.preimage
  }

  #hear(frame: string): void {
    const [type, , event] = JSON.parse(frame) as [string, string, NostrEvent]
    if (type !== 'EVENT' || this.#seen.has(event.id) || (!this.isWell && this.#chance(0.1))) return
    this.#seen.add(event.id)
    const expiry = Number(event.tags.find(([name]) => name === 'expiration')?.[1] ?? Number.POSITIVE_INFINITY)
    if (expiry <= this.#nowS) return
    const encryption = encryptionOf(event) ?? 'nip04'
    const { method, params } = openNwcRequest(this.#signer, event, encryption)
    const answer = this.#answer(method, params)
    if (answer === undefined || (!this.isWell && this.#chance(0.2))) return
    const to = { clientPubkey: event.pubkey, requestId: event.id, encryption }
    const times = !this.isWell && this.#chance(0.2) ? 2 : 1
    for (let i = 0; i < times; i++) {
      const lateMs = this.isWell ? 0 : this.#chance(0.3) ? randomBelow(this.#random, LATE_MS) : randomBelow(this.#random, 3000)
      this.#world.clock.after(lateMs, () => this.#publish(buildNwcResponse(this.#signer, to, method, answer, this.#nowS)))
    }
  }

  /** @returns undefined where it says nothing */
  #answer(method: string, params: Readonly<Record<string, unknown>>): NwcAnswer | undefined {
    if (method === 'get_balance') return { result: { balance: 1_000_000_000 } }
    if (method === 'make_invoice') return this.#make(Number(params['amount']) / 1000)
    if (method === 'lookup_invoice') {
      const hash = String(params['payment_hash'] ?? decodeInvoice(String(params['invoice'])).paymentHash)
      const known = this.#known.get(hash)
      return known === undefined ? { error: { code: 'NOT_FOUND', message: 'no such payment' } } : { result: this.#view(hash, known) }
    }
    if (method === 'pay_invoice') return this.#pay(String(params['invoice']))
    return { error: { code: 'NOT_IMPLEMENTED', message: method } }
  }

  #make(sats: number): NwcAnswer {
    const nodeKey = new Uint8Array(32).fill(3)
    const made = issueInvoice({
      ...{ random: this.#random, nodeKey, amountSats: sats, description: 'a sale', nowSeconds: this.#nowS, expirySeconds: HOUR_S },
    })
    const known: Known = { type: 'incoming', state: 'pending', sats, preimage: made.preimage, invoice: made.request }
    this.#known.set(made.paymentHash, known)
    return { result: this.#view(made.paymentHash, known) }
  }

  #pay(invoice: string): NwcAnswer | undefined {
    const { paymentHash, amountMsats = 0n } = decodeInvoice(invoice)
    const before = this.#known.get(paymentHash)
    if (before !== undefined && before.state !== 'failed') return { error: { code: 'OTHER', message: 'paid before' } }
    const known: Known = { type: 'outgoing', state: 'pending', sats: Number(amountMsats / 1000n), preimage: '', invoice }
    this.#known.set(paymentHash, known)
    if (this.isWell || this.#chance(0.6)) {
      this.#settle(known)
      if (known.state === 'settled') return { result: { preimage: known.preimage, fees_paid: FEE_SATS * 1000 } }
      return { error: { code: 'PAYMENT_FAILED', message: 'no route' } }
    }
    this.#world.clock.after(randomBelow(this.#random, 2 * LATE_MS), () => this.#settle(known))
    return this.#chance(0.5) ? undefined : { error: { code: this.#chance(0.5) ? 'PAYMENT_FAILED' : 'INTERNAL', message: 'timeout' } }
  }

  #settle(known: Known): void {
    const preimage = (this.isWell || this.#chance(0.8) ? this.#world.payInvoice(known.invoice) : undefined) ?? ''
    known.preimage = preimage
    known.state = preimage === '' ? 'failed' : 'settled'
  }

  #view(hash: string, { type, state, sats, preimage, invoice }: Known): Record<string, unknown> {
    const [isSettled, nowS] = [state === 'settled', this.#nowS]
    return {
      ...{ type, state, invoice, payment_hash: hash, amount: sats * 1000, created_at: nowS, expires_at: nowS + HOUR_S },
      ...(isSettled ? { preimage, settled_at: nowS } : {}),
      ...(isSettled && type === 'outgoing' ? { fees_paid: FEE_SATS * 1000 } : {}),
    }
  }

  #publish(template: EventTemplate): void {
    this.#send(JSON.stringify(['EVENT', this.#signer.sign(template)]))
  }

  #chance(of: number): boolean {
    return this.#random.float() < of
  }

  get #nowS(): number {
    return Math.floor(this.#world.clock.now() / 1000)
  }
}
