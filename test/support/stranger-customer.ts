/** A customer with no import of ours: nostr-tools, cashu-ts, ws and fetch. It buys NIP-90 jobs by what docs/nip90.md says. */
import { getDecodedToken, getEncodedToken, type Proof, Wallet } from '@cashu/cashu-ts'
import * as nip44 from 'nostr-tools/nip44'
import { type Event, finalizeEvent, generateSecretKey, getPublicKey, verifyEvent } from 'nostr-tools/pure'
import WebSocket from 'ws'

export interface StrangerRequest {
  readonly kind: number
  readonly input: string
  readonly provider: string
  /** Put in the request: in clear, or inside the encrypted content. */
  readonly token?: string
  readonly encrypted?: boolean
  readonly tags?: string[][]
  readonly createdAt?: number
}

export class StrangerCustomer implements Disposable {
  readonly secret = generateSecretKey()
  readonly pubkey = getPublicKey(this.secret)
  readonly answers: Event[] = []
  readonly #mintUrl: string
  readonly #sockets: WebSocket[] = []
  #wallet: Wallet | undefined

  private constructor(mintUrl: string) {
    this.#mintUrl = mintUrl
  }

  /** Connected to every relay, and listening: EOSE came. */
  static async create(relays: readonly string[], mintUrl: string): Promise<StrangerCustomer> {
    const customer = new StrangerCustomer(mintUrl)
    await Promise.all(relays.map((url) => customer.#connect(url)))
    return customer
  }

  #connect(url: string): Promise<void> {
    const socket = new WebSocket(url)
    this.#sockets.push(socket)
    const kinds = [7000, ...Array.from({ length: 10 }, (_, n) => 6000 + n), 6050, 6998, 6999]
    socket.on('open', () => socket.send(JSON.stringify(['REQ', 'answers', { kinds, '#p': [this.pubkey] }])))
    return new Promise((resolve, reject) => {
      socket.once('error', reject)
      socket.on('message', (data) => {
        const [type, , event] = JSON.parse(data.toString()) as [string, string, Event]
        if (type === 'EOSE') resolve()
        if (type === 'EVENT' && verifyEvent(event) && !this.answers.some((known) => known.id === event.id)) this.answers.push(event)
      })
    })
  }

  build(request: StrangerRequest): Event {
    const { kind, input, provider, token, encrypted = false, tags = [], createdAt = Math.floor(Date.now() / 1000) } = request
    const hidden = [['i', input, 'text'], ...(token === undefined ? [] : [['cashu', token]])]
    const content = encrypted ? nip44.encrypt(JSON.stringify(hidden), nip44.getConversationKey(this.secret, provider)) : ''
    const open = [['p', provider], ...tags]
    return finalizeEvent(
      { kind, created_at: createdAt, content, tags: encrypted ? [...open, ['encrypted']] : [...hidden, ...open] },
      this.secret,
    )
  }

  send(event: Event): void {
    for (const socket of this.#sockets) socket.send(JSON.stringify(['EVENT', event]))
  }

  cancel(request: Event): void {
    const tags = [
      ['e', request.id],
      ['k', String(request.kind)],
    ]
    this.send(finalizeEvent({ kind: 5, created_at: Math.floor(Date.now() / 1000), content: '', tags }, this.secret))
  }

  /** The answers to one request, of one kind or feedback status. */
  about(request: Event, what: number | string): Event[] {
    return this.answers.filter((event) => {
      if (!event.tags.some((tag) => tag[0] === 'e' && tag[1] === request.id)) return false
      return typeof what === 'number'
        ? event.kind === what
        : event.kind === 7000 && event.tags.some((tag) => tag[0] === 'status' && tag[1] === what)
    })
  }

  read(event: Event): string {
    return event.tags.some((tag) => tag[0] === 'encrypted')
      ? nip44.decrypt(event.content, nip44.getConversationKey(this.secret, event.pubkey))
      : event.content
  }

  /** Pays the invoice of a payment-required feedback, from outside the mint. */
  async payInvoice(feedback: Event): Promise<void> {
    const request = feedback.tags.find((tag) => tag[0] === 'amount')?.[2]
    const response = await fetch(`${this.#mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request }) })
    if (!response.ok && ((await response.json()) as { code: number }).code !== 20_006) throw new Error(`the faucet said ${response.status}`)
  }

  async #open(): Promise<Wallet> {
    if (this.#wallet === undefined) {
      this.#wallet = new Wallet(this.#mintUrl, { unit: 'sat' })
      await this.#wallet.loadMint()
    }
    return this.#wallet
  }

  async #funds(amountSats: number): Promise<Proof[]> {
    const wallet = await this.#open()
    const quote = await wallet.createMintQuoteBolt11(amountSats)
    await fetch(`${this.#mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request: quote.request }) })
    return wallet.mintProofsBolt11(amountSats, quote)
  }

  /** A token worth `amountSats` after the receiver's input fee; locked (NUT-11) where a key is given. */
  async makeToken(amountSats: number, lockTo?: string): Promise<string> {
    const wallet = await this.#open()
    const proofs = await this.#funds(amountSats + 5)
    const sending = wallet.ops.send(amountSats, proofs).includeFees(true)
    const { send } = await (lockTo === undefined ? sending : sending.asP2PK({ pubkey: lockTo })).run()
    return getEncodedToken({ mint: this.#mintUrl, proofs: send, unit: 'sat' })
  }

  /** The refund in an error feedback, if it holds one. */
  refundIn(feedback: Event): string | undefined {
    try {
      return (JSON.parse(this.read(feedback)) as { refund_token?: string }).refund_token
    } catch {
      return undefined
    }
  }

  /** Redeems a refund, which only our Nostr key unlocks. @returns sats. @throws when it is spent */
  async redeem(token: string): Promise<number> {
    const wallet = await this.#open()
    const proofs = await wallet.receive(token, { privkey: Buffer.from(this.secret).toString('hex') })
    return proofs.reduce((sum, proof) => sum + proof.amount.toNumber(), 0)
  }

  static faceOf(token: string): number {
    return getDecodedToken(token, []).proofs.reduce((sum, proof) => sum + Number(proof.amount), 0)
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.terminate()
  }
}
