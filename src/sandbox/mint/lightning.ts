/**
 * Lightning between sandboxes, over HTTP: the mint of one pays the invoices of the others that it knows as peers, whole or in parts
 * (NUT-15). As there, parts are held until all of an invoice has come, and go back where that takes too long.
 */
import { z } from 'zod'
import type { Clock } from '../../base/clock.ts'
import { parseJson } from '../../base/json.ts'
import type { Mint } from './mint.ts'

export interface OutgoingPayment {
  readonly quoteId: string
  readonly request: string
  readonly amountMsats: bigint
}

export const partSchema = z.object({ payment: z.string().max(200), request: z.string().min(1).max(8_192), amount_msats: z.int().min(1) })
type Part = z.output<typeof partSchema>

const answerSchema = z.union([z.object({ preimage: z.string() }), z.object({ refused: z.string() })])
export type PartAnswer = z.output<typeof answerSchema>

export interface LightningDeps {
  readonly mint: Mint
  readonly clock: Pick<Clock, 'after'>
  /** Asks a peer; rejects where nobody can say what became of it. */
  post(url: string, body: string): Promise<string>
}

/** How long a part waits for the others. */
const PARTS_MS = 3_000
const MAX_OPEN = 1_000

interface Incoming {
  readonly parts: Map<string, number>
  readonly waiting: ((answer: PartAnswer) => void)[]
}

export class SandboxLightning {
  readonly #deps: LightningDeps
  readonly #outgoing = new Map<string, Promise<void>>()
  readonly #incoming = new Map<string, Incoming>()
  /** URLs of the mints of other sandboxes. */
  peers: readonly string[] = []

  constructor(deps: LightningDeps) {
    this.#deps = deps
  }

  /** Begins a payment whose quote is pending. */
  send(payment: OutgoingPayment): void {
    const sending = this.#send(payment).finally(() => this.#outgoing.delete(payment.quoteId))
    this.#outgoing.set(payment.quoteId, sending)
  }

  /** Resolves when a payment has ended, at once where none is under way. */
  ended(quoteId: string): Promise<void> {
    return this.#outgoing.get(quoteId) ?? Promise.resolve()
  }

  async #send({ quoteId, request, amountMsats }: OutgoingPayment): Promise<void> {
    const part: Part = { payment: quoteId, request, amount_msats: Number(amountMsats) }
    try {
      let answer = await this.receive(part)
      for (const peer of this.peers) {
        if ('preimage' in answer) break
        answer = answerSchema.parse(parseJson(await this.#deps.post(`${peer}/sandbox/lightning`, JSON.stringify(part))))
      }
      this.#deps.mint.endMelt(quoteId, 'preimage' in answer ? answer.preimage : undefined)
    } catch {
      // Nobody can say: it stays pending, as a payment that hangs, until an order releases it.
    }
  }

  /** A payment of one of our own invoices, or a part of it, by a peer. */
  receive({ payment, request, amount_msats }: Part): Promise<PartAnswer> {
    const { mint, clock } = this.#deps
    const invoice = mint.invoice(request)
    if (invoice === undefined) return Promise.resolve({ refused: 'not an invoice of this mint' })
    if (invoice.state !== 'UNPAID' || this.#incoming.size >= MAX_OPEN) return Promise.resolve({ refused: 'paid already, or too busy' })
    const incoming = this.#incoming.get(invoice.id) ?? { parts: new Map<string, number>(), waiting: [] }
    this.#incoming.set(invoice.id, incoming)
    incoming.parts.set(payment, amount_msats)
    return new Promise((resolve) => {
      incoming.waiting.push(resolve)
      const sum = [...incoming.parts.values()].reduce((total, amount) => total + amount, 0)
      if (sum >= invoice.amount * 1_000) return this.#end(invoice.id, this.#settle(request))
      clock.after(PARTS_MS, () => this.#end(invoice.id, { refused: 'the other parts did not come' }, incoming))
    })
  }

  #settle(request: string): PartAnswer {
    try {
      return { preimage: this.#deps.mint.payFromNowhere(request).preimage }
    } catch (error) {
      return { refused: String(error) }
    }
  }

  #end(id: string, answer: PartAnswer, only?: Incoming): void {
    const incoming = this.#incoming.get(id)
    if (incoming === undefined || (only !== undefined && only !== incoming)) return
    this.#incoming.delete(id)
    for (const tell of incoming.waiting) tell(answer)
  }
}
