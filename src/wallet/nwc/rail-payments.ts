/**
 * Payments from the owner's own Lightning wallet: stored with their request and put out in one commit, from then on unknown until the
 * wallet says what became of them. Nothing is sent twice; a timeout is looked up by the payment hash, for as long as it takes.
 */
import { hash } from 'node:crypto'
import { accountOf, accountOwner, nwcDetail, type WalletOwner } from '../../base/accounts.ts'
import { type Msats, msats, msatsToSatsUp } from '../../base/amounts.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { randomUuid } from '../../base/random.ts'
import { type NwcResponse, parseTransaction } from '../../nostr/nips/nip47.ts'
import { all } from '../../store/commands.ts'
import { nwcPaymentDone } from '../../store/keys.ts'
import { settleSpend } from '../../store/money/budgets.ts'
import { postEntry } from '../../store/money/ledger.ts'
import {
  getNwcPayment,
  insertNwcPayment,
  moveNwcPayment,
  type NwcPaymentRow,
  nwcPaymentByKey,
  nwcPaymentOfEvent,
} from '../../store/money/nwc-wallets.ts'
import { insertWalletEvent } from '../../store/money/wallet-events.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import { feeAccount, requestDigest } from '../context.ts'
import { decodeInvoice } from '../lightning/bolt11.ts'
import { nextTryMs } from '../operations/machine.ts'
import { bindSpend, holdsFor } from '../policy/spends.ts'
import type { PayRequest, PayResult, Wallet, WalletEvent } from '../types.ts'
import type { RailWork } from './rail.ts'
import { judgeAnswer, judgeLookup, type PaymentVerdict } from './verdicts.ts'

/** The wallet is not to act on a request to pay that comes later. */
const PAY_TTL_S = 120
/** How long a caller waits for the outcome of a payment; after that it is unknown, and looked up. */
const PAY_WAIT_MS = 60_000
/** After the end of a request its answer may still be on its way, and clocks differ. */
const LATE_MS = 60_000

export class RailPayments {
  readonly #deps: RailWork
  readonly #keys = new KeyedQueue()

  constructor(deps: RailWork) {
    this.#deps = deps
  }

  /** @param rail `own` where sats only move to a mint of this home */
  async pay(owner: WalletOwner, request: PayRequest, rail?: 'own'): Promise<PayResult> {
    const { idempotencyKey, amountMsats, debitAccount, cause } = request
    const bolt11 = decodeInvoice(request.request).request
    const digest = requestDigest('nwc pay', { owner: owner.pubkey, request: bolt11, amountMsats, debitAccount, cause })
    return await this.#keys.run(idempotencyKey, async () => {
      const before = nwcPaymentByKey(this.#deps.store, idempotencyKey)
      if (before !== undefined && before.requestDigest !== digest)
        throw new PylonError('idempotency_conflict', 'This idempotency key was used for another payment: use a new one.')
      if (before !== undefined) return resultOf(before)
      return resultOf(await this.#send(owner, { ...request, request: bolt11 }, digest, rail))
    })
  }

