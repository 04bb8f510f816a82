/** The invoices of this home for people: what became of each, and what the operator of a mint must know that keeps what was paid. */
import { sats } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import type { Output } from '../../control/client.ts'
import type { walletRoutes } from '../../control/contract/wallet.ts'
import type { Handlers } from '../../control/route.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { findAgent } from '../../store/agents/agents.ts'
import { walletOwners } from '../../store/money/held-value.ts'
import { listNwcInvoices, type NwcInvoiceRow } from '../../store/money/nwc-wallets.ts'
import { type ListedQuote, listQuotes } from '../../store/money/quotes.ts'
import type { Store } from '../../store/store.ts'
import type { ReadServices } from '../services.ts'

const DEFAULT_LIMIT = 50

export function walletReadHandlers({ store }: Pick<ReadServices, 'store'>): Pick<Handlers<typeof walletRoutes>, 'listInvoices'> {
  return {
    listInvoices: ({ wallet, state, limit }) => {
      const filter = {
        limit: limit ?? DEFAULT_LIMIT,
        ...(wallet === undefined ? {} : { ownerPubkey: pubkeyOf(store, wallet) }),
        ...(state === undefined ? {} : { states: [state] }),
      }
      const made = [...listQuotes(store, filter).map(ofMint), ...listNwcInvoices(store, filter).map(ofLightningWallet)]
      made.sort((a, b) => b.createdAt - a.createdAt)
      return { invoices: made.slice(0, filter.limit).map(({ view }) => view) }
    },
  }
}

/** @throws wallet_not_found */
export function pubkeyOf(store: Store, name: string): string {
  if (name === 'node' || name === 'customer') return walletOwners(store).find(({ kind }) => kind === name)?.pubkey ?? ''
  const agent = findAgent(store, name)
  if (agent === undefined)
    throw new PylonError('wallet_not_found', `There is no wallet ${name}: use node, customer or the name of an agent.`)
  return agent.pubkey
}

interface Listed {
  readonly createdAt: number
  readonly view: Output<typeof walletRoutes.listInvoices>['invoices'][number]
}

function ofMint(quote: ListedQuote): Listed {
  const nextAt = quote.nextCheckAt ?? (quote.state === 'paid' ? quote.nextTryAt : null)
  return {
    createdAt: quote.createdAt,
    view: {
      ...common(quote),
      ...{ quote_id: quote.quoteId, rail: 'mint', mint_url: quote.mintUrl, reason: whyNotIssued(quote) },
      next_check_at: nextAt === null ? null : rfc3339(nextAt),
      tell_operator: quote.state === 'paid' ? tellOperator(quote) : null,
    },
  }
}

function ofLightningWallet(invoice: NwcInvoiceRow): Listed {
  const { createdAt, paymentHash, walletId, nextCheckAt } = invoice
  return {
    createdAt,
    view: {
      ...common(invoice),
      ...{ quote_id: paymentHash, rail: `nwc:${walletId}`, mint_url: null, reason: null },
      next_check_at: nextCheckAt === null ? null : rfc3339(nextCheckAt),
      tell_operator: null,
    },
  }
}

const common = ({ owner, state, amountSats, paymentHash, cause, createdAt, expiresAt }: ListedQuote | NwcInvoiceRow) => ({
  wallet: owner.kind === 'agent' ? npubOf(owner.pubkey) : owner.kind,
  state,
  amount_sats: sats(amountSats),
  payment_hash: paymentHash,
  cause: { type: cause.type, id: cause.id },
  created_at: rfc3339(createdAt),
  expires_at: rfc3339(expiresAt),
})

const whyNotIssued = ({ state, reason, mintingError }: ListedQuote): string | null =>
  state === 'settled' ? null : (mintingError ?? reason)

/** What to write to who runs the mint. */
export function tellOperator(quote: ListedQuote): string {
  const { quoteId, amountSats, paymentHash, mintUrl } = quote
  const why = whyNotIssued(quote)
  return `${mintUrl}: the mint quote ${quoteId} over ${amountSats} sats (payment hash ${paymentHash}) is paid and its ecash is not issued${why === null ? '' : `: ${why}`}`
}
