/** Lightning in: quotes of mints (NUT-04, 20, 23), shown as invoices, watched until paid and minted; late payments too. */
import { type Account, accountOf, parseAccount, type WalletOwner } from '../../base/accounts.ts'
import { sats } from '../../base/amounts.ts'
import { backoffMs } from '../../base/backoff.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { all } from '../../store/commands.ts'
import { mintKey } from '../../store/keys.ts'
import type { Cause } from '../../store/money/ledger.ts'
import type { MintRow } from '../../store/money/mints.ts'
import { insertOperation, operationByKey, paidByUs } from '../../store/money/operations.ts'
import { heldSats } from '../../store/money/proofs.ts'
import { countStrangersQuotes, getQuote, insertQuote, moveQuote, type QuoteRow, quoteAtMint, quoteByKey } from '../../store/money/quotes.ts'
import { newId, requestDigest, type WalletContext } from '../context.ts'
import { decodeInvoice } from '../lightning/bolt11.ts'
import { type MintQuote, type MintReply, mintQuoteSchema, unwrap } from '../mint/client.ts'
import { assertUnderCap } from '../mint/mints.ts'
import { nextCheck } from '../mint/quote-schedule.ts'
import { checkQuote, descriptionFor } from '../mint/quotes.ts'
import type { Executor } from '../operations/executor.ts'
import type { MintPlan } from '../operations/machine.ts'
import { amountsFor, makeOutputs, mintBody, quoteSigner } from '../operations/requests.ts'
import type { Invoice, InvoiceRequest } from '../types.ts'

const MIN_CHECK_MS = 1000
/** What is paid and cannot be minted now. */
const POSTPONED = { minMs: 15_000, maxMs: 3_600_000 }

/** A quote that somebody else asked for us, locked to our key. */
export interface AdoptedQuote {
  readonly idempotencyKey: string
  readonly mintUrl: string
  readonly quoteId: string
  readonly amountSats: bigint
  readonly creditAccount: Account
  readonly cause: Cause
}

export class Invoices {
  readonly #context: WalletContext
  readonly #executor: Executor
  readonly #keys = new KeyedQueue()
  /** Called when a quote was added that is worth watching. */
  onAdded: () => void = () => {}

  constructor(context: WalletContext, executor: Executor) {
    this.#context = context
    this.#executor = executor
  }

  get(idempotencyKey: string): Invoice | undefined {
    const quote = quoteByKey(this.#context.store, idempotencyKey)
    return quote === undefined ? undefined : asInvoice(quote)
  }

  /** @throws no_mint, mint_not_allowed, mint_cap_exceeded, mint_unreachable, mint_rejected, invoice_invalid, idempotency_conflict */
  create(owner: WalletOwner, request: InvoiceRequest): Promise<Invoice> {
    const { amountSats, description, mintUrl, creditAccount, cause } = request
    const digest = requestDigest('invoice', { owner: owner.pubkey, amountSats, description, mintUrl, creditAccount, cause })
    return this.#keys.run(request.idempotencyKey, async () => {
      const before = quoteByKey(this.#context.store, request.idempotencyKey)
      if (before !== undefined && before.requestDigest !== digest) {
        throw new PylonError('idempotency_conflict', 'This idempotency key was used for another invoice: use a new one.')
      }
      return asInvoice(before ?? (await this.#create(owner, request, digest)))
    })
  }

  async #create(owner: WalletOwner, request: InvoiceRequest, digest: string): Promise<QuoteRow> {
    const { store, keyring } = this.#context
    const { amountSats, description } = request
    if (amountSats <= 0n) throw new PylonError('amount_invalid', 'An invoice must be for at least 1 sat.')
    await this.#context.firstLook.over(request.mintUrl)
    const mint = this.#mintFor(owner, request)
    const quotePubkey = `02${keyring.walletSigner(owner.pubkey).pubkey}`
    const body = JSON.stringify({ amount: Number(amountSats), unit: 'sat', pubkey: quotePubkey, ...descriptionFor(mint, description) })
    const reply = await this.#context.mints.client(mint.url).post('/v1/mint/quote/bolt11', body, mintQuoteSchema)
    const { idempotencyKey, creditAccount, cause, expiresAt, ofStranger = false } = request
    const asked = { idempotencyKey, requestDigest: digest, owner, quotePubkey, amountSats, creditAccount, cause, ofStranger }
    const row = await this.#rowOf(mint, reply, asked, { waitMs: MIN_CHECK_MS, expiresAt })
    if (!(await store.write(insertQuote(row)))) throw new PylonError('mint_rejected', `${mint.url} gave a quote that it had given before.`)
    this.onAdded()
    return row
  }

  #mintFor(owner: WalletOwner, request: InvoiceRequest): MintRow {
    const { mints, store } = this.#context
    const listed = request.mintUrl === undefined ? mints.list() : [mints.get(request.mintUrl)]
    const sorted = [...listed].sort((a, b) => Number(a.state === 'down') - Number(b.state === 'down'))
    let problem = this.#noMint()
    for (const mint of sorted) {
      try {
        assertUnderCap(mint, heldSats(store, owner.pubkey, mint.url), request.amountSats)
        return mint
      } catch (error) {
        problem = error as PylonError
      }
    }
    throw problem
  }

