/** The movements of one wallet for people: what each ledger entry changed of what it holds, and against which account. */
import { type AccountOwner, parseAccount } from '../../base/accounts.ts'
import { msats } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { type HistoryRow, ledgerHistory, type Posting } from '../../store/money/ledger.ts'
import type { Store } from '../../store/store.ts'
import { causeWords } from './cause-words.ts'

/** What the wallet holds; all else is where value came from or went. */
function isHolding({ account }: Posting): boolean {
  const { class: accountClass } = parseAccount(account)
  return accountClass === 'wallet' || accountClass === 'held'
}

/** Newest first. Entries that leave the wallet with what it held (reservations, a deposit that became income) are left out. */
export function historyView(store: Store, owner: AccountOwner, limit: number) {
  for (let count = limit * 3; ; count *= 4) {
    const rows = ledgerHistory(store, { owner, limit: count })
    const entries = rows.map(entryView).filter((entry) => entry.amount_msats !== 0n)
    if (entries.length >= limit || rows.length < count) return entries.slice(0, limit)
  }
}

function entryView(row: HistoryRow) {
  const holding = row.postings.filter(isHolding)
  const others = row.postings.filter((posting) => !isHolding(posting))
  return {
    id: row.id,
    at: rfc3339(row.at),
    cause: { type: row.cause.type, id: row.cause.id },
    words: causeWords(row.cause),
    memo: row.memo,
    amount_msats: msats(holding.reduce((sum, posting) => sum + posting.amountMsats, 0n)),
    counter_accounts: others.map(({ account }) => {
      const { class: accountClass, detail } = parseAccount(account)
      return `${accountClass}/${detail}`
    }),
  }
}
