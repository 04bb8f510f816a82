/** What a client of NIP-47 asks of one wallet of this home, each request under a key of its own: done, or gone on with, whatever came between. */
import { z } from 'zod'
import { type Account, accountOf, accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { type Msats, msats, msatsToSatsUp, sats, satsToMsats } from '../../base/amounts.ts'
import { isPylonError, PylonError, toPylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { NwcAnswer, NwcMethod } from '../../nostr/nips/nip47.ts'
import { findAgent } from '../../store/agents/agents.ts'
import { nwcCause, nwcInvoiceKey, nwcPaymentKey } from '../../store/keys.ts'
import { holdNwcSpend, type NwcConnection, type NwcRequestRow, nwcSpentSats } from '../../store/money/nwc-service.ts'
import { paymentOfHash } from '../../store/money/operations.ts'
import { type LightningTransaction, listTransactions, transactionOfHash } from '../../store/money/transactions.ts'
import { decodeInvoice } from '../lightning/bolt11.ts'
import { defaultMaxFee } from '../moves/paying.ts'
import { agentLimits } from '../policy/spends.ts'
import type { PayResult, Spend, Wallet } from '../types.ts'
import { periodEnd, periodStart } from './periods.ts'
import { errorFor, refused, STALE_S } from './refusals.ts'
import type { NwcServiceDeps } from './service.ts'

const MAX_LISTED = 50
const DEFAULT_LISTED = 20
const DEFAULT_EXPIRY_S = 3600
const MAX_EXPIRY_S = 86_400

const amountField = z.number().int().min(1).max(Number.MAX_SAFE_INTEGER)
const timeS = z.number().int().min(0).max(100_000_000_000)
const paySchema = z.object({ invoice: z.string().min(1).max(8192), amount: amountField.nullish() })
const makeSchema = z.object({ amount: amountField, description: z.string().max(640).nullish(), expiry: z.number().int().min(1).nullish() })
const lookupSchema = z.object({ payment_hash: z.string().max(64).nullish(), invoice: z.string().max(8192).nullish() })
const listSchema = z.object({
  from: timeS.nullish(),
  until: timeS.nullish(),
  limit: z.number().int().min(1).nullish(),
  offset: z.number().int().min(0).max(100_000).nullish(),
  unpaid: z.boolean().nullish(),
  type: z.enum(['incoming', 'outgoing']).nullish(),
})

/** How a request ended; what it cost is said only where something was spent. */
export interface MethodOutcome {
  readonly answer: NwcAnswer
  readonly spentSats?: bigint
  /** The payment that was made by it. */
  readonly paymentHash?: string
}

export class NwcMethods {
  readonly #deps: NwcServiceDeps

  constructor(deps: NwcServiceDeps) {
    this.#deps = deps
  }

  /** Undefined while nobody can say what became of the payment: it is answered when somebody can. @throws shutting_down */
  async do(connection: NwcConnection, request: NwcRequestRow): Promise<MethodOutcome | undefined> {
    const wallet = this.#deps.wallets.of(connection.owner)
    try {
      if (request.method === 'pay_invoice') return await this.#pay(connection, wallet, request)
      return { answer: { result: await this.#ask(connection, wallet, request) } }
    } catch (error) {
      if (isPylonError(error, 'shutting_down')) throw error
      return { answer: { error: errorFor(toPylonError(error)) } }
    }
  }

  async #ask(connection: NwcConnection, wallet: Wallet, request: NwcRequestRow): Promise<Readonly<Record<string, unknown>>> {
    const { store } = this.#deps
    const owner = connection.owner.pubkey
    switch (request.method as Exclude<NwcMethod, 'pay_invoice'>) {
      case 'get_info':
        return this.#info(connection)
      case 'get_balance': {
        const { balanceSats, owedSats } = wallet.balance()
        return { balance: satsToMsats(sats(balanceSats > owedSats ? balanceSats - owedSats : 0n)) }
      }
      case 'get_budget':
        return this.#budget(connection)
      case 'make_invoice':
        return transactionView(await this.#makeInvoice(wallet, request))
      case 'lookup_invoice': {
        const { payment_hash, invoice } = paramsOf(lookupSchema, request)
        const hash = payment_hash?.toLowerCase() ?? (invoice == null ? undefined : decodeInvoice(invoice).paymentHash)
        const found = hash === undefined ? undefined : transactionOfHash(store, owner, hash)
        if (found === undefined) throw new PylonError('not_found', 'This wallet knows no such invoice or payment.')
        return transactionView(found)
      }
      case 'list_transactions': {
        const { from, until, limit, offset, unpaid, type } = paramsOf(listSchema, request)
        const filter = { ownerPubkey: owner, unpaidToo: unpaid ?? false, from: (from ?? 0) * 1000, type: type ?? undefined }
        const page = { limit: Math.min(limit ?? DEFAULT_LISTED, MAX_LISTED), offset: offset ?? 0 }
        const untilMs = until == null ? Number.MAX_SAFE_INTEGER : until * 1000 + 999
        return { transactions: listTransactions(store, { ...filter, ...page, until: untilMs }).map(transactionView) }
      }
    }
  }

  #info({ methods, owner }: NwcConnection) {
    const { store, config, network } = this.#deps
    return {
      alias: findAgent(store, owner.pubkey)?.name ?? config().node.name,
      color: '',
      pubkey: owner.pubkey,
      network: network === 'sandbox' ? 'regtest' : 'mainnet',
      block_height: 0,
      block_hash: '',
      methods,
      notifications: ['payment_received', 'payment_sent'],
    }
  }

  /** Amounts are msats; an empty answer says that there is no limit. */
  #budget(connection: NwcConnection) {
    const { budget } = connection
    if (budget === null) return {}
    const now = this.#deps.clock.now()
    const renewsAt = periodEnd(budget.per, now)
    const words = { hour: 'hourly', day: 'daily', week: 'weekly', month: 'monthly', total: 'never' } as const
    return {
      used_budget: satsToMsats(nwcSpentSats(this.#deps.store, connection, periodStart(budget.per, now))),
      total_budget: satsToMsats(budget.sats),
      renewal_period: words[budget.per],
      ...(renewsAt === undefined ? {} : { renews_at: Math.floor(renewsAt / 1000) }),
    }
  }

  async #makeInvoice(wallet: Wallet, request: NwcRequestRow): Promise<LightningTransaction> {
    const { store, clock } = this.#deps
    const { amount, description, expiry } = paramsOf(makeSchema, request)
    if (amount % 1000 !== 0)
      throw new PylonError('amount_invalid', 'This wallet holds ecash in whole sats: ask for a multiple of 1000 msats.')
    const { paymentHash } = await wallet.createInvoice({
      idempotencyKey: nwcInvoiceKey.of(request.eventId),
      cause: { type: 'owner', id: nwcCause.of(request.eventId) },
      amountSats: sats(amount / 1000),
      creditAccount: accountOf(accountOwner(wallet.owner), 'equity', 'funding'),
      expiresAt: clock.now() + Math.min(expiry ?? DEFAULT_EXPIRY_S, MAX_EXPIRY_S) * 1000,
      ...given({ description: description ?? undefined }),
    })
    const made = transactionOfHash(store, wallet.owner.pubkey, paymentHash)
    if (made === undefined) throw new PylonError('internal', 'The invoice was not stored.')
    return made
  }

  async #pay(connection: NwcConnection, wallet: Wallet, request: NwcRequestRow): Promise<MethodOutcome | undefined> {
    const key = nwcPaymentKey.of(request.eventId)
    const { invoice, amount } = paramsOf(paySchema, request)
    const { request: bolt11, paymentHash, amountMsats } = decodeInvoice(invoice)
    const amountSats = msatsToSatsUp(msats(amountMsats ?? BigInt(amount ?? 0)))
    const paid = ({ preimage, feeSats }: Extract<PayResult, { state: 'paid' }>): MethodOutcome => ({
      answer: { result: { preimage, fees_paid: satsToMsats(feeSats) } },
      spentSats: amountSats + feeSats,
      paymentHash,
    })
    const before = wallet.payment(key)
    if (before?.state === 'paid') return paid(before)
    if (before?.state === 'unknown') return undefined
    if (before?.state === 'failed') return { answer: { error: refused('PAYMENT_FAILED', `The payment failed: ${before.reason}.`) } }
    if (request.createdAt < this.#deps.clock.now() - STALE_S * 1000)
      return {
        answer: { error: refused('OTHER', 'The wallet was away when this came: nothing was paid, and nothing will be. Ask again.') },
      }
    if (amount != null && amountMsats !== undefined && amountMsats !== BigInt(amount))
      throw new PylonError('invoice_invalid', `The invoice asks for ${amountMsats} msats, not ${amount}.`)
    this.#assertNotPaid(paymentHash)
    const maxFeeSats = await this.#hold(connection, request, paymentHash, amountSats)
    try {
      const result = await wallet.pay(
        {
          idempotencyKey: key,
          cause: { type: 'owner', id: nwcCause.of(request.eventId) },
          request: bolt11,
          debitAccount: debitOf(wallet.owner),
          ...given({
            maxFeeSats: connection.budget === null ? undefined : sats(maxFeeSats),
            amountMsats: amountMsats === undefined && amount != null ? BigInt(amount) : undefined,
          }),
        },
        this.#spendOf(connection, request),
      )
      return result.state === 'paid' ? paid(result) : undefined
    } catch (error) {
      // What the wallet does not surely know as failed is told when it is known.
      const now = wallet.payment(key)
      if (now !== undefined && now.state !== 'failed') return now.state === 'paid' ? paid(now) : undefined
      throw error
    }
  }

  /** What was paid before is not asked for again: a preimage is for who paid. @throws invoice_paid, payment_in_progress */
  #assertNotPaid(paymentHash: string): void {
    const first = paymentOfHash(this.#deps.store, paymentHash)
    if (first === undefined) return
    if (first.state === 'completed') throw new PylonError('invoice_paid', 'This invoice is paid already: nothing more was spent.')
    throw new PylonError(
      'payment_in_progress',
      'This invoice is being paid already: nothing more was spent. Look it up by its payment hash.',
    )
  }

  /** @returns what its fees may come to @throws budget_exceeded, nwc_revoked */
  #hold(connection: NwcConnection, request: NwcRequestRow, paymentHash: string, amountSats: bigint): Promise<bigint> {
    const { store, config } = this.#deps
    // For routing, and as much again for what the mint takes of coins.
    const feesSats = 2n * defaultMaxFee(amountSats, config().wallet.max_fee_percent)
    const since = connection.budget === null ? 0 : periodStart(connection.budget.per, request.createdAt)
    return store.write(holdNwcSpend({ eventId: request.eventId, paymentHash, amountSats, feesSats, since }))
  }

  /** Whose wallet it is binds beside the connection, whose own budget is held already; each request is as a tick of its own. @throws nwc_revoked */
  #spendOf({ id, owner }: NwcConnection, request: NwcRequestRow): Spend {
    const spend = { subject: `nwc:${id}`, tickId: nwcCause.of(request.eventId), limits: {} }
    if (owner.kind !== 'agent') return { ...spend, besides: [{ subject: 'owner' }] }
    const agent = findAgent(this.#deps.store, owner.pubkey)
    if (agent === undefined) throw new PylonError('nwc_revoked', 'The agent whose wallet this was is no more.')
    return { ...spend, besides: [{ subject: agent.pubkey, limits: agentLimits(agent, this.#deps.config()) }] }
  }
}

/** What an agent pays is its expense; what leaves the owner's wallets the owner takes out. */
function debitOf(owner: WalletOwner): Account {
  return owner.kind === 'agent'
    ? accountOf(accountOwner(owner), 'expense', 'invoice')
    : accountOf(accountOwner(owner), 'equity', 'withdrawal')
}

/** @throws invalid_request */
function paramsOf<T>(schema: z.ZodType<T>, request: Pick<NwcRequestRow, 'params'>): T {
  const found = schema.safeParse(request.params)
  if (found.success) return found.data
  const issue = found.error.issues[0]
  throw new PylonError('invalid_request', `The params are malformed: ${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}.`)
}

/** As NIP-47 has it: msats, unix seconds. */
export function transactionView(found: LightningTransaction) {
  const { type, status, request, paymentHash, preimage, amountMsats, feeMsats, createdAt, updatedAt } = found
  const invoice = request === null ? undefined : decodeInvoice(request)
  return {
    type,
    state: status,
    invoice: request ?? '',
    payment_hash: paymentHash,
    amount: amountMsats as Msats,
    fees_paid: feeMsats,
    created_at: Math.floor(createdAt / 1000),
    ...given({
      description: invoice?.description,
      description_hash: invoice?.descriptionHash,
      preimage,
      expires_at: invoice === undefined ? undefined : Math.floor(invoice.expiresAt / 1000),
      settled_at: status === 'settled' ? Math.floor(updatedAt / 1000) : undefined,
    }),
  }
}
