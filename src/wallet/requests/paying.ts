/**
 * Payments on the requests of others (NUT-18): claimed under a key, one token made, and that token brought to who asked, by letter or by
 * POST, as often as it takes and never another one. A server that does not answer may have it: unknown, until the mint or it says.
 */
import { accountOf, accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { type Sats, sats } from '../../base/amounts.ts'
import { backoffMs } from '../../base/backoff.ts'
import { unixSeconds } from '../../base/clock.ts'
import type { FetchResponse } from '../../base/dialer.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { buildDm17, freshSigner } from '../../nostr/nips/nip59.ts'
import { requestLetterMessage, requestSendKey } from '../../store/keys.ts'
import { operationByKey } from '../../store/money/operations.ts'
import {
  claimRequestSend,
  dropRequestSend,
  getRequestSend,
  moveRequestSend,
  type RequestSendMove,
  type RequestSendRow,
  requestSendByKey,
} from '../../store/money/payment-requests.ts'
import { proofsOfOperation } from '../../store/money/proofs.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import { requestDigest } from '../context.ts'
import { type PaymentRequest, parsePaymentRequest, type RequestTransport, writePayload } from '../ecash/payment-request.ts'
import type { SentToken } from '../types.ts'
import type { RequestsWork } from './requests.ts'

export interface RequestPaymentOrder {
  /** The wallet's own key: a repeat is the same payment. */
  readonly idempotencyKey: string
  readonly owner: WalletOwner
  readonly request: PaymentRequest
  /** Needed where the request names none; else it must be the same. */
  readonly amountSats?: bigint | undefined
  readonly maxFeeSats?: Sats | undefined
  readonly includeOwed?: boolean | undefined
}

export interface RequestPaymentView {
  readonly row: RequestSendRow
  /** Undefined while nobody knows whether it was made. */
  readonly sent: SentToken | undefined
}

/** Letters are read whenever their receiver comes online. */
const LETTER_TTL_MS = 3 * 86_400_000
/** NIP-44 takes 64 KiB at most, and a payload is sealed and wrapped. */
const MAX_LETTER_CHARS = 40_000
/** How long the caller waits to hear that it has arrived. */
const ARRIVAL_WAIT_MS = 6_000
const ARRIVAL_POLL_MS = 50
const POST_TIMEOUT_MS = 30_000
const MAX_ANSWER_BYTES = 65_536
const RETRY = { minMs: 2_000, maxMs: 900_000, jitter: 0.2 }
/** A server that does not take it in a day does not want it. */
const MAX_POST_AGE_MS = 86_400_000
/** A token that is under way at its mint is looked at again so soon. */
const TOKEN_POLL_MS = 2_000

export class RequestPayments {
  readonly #work: RequestsWork
  readonly #queue = new KeyedQueue()

  constructor(work: RequestsWork) {
    this.#work = work
  }

  /**
   * @returns what became of it by now: `sending` is unknown, and gone on with
   * @throws destination_invalid, amount_invalid, mint_not_allowed, address_refused, fetch_failed, and what Wallet.sendToken throws: nothing was spent
   */
  async pay(order: RequestPaymentOrder): Promise<RequestPaymentView> {
    const { idempotencyKey, owner, request } = order
    const amountSats = amountOf(order)
    const digest = requestDigest('pay creq', { owner: owner.pubkey, request: request.text, amountSats })
    const { store } = this.#work
    // One at a time for each key: who goes on with it after a restart takes its turn too.
    const id = await this.#queue.run(idempotencyKey, async () => {
      const before = requestSendByKey(store, idempotencyKey)
      if (before !== undefined && before.requestDigest !== digest)
        throw new PylonError('idempotency_conflict', 'This idempotency key was used for another payment: use a new one.')
      const row = before ?? (await this.#claim(order, amountSats, digest))
      if (row.state === 'claimed') await this.#makeToken(row, order)
      return row.id
    })
    await this.goOn(id)
    return this.#arrival(id)
  }

  view(id: string): RequestPaymentView {
    const row = getRequestSend(this.#work.store, id)
    if (row === undefined) throw new PylonError('not_found', `There is no payment ${id} on a request of others.`)
    return { row, sent: this.#sent(row) }
  }

  #sent(row: RequestSendRow): SentToken | undefined {
    return this.#work.wallets.of(row.owner).sentToken(requestSendKey.of(row.idempotencyKey))
  }

  /** All that can be refused is refused before anything is stored. */
  async #claim(order: RequestPaymentOrder, amountSats: bigint, digest: string): Promise<RequestSendRow> {
    const { store, scope } = this.#work
    const { idempotencyKey, owner, request } = order
    const mintUrl = this.#mintFor(owner, request, amountSats)
    const transport = await this.#transportOf(request)
    const id = Buffer.from(scope.random.bytes(8)).toString('hex')
    const at = scope.clock.now()
    await store.write(
      claimRequestSend({
        ...{ id, owner, idempotencyKey, requestDigest: digest, request: request.text, amountSats, mintUrl: mintUrl ?? null, createdAt: at },
        ...{ transport: transport?.type ?? 'none', target: targetOf(transport) },
      }),
    )
    const row = requestSendByKey(store, idempotencyKey)
    if (row === undefined) throw new PylonError('internal', 'The payment was not stored.')
    return row
  }

  /** Of the mints that the payee takes the one where most is free; undefined where any will do. @throws mint_not_allowed */
  #mintFor(owner: WalletOwner, { mints }: PaymentRequest, amountSats: bigint): string | undefined {
    if (mints.length === 0) return undefined
    const ours = this.#work.wallets
      .of(owner)
      .balance()
      .mints.filter(({ url }) => mints.includes(url))
    const free = (mint: (typeof ours)[number]) => mint.balanceSats - mint.owedSats
    const best = ours.sort((a, b) => Number(free(b) - free(a))).sort((a, b) => Number(isReady(b)) - Number(isReady(a)))[0]
    if (best !== undefined) return best.url
    const some = mints.slice(0, 3).join(', ')
    throw new PylonError(
      'mint_not_allowed',
      `The request takes ecash of ${some}, none of which is on your list: pylon wallet mints add ${mints[0]}`,
    )

    function isReady(mint: (typeof ours)[number]): boolean {
      return mint.state === 'ok' && free(mint) >= amountSats
    }
  }

  /** The first way of the payee's that can be gone: a server must be there, on the public internet. @throws address_refused, fetch_failed */
  async #transportOf({ transports }: PaymentRequest): Promise<RequestTransport | undefined> {
    let problem: unknown
    for (const transport of transports) {
      if (transport.type === 'nostr') return transport
      try {
        await this.#work.dialer.fetch(transport.url, { method: 'HEAD', namedByStranger: 'lnurl', maxBytes: MAX_ANSWER_BYTES })
        return transport
      } catch (error) {
        problem ??= error
      }
    }
    if (problem !== undefined) throw problem
    return undefined
  }

  /** The one token of this payment. Where surely nothing was spent its claim goes, and the key is free. */
  async #makeToken(row: RequestSendRow, order: RequestPaymentOrder): Promise<void> {
    const { store, wallets } = this.#work
    const key = requestSendKey.of(row.idempotencyKey)
    try {
      const move = {
        idempotencyKey: key,
        cause: { type: 'owner', id: row.idempotencyKey },
        amountSats: sats(row.amountSats),
        debitAccount: accountOf(accountOwner(row.owner), 'equity', 'withdrawal'),
        // As other wallets do: the payee is left with what it asks.
        coverReceiverFee: true,
        fillIfShort: true,
        retryFailed: true,
        ...given({
          mintUrl: row.mintUrl ?? undefined,
          lockTo: order.request.lockTo,
          maxFeeSats: order.maxFeeSats,
          includeOwed: order.includeOwed,
        }),
      } as const
      await wallets.of(row.owner).sendToken(move, { subject: 'owner', ...payeeOf(row) })
    } catch (error) {
      const operation = operationByKey(store, key)
      if (operation !== undefined && operation.state !== 'failed') return
      await store.write(dropRequestSend({ id: row.id }))
      throw error
    }
  }

  /** What is due of one, once at a time. */
  async goOn(id: string): Promise<void> {
    const key = getRequestSend(this.#work.store, id)?.idempotencyKey
    if (key !== undefined) await this.#queue.run(key, () => this.#goOn(id))
  }

  async #goOn(id: string): Promise<void> {
    const row = getRequestSend(this.#work.store, id)
    if (row?.state === 'claimed') await this.#sendOut(row)
    else if (row?.state === 'sending' && row.transport === 'post') await this.#post(row)
  }

  /** The token is there: its payload is fixed and on its way in one commit. */
  async #sendOut(row: RequestSendRow): Promise<void> {
    const { store, scope } = this.#work
    const at = scope.clock.now()
    const operation = operationByKey(store, requestSendKey.of(row.idempotencyKey))
    // The node ended before anything was spent.
    if (operation === undefined || operation.state === 'failed') return await store.write(dropRequestSend({ id: row.id }))
    const sent = this.#sent(row)
    if (sent === undefined) return await this.#move({ id: row.id, to: 'claimed', nextTryAt: at + TOKEN_POLL_MS, at })
    if (sent.state !== 'pending') return await this.#move(ended(row, sent, at))
    const proofs = proofsOfOperation(store, sent.operationId, 'sent').map(({ keysetId, amountSats, secret, c, dleq }) => ({
      ...{ id: keysetId, amount: Number(amountSats), secret, C: c, ...(dleq === null ? {} : { dleq }) },
    }))
    if (row.transport === 'none') return await this.#move({ id: row.id, to: 'delivered', nextTryAt: null, at })
    const payload = writePayload({ id: parsePaymentRequest(row.request).id, mintUrl: sent.mintUrl, proofs })
    if (row.transport === 'nostr') return await this.#writeLetter(row, payload, at)
    await this.#move({ id: row.id, to: 'sending', payload, nextTryAt: at, at })
    await this.#goOn(row.id)
  }

  /** By a throwaway key: the payee needs the token, not who paid. */
  async #writeLetter(row: RequestSendRow, payload: string, at: number): Promise<void> {
    const { scope, nostr } = this.#work
    const target = row.target ?? ''
    if (payload.length > MAX_LETTER_CHARS) {
      const reason = 'the token has too many coins for a letter'
      return await this.#move({ id: row.id, to: 'undelivered', reason, nextTryAt: null, at })
    }
    const named = parsePaymentRequest(row.request).transports.find((one) => one.type === 'nostr' && one.pubkey === target)
    const hints = named?.type === 'nostr' ? named.relays : []
    const relays = hints.length > 0 ? hints : ((await nostr.dmRelaysOf(target)) ?? nostr.relays)
    const { wraps } = await buildDm17(freshSigner(scope.random), [target], payload, unixSeconds(scope.clock))
    const wrap = wraps.find(({ recipient }) => recipient === target)
    if (wrap === undefined) throw new PylonError('internal', 'The letter has no wrap for its receiver.')
    const letter = { key: requestLetterMessage.of(row.id), event: wrap.event, seal: wrap.seal, relays, notAfter: at + LETTER_TTL_MS, at }
    await persistIfUnmoved(this.#work, moveRequestSend({ id: row.id, to: 'sending', payload, nextTryAt: null, at }), enqueueEvent(letter))
    nostr.nudgeOutbox()
  }

  /** What became of a letter. @param why no relay takes it; undefined: one has */
  async onLetter(key: string, why: string | undefined): Promise<void> {
    const id = requestLetterMessage.idIn(key)
    const row = id === undefined ? undefined : getRequestSend(this.#work.store, id)
    if (row === undefined || row.state !== 'sending') return
    const at = this.#work.scope.clock.now()
    if (why === undefined) await this.#move({ id: row.id, to: 'delivered', reason: null, nextTryAt: null, at })
    else await this.#move({ id: row.id, to: 'undelivered', reason: `no relay took the letter: ${why}`, nextTryAt: null, at })
  }

  /** Once more, with the same proofs, unless the mint says that they were taken. */
  async #post(row: RequestSendRow): Promise<void> {
    const before = await this.#checkedToken(row)
    const { dialer, scope } = this.#work
    const at = scope.clock.now()
    if (before !== undefined && before.state !== 'pending') return await this.#move(ended(row, before, at))
    const tried = { id: row.id, tries: row.tries + 1, at }
    let reason: string
    let isRefused: boolean
    try {
      const answer = await dialer.fetch(row.target ?? '', {
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'application/json' },
        body: row.payload ?? '',
        timeoutMs: POST_TIMEOUT_MS,
        maxBytes: MAX_ANSWER_BYTES,
        namedByStranger: 'lnurl',
      })
      if (answer.status < 300) return await this.#move({ ...tried, to: 'delivered', reason: null, nextTryAt: null })
      isRefused = isRefusal(answer)
      reason = `the server answered with status ${answer.status}: ${answer.text.slice(0, 200)}`
    } catch (error) {
      if (isPylonError(error, 'shutting_down')) throw error
      isRefused = isPylonError(error, 'address_refused')
      reason = messageOf(error)
    }
    // It may have taken the token before it refused the same once more.
    const after = isRefused ? await this.#checkedToken(row) : undefined
    if (after !== undefined && after.state !== 'pending') return await this.#move(ended(row, after, at))
    const isOver = isRefused || at > row.createdAt + MAX_POST_AGE_MS
    if (isOver) await this.#move({ ...tried, to: 'undelivered', reason, nextTryAt: null })
    else await this.#move({ ...tried, to: 'sending', reason, nextTryAt: at + backoffMs(RETRY, tried.tries, scope.random) })
  }

  /** The token as its mint sees it now; as it was known where the mint does not answer. */
  async #checkedToken(row: RequestSendRow): Promise<SentToken | undefined> {
    const sent = this.#sent(row)
    if (sent?.state !== 'pending' || row.tries === 0) return sent
    await this.#work.wallets.checkSent(sent.operationId)
    return this.#sent(row)
  }

  async #move(move: RequestSendMove): Promise<void> {
    await persistIfUnmoved(this.#work, moveRequestSend(move))
    this.#work.wake()
  }

  /** As it is once it has arrived, or after some seconds. */
  async #arrival(id: string): Promise<RequestPaymentView> {
    const { clock } = this.#work.scope
    const until = clock.now() + ARRIVAL_WAIT_MS
    for (;;) {
      const view = this.view(id)
      const isOpen = view.row.state === 'sending' && view.row.transport === 'nostr'
      if (!isOpen || clock.now() >= until) return view
      await this.#work.scope.sleep(ARRIVAL_POLL_MS)
    }
  }
}

