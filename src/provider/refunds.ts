/** Gives back what was paid: a token that only the payer can spend, made once, sent again and again until it is seen spent. */
import { type Account, accountOf } from '../base/accounts.ts'
import { type Sats, satsToMsats } from '../base/amounts.ts'
import type { Clock } from '../base/clock.ts'
import { isPylonError, messageOf } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Command } from '../store/commands.ts'
import { refundForgone, refundRest } from '../store/keys.ts'
import type { Cause } from '../store/money/ledger.ts'
import { type Entry, mintOfCause, postEntry } from '../store/money/ledger.ts'
import { persist } from '../store/persist.ts'
import type { Store } from '../store/store.ts'
import type { Wallet } from '../wallet/types.ts'

const MINUTE_MS = 60_000
const DAY_MS = 1440 * MINUTE_MS
/** When the refund is sent again after the first, second, ... time; then daily. */
const RESEND_AFTER_MS: readonly number[] = [MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS, 120 * MINUTE_MS, 720 * MINUTE_MS]
/** After that the token waits in our database; the owner can still hand it over. */
const MAX_SENDS = 40
/** When the wallet could not make the token (no mint answers, it holds too little): again after this, then the rarer the longer. */
const RETRY_MS = MINUTE_MS
const MAX_RETRY_MS = 60 * MINUTE_MS

export interface Owed {
  readonly idempotencyKey: string
  readonly cause: Cause
  readonly amountSats: Sats
  readonly mintUrl: string | null
  /** Whether the payer brought it about (cancelled, paid too late or too much): then the mint's fees are the payer's. */
  readonly causedByPayer: boolean
  /** Nostr key of the payer, who alone can spend the token. */
  readonly pubkey: string
  readonly debitAccount: Account
  /** How often it was sent before. */
  readonly sends: number
}

/** What is refunded: jobs, leases. */
export interface RefundBook {
  /** Ids whose refund is due by then (ms). */
  due(now: number): readonly string[]
  /** Undefined when nothing is owed (any more). */
  owed(id: string): Owed | undefined
  /** Puts the token on its way, as part of the commit that notes it. */
  deliver(id: string, token: string, sends: number): readonly Command<unknown>[]
  note(p: { id: string; sends: number; nextAt: number; at: number }): Command<unknown>
  /** Ends one that its payer brought about where nothing is left once the mint has taken its fee, and says so. */
  forgo(id: string, reason: string): readonly Command<unknown>[]
  /** Tells the payer, once, of what a refund is due for that can't be made yet. */
  deferred(id: string): readonly Command<unknown>[]
  /** The payer spent the token. */
  onClaimed(id: string): Promise<void>
}

export interface Refunds {
  /** Makes and sends what is due. Never rejects. */
  run(): Promise<void>
  /** Has this one's refund sent now. */
  wake(id: string): void
  /** Resolves when nothing is under way. */
  close(): Promise<void>
}

