/** What mints ask for a payment or for a move between two of them, before anything is spent: quotes that nobody pays (NUT-04, 05). */
import type { WalletOwner } from '../../base/accounts.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import type { WalletContext } from '../context.ts'
import { meltQuoteSchema, mintQuoteSchema, unwrap } from '../mint/client.ts'
import { checkQuote } from '../mint/quotes.ts'
import type { PlannedMove, PurseMint, PursePlan, ReserveOf } from './plan.ts'

/** How often a plan is made again with what was learnt. */
const MAX_ROUNDS = 8

/** What was learnt for one plan. */
export class Quoting {
  readonly #context: WalletContext
  readonly #owner: WalletOwner
  readonly #known = new Map<string, { readonly amountSats: bigint; readonly reserveSats: bigint }>()
  /** Mints that gave no usable quote, and why. */
  readonly refusals = new Map<string, string>()

  constructor(context: WalletContext, owner: WalletOwner) {
    this.#context = context
    this.#owner = owner
  }

  /** Of less than was asked about as much; of more in proportion; of what was not asked yet nothing, so that it is asked. */
  readonly reserveOf: ReserveOf = (from, to, amountSats) => {
    const known = this.#known.get(pairOf(from, to))
    if (known === undefined) return 0n
    const { reserveSats } = known
    return amountSats <= known.amountSats ? reserveSats : (reserveSats * amountSats + known.amountSats - 1n) / known.amountSats
  }

  /**
   * Makes a plan until every fee in it was quoted. A mint that gives no quote is left out.
   * @param plan makes one of these mints with what is known
   */
  async settle(mints: readonly PurseMint[], plan: (mints: readonly PurseMint[], reserveOf: ReserveOf) => PursePlan): Promise<PursePlan> {
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const usable = mints.map((mint) => (this.refusals.has(mint.url) ? { ...mint, isUp: false } : mint))
      const found = plan(usable, this.reserveOf)
      if (!found.isPossible) return this.refusals.size === 0 ? found : { ...found, why: [found.why, ...this.refusals.values()].join('; ') }
      const open = found.moves.filter((move) => !this.#covers(move))
      if (open.length === 0) return found
      for (const move of open) await this.#ask(move)
    }
    return { isPossible: false, why: 'the mints ask something else each time' }
  }

  #covers({ from, to, amountSats }: PlannedMove): boolean {
    return (this.#known.get(pairOf(from, to))?.amountSats ?? -1n) >= amountSats
  }

  async #ask({ from, to, amountSats }: PlannedMove): Promise<void> {
    const invoice = await this.#noting(to, () => this.#invoice(to, amountSats))
    if (invoice === undefined) return
    const reserveSats = await this.#noting(from, () => this.#reserve(from, invoice, amountSats))
    if (reserveSats !== undefined) this.#known.set(pairOf(from, to), { amountSats, reserveSats })
  }

  /** What a mint reserves for paying this invoice; undefined where it does not quote it. */
  reserveFor(mintUrl: string, invoice: string, amountSats: bigint): Promise<bigint | undefined> {
    return this.#noting(mintUrl, () => this.#reserve(mintUrl, invoice, amountSats))
  }

  async #invoice(mintUrl: string, amountSats: bigint): Promise<string> {
    const { mints, keyring, invoiceNetwork: network } = this.#context
    const pubkey = `02${keyring.walletSigner(this.#owner.pubkey).pubkey}`
    const body = JSON.stringify({ amount: Number(amountSats), unit: 'sat', pubkey })
    const quote = unwrap(mintUrl, await mints.client(mintUrl).post('/v1/mint/quote/bolt11', body, mintQuoteSchema))
    checkQuote(mintUrl, quote, { amountSats, pubkey, network })
    return quote.request
  }

  async #reserve(mintUrl: string, invoice: string, amountSats: bigint): Promise<bigint> {
    const body = JSON.stringify({ request: invoice, unit: 'sat' })
    const quote = unwrap(mintUrl, await this.#context.mints.client(mintUrl).post('/v1/melt/quote/bolt11', body, meltQuoteSchema))
    if (BigInt(quote.amount) !== amountSats || (quote.unit ?? 'sat') !== 'sat')
      throw new PylonError('mint_rejected', `${mintUrl} asks ${quote.amount} for an invoice of ${amountSats} sats.`)
    return BigInt(quote.fee_reserve)
  }

  async #noting<T>(mintUrl: string, ask: () => Promise<T>): Promise<T | undefined> {
    try {
      return await ask()
    } catch (error) {
      if (!isPylonError(error) || error.code === 'shutting_down') throw error
      this.refusals.set(mintUrl, error.message)
      return undefined
    }
  }
}

const pairOf = (from: string, to: string): string => `${from} ${to}`