/** @throws amount_invalid */
function amountOf({ request, amountSats }: RequestPaymentOrder): bigint {
  if (request.amountSats === undefined) {
    if (amountSats === undefined) throw new PylonError('amount_invalid', 'The request does not say how much: give the amount in sats.')
    return amountSats
  }
  if (amountSats !== undefined && amountSats !== request.amountSats)
    throw new PylonError(
      'amount_invalid',
      `The request asks ${request.amountSats} sats, not the ${amountSats} that were agreed: nothing was spent.`,
    )
  return request.amountSats
}

const targetOf = (transport: RequestTransport | undefined): string | null =>
  transport === undefined ? null : transport.type === 'nostr' ? transport.pubkey : transport.url

/** Whom lists may mean. */
const payeeOf = ({ transport, target }: RequestSendRow): { counterparty?: string } =>
  target === null ? {} : { counterparty: transport === 'post' ? new URL(target).hostname : target }

/** Its token is no more on its way: taken, or taken back by the owner. */
const ended = ({ id }: RequestSendRow, sent: SentToken, at: number): RequestSendMove =>
  sent.state === 'claimed'
    ? { id, to: 'delivered', reason: null, nextTryAt: null, at }
    : { id, to: 'undelivered', reason: 'the token was taken back', nextTryAt: null, at }

/** Whether a server surely does not want it: what asks for patience, and its own faults, say nothing. */
const isRefusal = ({ status }: FetchResponse): boolean => status >= 400 && status < 500 && ![408, 425, 429].includes(status)