export function createRefunds(
  deps: { readonly store: Store; readonly clock: Clock; readonly logger: Logger; wallet(): Wallet; nudge(): void },
  book: RefundBook,
): Refunds {
  const { clock, logger } = deps
  const busy = new Map<string, Promise<void>>()
  const failures = new Map<string, number>()
  let closing = false

  async function refund(id: string, owed: Owed): Promise<void> {
    const { idempotencyKey, cause, amountSats, debitAccount, causedByPayer } = owed
    // Its payer may know no other.
    const mintUrl = owed.mintUrl ?? mintOfCause(deps.store, 'node', cause)
    // One that was made is sent again as it is, whatever the rule was then.
    const made = deps.wallet().sentToken(idempotencyKey)
    const sent =
      made ??
      (await deps.wallet().sendToken({
        ...{ idempotencyKey, cause, amountSats, debitAccount, lockTo: `02${owed.pubkey}` },
        ...(mintUrl === undefined ? {} : { mintUrl }),
        // Whoever failed pays the fees: where that is the node, what is redeemed is what was paid. A node that holds nothing but
        // this payment gives it back all the same, less what the mint takes.
        ...(causedByPayer ? { lessFee: true } : { coverReceiverFee: true, lessFeeIfShort: true }),
        retryFailed: true,
      }))
    if (sent.state === 'claimed') {
      await book.onClaimed(id)
      return
    }
    const at = clock.now()
    const sends = owed.sends + 1
    const nextAt = sends >= MAX_SENDS ? Number.MAX_SAFE_INTEGER : at + (RESEND_AFTER_MS[owed.sends] ?? DAY_MS)
    const rest = restEntry(owed, sent.amountSats, at)
    const booked = rest === undefined ? [] : [postEntry(rest)]
    failures.delete(id)
    await persist(deps, book.note({ id, sends, nextAt, at }), ...book.deliver(id, sent.token, sends), ...booked)
    deps.nudge()
  }

  async function attempt(id: string): Promise<void> {
    const owed = book.owed(id)
    if (owed === undefined || closing) return
    try {
      await refund(id, owed)
    } catch (error) {
      if (closing || isPylonError(error, 'shutting_down')) return
      // Where the node failed it stays owed until the node can cover what its mint takes.
      const isWorthless = isPylonError(error, 'amount_invalid') && error.details['worthless'] === true
      if (isWorthless && owed.causedByPayer) return await forgo(id, owed)
      logger.warn({ [`${owed.cause.type}_id`]: id, error: messageOf(error) }, 'a refund could not be sent yet')
      const at = clock.now()
      const before = failures.get(id) ?? 0
      failures.set(id, before + 1)
      const nextAt = at + Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** Math.min(before, 10))
      const told = before === 0 && owed.sends === 0 ? book.deferred(id) : []
      await persist(deps, book.note({ id, sends: owed.sends, nextAt, at }), ...told)
      if (told.length > 0) deps.nudge()
    }
  }

  /** The mint would take all of it from whoever redeems it. */
  async function forgo(id: string, owed: Owed): Promise<void> {
    const { idempotencyKey, cause, amountSats, debitAccount } = owed
    const amountMsats = satsToMsats(amountSats)
    const postings = [
      { account: debitAccount, amountMsats },
      { account: accountOf('node', 'income', 'rounding'), amountMsats: -amountMsats },
    ]
    const entry = postEntry({ id: refundForgone.of(idempotencyKey), cause, at: clock.now(), postings })
    await persist(deps, entry, ...book.forgo(id, `what was paid, ${amountSats} sats, is no more than the mint takes for giving it back`))
    deps.nudge()
  }

  /** One at a time for each id. */
  function once(id: string): Promise<void> {
    const existing = busy.get(id)
    if (existing !== undefined) return existing
    const work = attempt(id)
      .catch((error: unknown) => {
        if (!closing) logger.error({ id, error: messageOf(error) }, 'a refund failed; it is tried again')
      })
      .finally(() => busy.delete(id))
    busy.set(id, work)
    return work
  }

  return {
    async run() {
      if (!closing) await Promise.all(book.due(clock.now()).map((id) => once(id)))
    },
    wake: (id) => void once(id),
    async close() {
      closing = true
      await Promise.allSettled([...busy.values()])
    },
  }
}

/** What could not be given back because the mint took its fee from it: the fee was posted as our expense, and is the payer's. */
function restEntry(owed: Owed, sentSats: Sats, at: number): Entry | undefined {
  const rest = satsToMsats(owed.amountSats) - satsToMsats(sentSats)
  if (rest <= 0n) return undefined
  return {
    id: refundRest.of(owed.idempotencyKey),
    cause: owed.cause,
    at,
    postings: [
      { account: owed.debitAccount, amountMsats: rest },
      { account: accountOf('node', 'expense', 'fee'), amountMsats: -rest },
    ],
  }
}