  payment(idempotencyKey: string): ReturnType<Wallet['payment']> {
    const row = nwcPaymentByKey(this.#deps.store, idempotencyKey)
    if (row === undefined) return undefined
    return row.state === 'failed' ? { state: 'failed', reason: row.reason ?? 'no reason given' } : resultOf(row)
  }

  /** Stored and put out in one commit; from then on only the wallet knows. */
  async #send(owner: WalletOwner, request: PayRequest, requestDigest: string, rail?: 'own'): Promise<NwcPaymentRow> {
    const { store, clock, scope, nostr } = this.#deps
    const { idempotencyKey, cause, debitAccount } = request
    const { id: walletId, info } = this.#deps.connection.connected()
    if (!info.methods.includes('pay_invoice'))
      throw new PylonError('nwc_refused', 'The connection to the Lightning wallet does not allow payments.')
    if (!info.methods.includes('lookup_invoice'))
      throw new PylonError(
        'nwc_refused',
        'The Lightning wallet does not tell what became of payments (lookup_invoice): nothing is paid from there.',
      )
    const { isAmountless, ...invoice } = this.#checkedInvoice(request)
    const amount = isAmountless ? { amount: Number(invoice.amountMsats) } : {}
    const wire = this.#deps.connection.wire(walletId)
    const asked = wire.request('pay_invoice', { invoice: request.request, ...amount }, PAY_TTL_S)
    const id = randomUuid(scope.random)
    const at = clock.now()
    const stored = insertNwcPayment({
      ...{ id, walletId, idempotencyKey, requestDigest, owner, cause, debitAccount, ...invoice },
      ...{ eventId: asked.event.id, expiresAtS: asked.expiresAtS, nextCheckAt: asked.expiresAtS * 1000, createdAt: at },
    })
    const bound = bindSpend(this.#deps, { owner, cause, debitAccount, rail: rail ?? `nwc:${walletId}` })
    const held = holdsFor(bound, { operationId: id, at, amountSats: msatsToSatsUp(invoice.amountMsats) })
    await store.write(all(stored, ...held, wire.sending(asked)))
    const heard = wire.response(asked.event.id, PAY_WAIT_MS)
    nostr.nudgeOutbox()
    const response = await heard
    if (response === undefined) await this.look(id)
    else await this.#turn(id, () => this.#judge(id, response))
    return this.#payment(id)
  }

  #checkedInvoice({ request, amountMsats: agreed, maxFeeSats }: PayRequest): {
    request: string
    paymentHash: string
    amountMsats: Msats
    isAmountless: boolean
  } {
    const { clock, invoiceNetwork } = this.#deps
    if (maxFeeSats !== undefined)
      throw new PylonError(
        'invalid_request',
        'What the Lightning wallet pays for routing it decides by itself, and Nostr Wallet Connect (NIP-47) has no word to limit that: leave --max-fee and --max-sats out, or pay from a mint, where they hold.',
      )
    const { amountMsats: asked, paymentHash, network, expiresAt } = decodeInvoice(request)
    const amountMsats = asked ?? agreed
    if (amountMsats === undefined || amountMsats <= 0n)
      throw new PylonError('invoice_invalid', 'The invoice has no amount: say how much, or ask for one that does.')
    if (agreed !== undefined && agreed !== amountMsats)
      throw new PylonError('invoice_invalid', `The invoice asks for ${amountMsats} msats, not the agreed ${agreed}.`)
    if (network !== invoiceNetwork)
      throw new PylonError('invoice_invalid', `The invoice is for another network (ln${network}, this node pays ln${invoiceNetwork}).`)
    if (expiresAt <= clock.now()) throw new PylonError('invoice_expired', 'The invoice has expired: ask for a new one.')
    return { request, paymentHash, amountMsats: msats(amountMsats), isAmountless: asked === undefined }
  }

  #payment(id: string): NwcPaymentRow {
    const row = getNwcPayment(this.#deps.store, id)
    if (row === undefined) throw new PylonError('internal', `There is no payment ${id}.`)
    return row
  }

