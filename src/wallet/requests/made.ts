/**
 * Payment requests of this home (NUT-18): made under a key, shown to whoever shall pay, and what comes in on them. A payment is claimed by
 * its proofs before a mint is asked about it, and swapped under that claim: what comes twice is one payment, what was swapped is booked.
 */
import { hash } from 'node:crypto'
import { accountOf, accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { backoffMs } from '../../base/backoff.ts'
import { messageOf, PylonError, toPylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { Letter } from '../../nostr/types.ts'
import { all } from '../../store/commands.ts'
import { requestCause, requestPaymentKey } from '../../store/keys.ts'
import {
  claimRequestPayment,
  deferRequestPayment,
  getPaymentRequest,
  getRequestPayment,
  insertPaymentRequest,
  type PaymentRequestRow,
  paymentRequestByKey,
  receiveRequestPayment,
  refuseRequestPayment,
} from '../../store/money/payment-requests.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import { requestDigest } from '../context.ts'
import { encodePaymentRequest, type RequestPayload, readPayload } from '../ecash/payment-request.ts'
import { normaliseMintUrl } from '../ecash/token.ts'
import { isFinalRefusal } from '../moves/refusals.ts'
import type { RequestsWork } from './requests.ts'

export interface RequestOrder {
  /** The wallet's own key: a repeat is the same request. */
  readonly idempotencyKey: string
  readonly owner: WalletOwner
  /** Undefined: whoever pays says how much. */
  readonly amountSats?: bigint | undefined
  readonly description?: string | undefined
  /** Where it may be paid; all listed mints when left out. */
  readonly mints?: readonly string[] | undefined
  readonly singleUse: boolean
  /** Milliseconds since the epoch. What comes later is kept, and told as late. */
  readonly expiresAt?: number | undefined
  /** `none`: the token is handed over by hand, to `pylon wallet receive`. */
  readonly transport: 'nostr' | 'none'
  /** Where letters to the owner of the wallet are read. */
  readonly relays: readonly string[]
}

/** Relays in a request: it is to be scanned. */
const MAX_RELAYS = 3
const RETRY = { minMs: 5_000, maxMs: 3_600_000, jitter: 0.2 }
/** A mint that is gone for so long is not asked any more. */
const MAX_AGE_MS = 30 * 86_400_000

export class MadeRequests {
  readonly #work: RequestsWork
  readonly #queue = new KeyedQueue()

  constructor(work: RequestsWork) {
    this.#work = work
  }

  /** @throws no_mint, mint_not_allowed, amount_invalid, idempotency_conflict */
  async create(order: RequestOrder): Promise<PaymentRequestRow> {
    const { scope, store, wallets } = this.#work
    const { idempotencyKey, owner, amountSats, description, singleUse, expiresAt, transport } = order
    const digest = requestDigest('creq', {
      owner: owner.pubkey,
      amountSats,
      description,
      mints: order.mints,
      singleUse,
      expiresAt,
      transport,
    })
    const before = paymentRequestByKey(store, idempotencyKey)
    if (before === undefined) {
      if (amountSats !== undefined && amountSats <= 0n) throw new PylonError('amount_invalid', 'A request must ask for at least 1 sat.')
      const mints = this.#mintsFor(order.mints)
      const id = Buffer.from(scope.random.bytes(8)).toString('hex')
      // Letters to an agent are its own; all else comes to the node.
      const target = owner.kind === 'agent' ? owner.pubkey : this.#work.keyring.node().pubkey
      const transports = transport === 'none' ? [] : [{ type: 'nostr' as const, pubkey: target, relays: order.relays.slice(0, MAX_RELAYS) }]
      const { creqA, creqB } = encodePaymentRequest({ id, amountSats, mints, description, singleUse, transports })
      const row = {
        ...{ id, owner, idempotencyKey, requestDigest: digest, amountSats: amountSats ?? null, mints, description: description ?? null },
        ...{ singleUse, transport, request: creqA, requestBech32: creqB, expiresAt: expiresAt ?? null, createdAt: scope.clock.now() },
      }
      await store.write(insertPaymentRequest(row))
    }
    // The first that was stored counts, whoever asked at the same time.
    const made = paymentRequestByKey(store, idempotencyKey)
    if (made === undefined) throw new PylonError('internal', `The payment request of ${wallets.of(owner).owner.kind} was not stored.`)
    if (made.requestDigest !== digest)
      throw new PylonError('idempotency_conflict', 'This idempotency key was used for another payment request: use a new one.')
    return made
  }

  #mintsFor(wanted: readonly string[] | undefined): string[] {
    const listed = this.#work.wallets.mints().map(({ url }) => url)
    if (listed.length === 0) throw new PylonError('no_mint', 'No mint is configured: add one with pylon wallet mints add URL.')
    if (wanted === undefined || wanted.length === 0) return listed
    const mints = [...new Set(wanted.map(normaliseMintUrl))]
    const strange = mints.find((url) => !listed.includes(url))
    if (strange !== undefined) throw new PylonError('mint_not_allowed', `${strange} is not on the list: pylon wallet mints add ${strange}`)
    return mints
  }

  /**
   * Takes what pays a request of ours, and nothing else. Resolves once it is claimed: it is redeemed from then on whatever happens.
   * @returns whether the letter was a payment @throws overloaded where it should come again
   */
  async take(letter: Pick<Letter, 'rumorId' | 'from' | 'content'>): Promise<boolean> {
    const payload = readPayload(letter.content)
    const request = payload === undefined ? undefined : getPaymentRequest(this.#work.store, payload.id)
    if (payload === undefined || request === undefined) return false
    const { store, scope, logger } = this.#work
    const at = scope.clock.now()
    const id = hash('sha256', [...payload.secrets].sort().join('\n'))
    const { mintUrl, faceSats, token, memo = null } = payload
    const claim = claimRequestPayment({
      ...{ id, requestId: request.id, letterId: letter.rumorId, sender: letter.from, mintUrl, faceSats, token, memo, createdAt: at },
    })
    const wrong = whyNot(request, payload)
    if (wrong === undefined) {
      await store.write(claim)
      this.#work.wake()
      return true
    }
    logger.info({ request: request.id, reason: wrong }, 'a payment on a request was refused')
    if (getRequestPayment(store, id) === undefined) await store.write(all(claim, refuseRequestPayment({ id, reason: wrong, at })))
    return true
  }

  /** Swaps one that was claimed; what nobody can say yet is asked again later. */
  redeem(id: string): Promise<void> {
    return this.#queue.run(id, () => this.#redeem(id))
  }

  async #redeem(id: string): Promise<void> {
    const { store, scope, wallets, logger } = this.#work
    const payment = getRequestPayment(store, id)
    const request = payment === undefined ? undefined : getPaymentRequest(store, payment.requestId)
    if (payment === undefined || request === undefined || payment.state !== 'claimed') return
    try {
      const { amountSats } = await wallets.of(request.owner).receiveToken({
        idempotencyKey: requestPaymentKey.of(id),
        cause: { type: 'owner', id: requestCause.of(request.id) },
        token: payment.token,
        creditAccount: accountOf(accountOwner(request.owner), 'equity', 'funding'),
        retryFailed: true,
      })
      await persistIfUnmoved(this.#work, receiveRequestPayment({ id, amountSats, at: scope.clock.now() }))
      logger.info({ request: request.id, sats: Number(amountSats) }, 'a payment request was paid')
    } catch (error) {
      const [at, reason, tries] = [scope.clock.now(), messageOf(error), payment.tries + 1]
      const isFinal = isFinalRefusal(toPylonError(error), tries) || at > payment.createdAt + MAX_AGE_MS
      const later = deferRequestPayment({ id, reason, tries, nextTryAt: at + backoffMs(RETRY, tries, scope.random), at })
      await persistIfUnmoved(this.#work, isFinal ? refuseRequestPayment({ id, reason, at }) : later)
    }
  }
}

/** What can be said without asking its mint. */
function whyNot(request: PaymentRequestRow, { unit, mintUrl }: RequestPayload): string | undefined {
  if (unit !== 'sat') return `it is in ${unit}, the request asks for sat`
  if (!request.mints.includes(mintUrl)) return `it is of the mint ${mintUrl}, which the request does not name`
  return undefined
}
