/** Payment requests of both directions as one part of the node: what is due of them is done, also after a restart. */
import type { Dialer } from '../../base/dialer.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import type { Keyring, Nostr } from '../../nostr/types.ts'
import { requestLetterMessage } from '../../store/keys.ts'
import { dueRequestPayments, dueRequestSends, nextRequestDue } from '../../store/money/payment-requests.ts'
import type { Store } from '../../store/store.ts'
import type { OwnWallets } from '../wallets.ts'
import { MadeRequests } from './made.ts'
import { RequestPayments } from './paying.ts'

export interface RequestsDeps {
  /** Owns what is under way. */
  readonly scope: Scope
  readonly store: Store
  readonly logger: Logger
  readonly dialer: Pick<Dialer, 'fetch'>
  readonly keyring: Pick<Keyring, 'node'>
  readonly wallets: Pick<OwnWallets, 'of' | 'mints' | 'checkSent'>
  readonly nostr: Pick<Nostr, 'relays' | 'dmRelaysOf' | 'nudgeOutbox' | 'onPublished' | 'onGivenUp'>
}

/** What its two halves need. */
export interface RequestsWork extends RequestsDeps {
  /** Something is due sooner than was thought. */
  readonly wake: () => void
}

const MAX_NAP_MS = 60_000
const MIN_NAP_MS = 50

export class PaymentRequests {
  readonly made: MadeRequests
  readonly payments: RequestPayments
  readonly #deps: RequestsDeps
  #cancelNap: (() => void) | undefined
  #isStarted = false

  constructor(deps: RequestsDeps) {
    this.#deps = deps
    const work = { ...deps, wake: () => this.#wake() }
    this.made = new MadeRequests(work)
    this.payments = new RequestPayments(work)
  }

  start(): void {
    const { nostr } = this.#deps
    nostr.onPublished(requestLetterMessage.of(''), (key) => this.payments.onLetter(key, undefined))
    nostr.onGivenUp(requestLetterMessage.of(''), (key, why) => this.payments.onLetter(key, why))
    this.#isStarted = true
    this.#look()
  }

  #look(): void {
    const { scope, store } = this.#deps
    const now = scope.clock.now()
    for (const { id } of dueRequestPayments(store, now)) scope.spawnOnce(`payment ${id}`, () => this.made.redeem(id))
    for (const { id } of dueRequestSends(store, now)) scope.spawnOnce(`send ${id}`, () => this.payments.goOn(id))
    const due = nextRequestDue(store) ?? now + MAX_NAP_MS
    // What is under way is due until it has ended.
    const isBusy = scope.running().some(({ path }) => !path.endsWith('/look'))
    this.#nap(Math.min(MAX_NAP_MS, Math.max(isBusy ? MIN_NAP_MS * 10 : MIN_NAP_MS, due - now)))
  }

  #wake(): void {
    if (this.#isStarted) this.#nap(0)
  }

  #nap(ms: number): void {
    this.#cancelNap?.()
    this.#cancelNap = this.#deps.scope.after('look', ms, () => this.#look())
  }
}