  /** What becomes of one payment is judged by one at a time. */
  #turn(id: string, work: () => Promise<void>): Promise<void> {
    return this.#keys.run(`payment ${id}`, work)
  }

  /** An answer, whenever it comes. */
  onResponse(eventId: string, response: NwcResponse): void {
    const row = nwcPaymentOfEvent(this.#deps.store, eventId)
    if (row === undefined || row.state !== 'unknown') return
    this.#deps.scope.spawn(`answer ${row.id}`, () => this.#turn(row.id, () => this.#judge(row.id, response)))
  }

  async #judge(id: string, response: NwcResponse): Promise<void> {
    const verdict = judgeAnswer(response)
    if (verdict.do === 'look') await this.#lookUp(id, verdict.reason, true)
    else await this.#conclude(id, verdict)
  }

  /** Asks what became of a payment whose answer did not come. */
  look(id: string): Promise<void> {
    return this.#turn(id, () => this.#lookUp(id, 'the wallet has not answered', false))
  }

  /** @param isOver the wallet has said that it will not act on the request any more */
  async #lookUp(id: string, why: string, isOver: boolean): Promise<void> {
    const row = this.#payment(id)
    if (row.state !== 'unknown') return
    const ended = isOver || this.#deps.clock.now() > row.expiresAtS * 1000 + LATE_MS
    try {
      const found = parseTransaction(await this.#deps.connection.ask('lookup_invoice', { payment_hash: row.paymentHash }, row.walletId))
      if (found.paymentHash !== row.paymentHash) throw new PylonError('nwc_refused', 'The Lightning wallet told of another payment.')
      await this.#conclude(id, judgeLookup(found, ended), why)
    } catch (error) {
      if (isPylonError(error, 'shutting_down')) throw error
      const isUnknown = isPylonError(error, 'nwc_refused') && error.details['nwc_code'] === 'NOT_FOUND'
      await this.#conclude(id, isUnknown ? judgeLookup(undefined, ended) : { do: 'wait', reason: messageOf(error) }, why)
    }
  }

  async #conclude(id: string, verdict: PaymentVerdict, why?: string): Promise<void> {
    const row = this.#payment(id)
    if (row.state !== 'unknown') return
    const { clock, scope } = this.#deps
    const at = clock.now()
    if (verdict.do === 'complete') return await this.#complete(row, verdict.preimage, msats(verdict.feeMsats))
    if (verdict.do === 'fail') {
      const reason = why === undefined ? verdict.reason : `${why}; ${verdict.reason}`
      const event: WalletEvent = { type: 'payment_failed', ...eventBase(row), reason }
      const failed = all(
        moveNwcPayment({ id, to: 'failed', reason, nextCheckAt: null, at }),
        settleSpend({ operationId: id, state: 'released', amountSats: 0n }),
      )
      if (await persistIfUnmoved(this.#deps, failed, insertWalletEvent({ causeType: row.cause.type, event, at }))) this.#deps.tell()
      return
    }
    const nextCheckAt = at + nextTryMs(row.tries, scope.random)
    await persistIfUnmoved(this.#deps, moveNwcPayment({ id, to: 'unknown', reason: verdict.reason, tries: row.tries + 1, nextCheckAt, at }))
    this.#deps.wake()
  }

  async #complete(row: NwcPaymentRow, given: string | undefined, feeMsats: Msats): Promise<void> {
    const { clock, logger } = this.#deps
    const at = clock.now()
    const { id, owner, cause, walletId, debitAccount, amountMsats } = row
    const isProof = given !== undefined && /^[0-9a-f]{64}$/.test(given) && hash('sha256', Buffer.from(given, 'hex')) === row.paymentHash
    if (!isProof) logger.warn({ payment: id }, 'the Lightning wallet says that it paid but gives no valid preimage')
    const preimage = isProof ? given : ''
    const event: WalletEvent = { type: 'payment_settled', ...eventBase(row), feeSats: msatsToSatsUp(feeMsats) }
    const isNew = await persistIfUnmoved(
      this.#deps,
      moveNwcPayment({ id, to: 'completed', reason: 'the wallet paid', preimage, feeMsats, nextCheckAt: null, at }),
      postEntry({
        id: nwcPaymentDone.of(id),
        cause,
        at,
        memo: 'paid by the Lightning wallet',
        postings: [
          { account: accountOf(accountOwner(owner), 'wallet', nwcDetail(walletId)), amountMsats: -(amountMsats + feeMsats) },
          { account: debitAccount, amountMsats },
          { account: feeAccount(owner), amountMsats: feeMsats },
        ],
      }),
      settleSpend({ operationId: id, state: 'spent', amountSats: msatsToSatsUp(msats(amountMsats + feeMsats)) }),
      insertWalletEvent({ causeType: cause.type, event, at }),
    )
    if (isNew) this.#deps.tell()
  }
}

const eventBase = ({ owner, cause, idempotencyKey }: NwcPaymentRow) => ({ owner, cause, idempotencyKey })

/** @throws payment_failed */
function resultOf(row: NwcPaymentRow): PayResult {
  if (row.state === 'unknown') return { state: 'unknown', operationId: row.id }
  if (row.state === 'completed')
    return { state: 'paid', operationId: row.id, preimage: row.preimage ?? '', feeSats: msatsToSatsUp(row.feeMsats) }
  throw new PylonError('payment_failed', `The Lightning wallet did not pay: ${row.reason ?? 'no reason given'}.`, {
    details: { operation_id: row.id },
  })
}