  #noMint(): PylonError {
    const [expected] = this.#context.expectedMints
    return expected === undefined
      ? new PylonError('no_mint', 'No mint is configured: add one with pylon wallet mints add URL.')
      : new PylonError('mint_unreachable', `The mint ${expected} has not answered yet: try again in a moment; pylon status says how it is.`)
  }

  /** Takes over a quote that is locked to a key of ours (the wallet's, or the Nostr key of its owner), such as one an LNURL server asked for us. Claimed once, whatever happens. */
  async adopt(owner: WalletOwner, adopted: AdoptedQuote): Promise<Invoice> {
    const { store, keyring, mints } = this.#context
    const known = quoteByKey(store, adopted.idempotencyKey) ?? quoteAtMint(store, adopted.mintUrl, adopted.quoteId)
    if (known !== undefined) return asInvoice(known)
    const mint = mints.get(adopted.mintUrl)
    const reply = await mints.client(mint.url).get(`/v1/mint/quote/bolt11/${encodeURIComponent(adopted.quoteId)}`, mintQuoteSchema)
    const { mintUrl: _mintUrl, quoteId, ...given } = adopted
    const own = `02${owner.pubkey}`
    const isOwn = reply.kind === 'ok' && reply.value.pubkey === own
    const quotePubkey = isOwn ? own : `02${keyring.walletSigner(owner.pubkey).pubkey}`
    const asked = { ...given, requestDigest: requestDigest('adopt', { quote: quoteId }), owner, quotePubkey, ofStranger: false }
    const row = await this.#rowOf(mint, reply, asked, { waitMs: 0 })
    await store.write(insertQuote(row))
    return asInvoice((await this.check(row.id)) ?? row)
  }

  /** The quote that a mint gave, checked against what was asked for. @throws mint_unreachable, mint_rejected, invoice_invalid */
  async #rowOf(
    mint: MintRow,
    reply: MintReply<MintQuote>,
    asked: Pick<
      QuoteRow,
      'idempotencyKey' | 'requestDigest' | 'owner' | 'quotePubkey' | 'amountSats' | 'creditAccount' | 'cause' | 'ofStranger'
    >,
    { waitMs, expiresAt: until }: { waitMs: number; expiresAt?: number | undefined },
  ): Promise<QuoteRow> {
    const { mints, clock, invoiceNetwork: network } = this.#context
    await mints.note(mint.url, reply)
    const quote = unwrap(mint.url, reply)
    const { paymentHash, expiresAt } = checkQuote(mint.url, quote, { amountSats: asked.amountSats, pubkey: asked.quotePubkey, network })
    const now = clock.now()
    return {
      ...asked,
      id: newId(this.#context),
      mintUrl: mint.url,
      quoteId: quote.quote,
      request: quote.request,
      paymentHash,
      state: 'unpaid',
      reason: null,
      expiresAt: Math.min(expiresAt, until ?? expiresAt),
      attempts: 0,
      nextCheckAt: now + waitMs,
      createdAt: now,
      updatedAt: now,
    }
  }

  /** Asks the mint about one quote, and mints it when it is paid. Resolves what it is now. */
  check(id: string): Promise<QuoteRow | undefined> {
    return this.#keys.run(`check:${id}`, () => this.#check(id))
  }

  async #check(id: string): Promise<QuoteRow | undefined> {
    const { store, mints } = this.#context
    const quote = getQuote(store, id)
    if (quote === undefined || quote.state === 'settled' || quote.state === 'closed') return quote
    if (quote.state !== 'paid') {
      const reply = await mints.client(quote.mintUrl).get(`/v1/mint/quote/bolt11/${encodeURIComponent(quote.quoteId)}`, mintQuoteSchema)
      await mints.note(quote.mintUrl, reply)
      if (reply.kind !== 'ok' || reply.value.state === 'UNPAID') {
        await this.#defer(quote, reply.kind === 'ok')
        return getQuote(store, id)
      }
    }
    try {
      const operation = operationByKey(store, mintKey.of(quote.id))?.id ?? (await this.#prepareMint(quote))
      await this.#executor.run(operation)
    } catch (error) {
      await this.#postpone(quote, messageOf(error))
      throw error
    }
    return getQuote(store, id)
  }

  /** It is paid and cannot be minted now (the mint's keysets are not to be had): later, ever rarer, without end. */
  async #postpone({ id, state, attempts }: QuoteRow, reason: string): Promise<void> {
    const { store, clock, random } = this.#context
    const at = clock.now()
    if (getQuote(store, id)?.state !== state) return
    const tries = state === 'paid' ? attempts + 1 : 0
    const nextCheckAt = at + backoffMs(POSTPONED, tries + 1, random)
    await store.write(moveQuote({ id, from: [state], to: 'paid', reason, attempts: tries, nextCheckAt, at }))
  }

  async #prepareMint(quote: QuoteRow): Promise<string> {
    const { store, clock, mints, keyring } = this.#context
    const keyset = await mints.activeKeyset(quote.mintUrl)
    const outputs = await makeOutputs(this.#context, keyset, [
      { purpose: 'keep', amounts: amountsFor(quote.amountSats, keyset), owner: quote.owner },
    ])
    const plan: MintPlan = {
      kind: 'mint',
      path: '/v1/mint/bolt11',
      body: mintBody(quote.quoteId, outputs, quoteSigner(keyring, quote.owner, quote.quotePubkey)),
      lockedTo: quote.quotePubkey,
      inputs: [],
      outputs,
      quoteRow: quote.id,
      quoteId: quote.quoteId,
      creditAccount: this.#isOwnPayment(quote) ? ofOwnPayment(quote.creditAccount) : quote.creditAccount,
      invoiceKey: quote.idempotencyKey,
    }
    const at = clock.now()
    const id = newId(this.#context)
    await store.write(
      all(
        moveQuote({ id: quote.id, from: ['unpaid', 'expired', 'paid'], to: 'paid', nextCheckAt: null, at }),
        insertOperation({
          id,
          kind: 'mint',
          owner: quote.owner,
          mintUrl: quote.mintUrl,
          idempotencyKey: mintKey.of(quote.id),
          requestDigest: '',
          cause: quote.cause,
          amountSats: quote.amountSats,
          heldSats: 0n,
          plan,
          at,
        }),
      ),
    )
    return id
  }

  /** Whether a wallet of this home pays this invoice: that is no income. */
  #isOwnPayment(quote: QuoteRow): boolean {
    return paidByUs(this.#context.store, quote.paymentHash, quote.createdAt)
  }

  /** The next look: soon at first, then the older the rarer; after the invoice ran out not at all. */
  async #defer(quote: QuoteRow, answered: boolean): Promise<void> {
    const { store, clock } = this.#context
    const at = clock.now()
    const strangers = quote.ofStranger ? countStrangersQuotes(store, at > quote.expiresAt ? 'expired' : 'unpaid') : 0
    const next = nextCheck({ ...quote, payableUntil: decodeInvoice(quote.request).expiresAt }, at, answered, strangers)
    await store.write(
      moveQuote({ id: quote.id, from: [quote.state], to: next.state, attempts: quote.attempts + 1, nextCheckAt: next.nextCheckAt, at }),
    )
  }
}

function asInvoice(quote: QuoteRow): Invoice {
  return {
    id: quote.id,
    request: quote.request,
    quoteId: quote.quoteId,
    paymentHash: quote.paymentHash,
    amountSats: sats(quote.amountSats),
    mintUrl: quote.mintUrl,
    expiresAt: quote.expiresAt,
    state: quote.state === 'closed' ? 'expired' : quote.state,
  }
}

/** What a wallet of this home paid is no income; where it was none anyway it stays what it was. */
function ofOwnPayment(account: Account): Account {
  const { owner, class: accountClass } = parseAccount(account)
  return accountClass === 'income' ? accountOf(owner, 'income', 'internal') : account
}
