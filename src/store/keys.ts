/**
 * Keys that name one thing for ever: idempotency keys of wallet operations, ids of ledger entries, keys of outbox messages.
 * Each form is written here once, for code and for SQL; what is stored under it stays as it is.
 */
import { hash } from 'node:crypto'

/** What stands around the id of the thing that a key is for. */
export class KeyForm {
  readonly #before: string
  readonly #after: string

  constructor(before: string, after = '') {
    this.#before = before
    this.#after = after
  }

  of(id: string): string {
    return `${this.#before}${id}${this.#after}`
  }

  /** The same in SQL. @param id an expression, never a value */
  sql(id: string): string {
    return `('${this.#before}' || ${id}${this.#after === '' ? '' : ` || '${this.#after}'`})`
  }

  /** What follows the fixed beginning, which is the id where nothing fixed follows; undefined for a key of another form. */
  idIn(key: string): string | undefined {
    if (!key.startsWith(this.#before) || !key.endsWith(this.#after)) return undefined
    return key.slice(this.#before.length, key.length - this.#after.length)
  }

  /** In SQL: whether a key begins as those of this form do. @param key an expression, as are the ids below */
  isIn(key: string): string {
    const last = this.#before.charCodeAt(this.#before.length - 1)
    return `(${key} >= '${this.#before}' AND ${key} < '${this.#before.slice(0, -1)}${String.fromCharCode(last + 1)}')`
  }

  /** In SQL: the id in a key of this form; one of this length where more may follow it. */
  idSql(key: string, length?: number): string {
    const fixed = this.#before.length + this.#after.length
    return `substr(${key}, ${this.#before.length + 1}, ${length ?? `length(${key}) - ${fixed}`})`
  }
}

const digestOf = (token: string): string => hash('sha256', token).slice(0, 16)

// What the wallet does by itself.
export const mintKey = new KeyForm('mint:')
export const reclaimKey = new KeyForm('reclaim:')
/** Of swaps of own coins for the operation of a key, which may be tried at one mint after another: broken, or gathered in rounds. */
export const breakForm = new KeyForm('break:')
export const gatherForm = new KeyForm('gather:')
export const breakKey = (key: string, mintUrl: string): string => `${breakForm.of(key)}:${digestOf(mintUrl)}`
export const gatherKey = (key: string, mintUrl: string, round: number): string => `${gatherForm.of(key)}:${digestOf(mintUrl)}:${round}`
/** All keys of these swaps for a key lie between one of these pairs. */
export const ownSwapKeys = (key: string) => [breakForm, gatherForm].map((form) => ({ from: form.of(`${key}:`), to: form.of(`${key};`) }))
/** Of what moves sats from one mint to another, for the spend of a key: the invoice of the one and its payment by the other. */
const purseMove = new KeyForm('purse:')
export const purseMoveKey = (key: string, nth: number): string => purseMove.of(`${digestOf(key)}:${nth}`)
export const isPurseMove = (key: string): boolean => purseMove.idIn(key) !== undefined
/** In SQL: whether a key is of such a move. @param key an expression */
export const isPurseMoveSql = (key: string): string => purseMove.isIn(key)
/** All keys of what was done for the spend of a key lie between these: its moves, and the swaps that they needed. */
export const purseKeys = (key: string) =>
  ['', 'break:', 'gather:'].map((before) => {
    const form = `${before}${purseMove.of(digestOf(key))}`
    return { from: `${form}:`, to: `${form};` }
  })
/** Of the ledger: that a move is lost. The id is the move's own. */
export const purseMoveLost = new KeyForm('', ':lost')
/** Of a swap that moves coins out of an old keyset. */
export const rotationKey = new KeyForm('rotate:')
/** Of a quote that an LNURL server asked for. */
export const lnurlKey = new KeyForm('lnurl:')

// What is sold.
export interface SaleCause {
  readonly type: 'job' | 'lease'
  readonly id: string
}

export const jobInvoiceKey = new KeyForm('job:', ':invoice')
export const saleInvoiceKey = ({ type, id }: SaleCause): string => `${type}:${id}:invoice`
/** A job takes the one token that is in its request; a lease another when the first was bad. */
export const saleTokenKey = ({ type, id }: SaleCause, token: string): string =>
  `${type}:${id}:token${type === 'job' ? '' : `:${digestOf(token)}`}`
/** @param nth the first, or of what came after the first was spent */
export const saleRefundKey = ({ type, id }: SaleCause, nth: number): string => `${type}:${id}:refund${nth > 1 ? `:${nth}` : ''}`

/** Of what takes in coins that were found elsewhere: a digest of them, and the how manieth try. */
export const foundCoinsKey = (digest: string, nth: number): string => `found:${digest}:${nth}`

// What is bought.
export const purchaseKey = new KeyForm('purchase:')
export const purchaseTokenKey = new KeyForm('purchase:', ':token')
export const purchasePaymentKey = (purchaseId: string, offerId: string): string => `purchase:${purchaseId}:pay:${offerId}`
/** What the ledger names a rental as a cause, beside purchases of jobs. */
export const rentalKey = new KeyForm('rental:')
export const rentalPaymentKey = (rentalId: string, asked: string): string => `rental:${rentalId}:pay:${digestOf(asked)}`
/** Of redeeming a token that came back. @param of the key of the purchase or rental */
export const refundTokenKey = (of: string, token: string): string => `${of}:refund:${digestOf(token)}`
export const topUpKey = (causeId: string, { mintUrl, heldSats, missingSats }: { mintUrl: string; heldSats: bigint; missingSats: bigint }) =>
  `purchase:${causeId}:topup:${mintUrl}:${heldSats}:${missingSats}`

// Agents that one talks to: their commands to a node and their session, each for ever. The id is a key of the caller's.
export const managedKey = (agentId: string, what: string): string => `managed:${agentId}:${what}`

// What agents and owners do.
export const actionKey = new KeyForm('action:')
/** What ends a turn in a session: a tick, or something about what was said. */
export type TurnEnding = readonly ['done' | 'failed' | 'later' | 'full' | 'abort', string]
/** Of the end of a turn, where, and whose turn. */
export const turnEndKey = ([what, id]: TurnEnding, groupId: string, talker: string): string => `end:${what}:${id}:${groupId}:${talker}`
export const zapKey = new KeyForm('zap:')
/** Of one share of a zap that is split, by its place. */
export const zapPartKey = (key: string, place: number): string => `${key}:part:${place}`
/** Of redeeming a nutzap that came: the id is that of its event. */
export const nutzapKey = new KeyForm('nutzap:')
export const tickFeeKey = new KeyForm('tick:', ':fee')
export const leaveKey = (agentPubkey: string, nth: string): string => `agent:${agentPubkey}:leave:${nth}`
/** The caller's key names the move; the wallet is part of it, so that a key reused for another wallet is another move. */
export const ownerKey = (walletPubkey: string, key: string): string => `owner:${walletPubkey}:${key}`

/** What a request over NIP-47 pays or asks an invoice for: the id is that of its event. It is the cause of both too. */
export const nwcPaymentKey = new KeyForm('nwc-pay:')
export const nwcInvoiceKey = new KeyForm('nwc-invoice:')
export const nwcCause = new KeyForm('nwc:')

/** Of what brings sats from the owner's Lightning wallet to a mint that has too little for the move of a key: all of one begin alike. */
export const fillKeys = new KeyForm('fill:', ':')
export const fillKey = (key: string, { heldSats, missingSats }: { heldSats: bigint; missingSats: bigint }, nth: number): string =>
  `${fillKeys.of(key)}${heldSats}:${missingSats}:${nth}`

/** Of one payout: its wallet operation, and its cause in the ledger. */
export const payoutKey = new KeyForm('payout:')

/** Of the token that pays a request of others, under the key of the payment; and of what redeems a payment on one of ours. */
export const requestSendKey = new KeyForm('creq:')
export const requestPaymentKey = new KeyForm('creq-paid:')
/** What the ledger names a request as, among what the owner causes. */
export const requestCause = new KeyForm('request:')

// Entries of the ledger.
export const operationHeld = new KeyForm('op:', ':held')
export const operationDone = new KeyForm('op:', ':done')
export const operationReleased = new KeyForm('op:', ':released')
/** Of what a token brought that the books held already. */
export const operationReturned = new KeyForm('op:', ':returned')
export const nwcInvoicePaid = new KeyForm('nwc-invoice:', ':paid')
export const nwcPaymentDone = new KeyForm('nwc-payment:', ':done')
export const saleSettled = ({ type, id }: SaleCause): string => `${type}:${id}:settle`
/** Of a refund that is not worth its fee, and of what the fee took from one. The id is the refund's own key. */
export const refundForgone = new KeyForm('', ':forgone')
export const refundRest = new KeyForm('', ':rest')

// Messages of the outbox: what more there is to say of a job may follow its id.
export const jobResultMessage = new KeyForm('job-result:')
export const jobFeedbackMessage = new KeyForm('job-feedback:')
/** The list of mints (NUT-27): there is one. */
export const MINT_BACKUP_MESSAGE = 'mint-backup'
// Of a connection over NIP-47 what it is, of a request its answer (sent again under its number), of a payment who is told.
export const nwcInfoMessage = new KeyForm('nwc-info:')
export const nwcAnswerMessage = (eventId: string, nth: number): string => `nwc-answer:${eventId}:${nth}`
export const nwcNoticeMessage = (connectionId: string, what: string, kind: number): string => `nwc-notice:${connectionId}:${what}:${kind}`
/** What is asked of a bunker elsewhere: the id is that of the request. */
export const bunkerRequestMessage = new KeyForm('bunker-request:')
/** What the bunker answers: the id is that of the request's event. */
export const bunkerAnswerMessage = new KeyForm('bunker-answer:')
/** Of a nutzap that came (the id of its event) what tells that it was redeemed, and one that goes out, by the key of its zap. */
export const nutzapRedeemedMessage = new KeyForm('nutzap-redeemed:')
export const nutzapMessage = new KeyForm('nutzap-out:')
/** Of an event of a wallet (NIP-60), by its id. */
export const walletBackupMessage = new KeyForm('nip60:')
/** What is asked of the owner's Lightning wallet: the id is that of the event. */
export const nwcRequestMessage = new KeyForm('nwc-request:')
/** Of an event, as 64 hex digits. */
export const JOB_ID_LENGTH = 64
export const purchaseRequestMessage = new KeyForm('purchase:', ':request')
export const purchaseCancelMessage = new KeyForm('purchase:', ':cancel')
/** Of what a guest sent through its door: runtime, event and time of sending. */
export const doorMessage = new KeyForm('door:')

/** What a key's sessions publish: the parts of an id are hex, joined by `:`. */
type SessionMessage = 'message' | 'commit' | 'again' | 'leave' | 'welcome' | 'key-package' | 'key-package-443' | 'relays' | 'deletion'
export const sessionMessages = (what: SessionMessage, owner: string): KeyForm => new KeyForm(`session-${what}:${owner}:`)
/** Claims of events are of one key each: two keys of a home may be in one group. */
export const sessionSeen = (owner: string, eventId: string): string => `session:${owner}:${eventId}`
/** Of what the owner says by NIP-17, under the caller's key: to the peer, the copy to oneself, and where one is answered. */
export const directMessage = new KeyForm('direct:')
export const directCopyMessage = new KeyForm('direct-copy:')
export const directRelaysMessage = new KeyForm('direct-relays:')
/** Of a hello of a guest: its runtime, and chance. */
export const helloMessage = new KeyForm('hello:')
/** Of a private message of the node, under its caller's key. */
export const letterMessage = new KeyForm('letter:')
export const letterRelaysMessage = new KeyForm('letter-relays:')
/** Of what the node writes to its owner: up to which approval, the answer to a letter (its rumor's id), and what began or ended. */
export const askedLetter = (pubkey: string, approvalId: number): string => `approvals:${pubkey}:${approvalId}`
export const answerLetter = new KeyForm('answer:')
/** Of the letter that brings a token to who asked for it: the id is that of our payment. */
export const requestLetterMessage = new KeyForm('creq-letter:')
export const alertsLetter = (atMs: number): string => `alerts:${atMs}`
export const testLetter = (id: string): string => `alerts-test:${id}`
