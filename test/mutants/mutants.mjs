// Mistakes in the code that moves money, each of which the tests named with it must notice. An anchor is a text that stands in all
// of src exactly once, so it may move from file to file; where a line is rewritten, rewrite its mistake as well.

const LEDGER = ['test/unit/wallet/ledger.test.ts']
const BUDGETS = ['test/unit/store/money/budgets.test.ts']
const MACHINE = ['test/unit/wallet/operations/machine.test.ts']
const OPERATIONS = ['test/unit/store/money/operations.test.ts']
const PROOFS = ['test/unit/store/money/proofs.test.ts']
const COINS = ['test/property/wallet-coins.test.ts', 'test/unit/wallet/amounts.test.ts']
const LOCKS = ['test/unit/wallet/ecash/locks.test.ts']
const CHECKS = ['test/unit/wallet/mint/quote-checks.test.ts']
const JOBS = ['test/unit/provider/engine.test.ts', 'test/unit/provider/refunds.test.ts', 'test/unit/provider/admission.test.ts']
const SALES = ['test/unit/provider/sale.test.ts', 'test/property/provider/sale.test.ts']
const NWC = ['test/unit/wallet/nwc/rail.test.ts']
const NWC_SERVICE = ['test/contract/nwc/alby-client.test.ts', 'test/contract/nwc/replay.test.ts']
const LEASES = ['test/unit/machines/leases.test.ts', 'test/property/machines/leases.test.ts']
const CUSTOMER = ['test/unit/customer/customer.test.ts', 'test/unit/customer/claims.test.ts']

/** @type {{ name: string, anchor: string, replacement: string, tests: string[] }[]} */
export const MUTANTS = [
  // Nostr Wallet Connect
  {
    name: 'what a wallet calls failed has failed, though it may be a timeout',
    anchor: "return SURE.has(error.code) ? { do: 'fail', reason } : { do: 'look', reason }",
    replacement: "return { do: 'fail', reason }",
    tests: NWC,
  },
  {
    name: 'a payment that the wallet does not know yet has failed',
    anchor: 'return isOver\n      ? {',
    replacement: 'return isOver || true\n      ? {',
    tests: NWC,
  },
  {
    name: 'a payment from the Lightning wallet takes no fee',
    anchor: 'amountMsats: -(amountMsats + feeMsats) }',
    replacement: 'amountMsats: -amountMsats - 0n * feeMsats }',
    tests: NWC,
  },
  {
    name: 'a mint pays what the Lightning wallet pays',
    anchor: 'const atMint = sql(',
    replacement: 'const atMint = undefined && sql(',
    tests: NWC,
  },
  {
    name: 'a request over NWC is done each time that it comes',
    anchor: 'if (known !== undefined) return await this.#answerAgain(known)',
    replacement: 'if (known !== undefined) this.#rates.clear()',
    tests: NWC_SERVICE,
  },
  {
    name: 'the budget of a connection forgets what is held',
    anchor: "spend_state IN ('held', 'spent') AND created_at >= ?`",
    replacement: "spend_state IN ('spent') AND created_at >= ?`",
    tests: NWC_SERVICE,
  },
  // The ledger
  {
    name: 'an entry with a debit too much is posted',
    anchor: 'if (total !== 0n) throw',
    replacement: 'if (total < 0n) throw',
    tests: LEDGER,
  },
  {
    name: 'an entry with a credit too much is posted',
    anchor: 'if (total !== 0n) throw',
    replacement: 'if (total > 0n) throw',
    tests: LEDGER,
  },
  {
    name: 'a second entry of one id counts',
    anchor: "if (!entries.insert(sql, entry, 'ON CONFLICT (id) DO NOTHING')) return false",
    replacement: "entries.insert(sql, entry, 'ON CONFLICT (id) DO NOTHING')",
    tests: LEDGER,
  },
  {
    name: 'a balance is its last posting',
    anchor: 'amount_msats = amount_msats + excluded.amount_msats`,\n    ).run(account, amountMsats)\n    // Accounts of one',
    replacement: 'amount_msats = excluded.amount_msats`,\n    ).run(account, amountMsats)\n    // Accounts of one',
    tests: LEDGER,
  },
  {
    name: 'the audit sees no entry that lacks',
    anchor: 'GROUP BY entry_id HAVING total <> 0',
    replacement: 'GROUP BY entry_id HAVING total > 0',
    tests: LEDGER,
  },
  {
    name: 'the audit sees no proofs that lack',
    anchor: 'if (books !== held) problems',
    replacement: 'if (books < held) problems',
    tests: LEDGER,
  },
  {
    name: 'the audit sees no proofs too many',
    anchor: 'if (books !== held) problems',
    replacement: 'if (books > held) problems',
    tests: LEDGER,
  },

  // Budgets
  {
    name: 'a budget ends one sat early',
    anchor: 'if (usedSats + p.amountSats <= window.limitSats) continue',
    replacement: 'if (usedSats + p.amountSats < window.limitSats) continue',
    tests: BUDGETS,
  },
  {
    name: 'a budget lets one spend pass it',
    anchor: 'if (usedSats + p.amountSats <= window.limitSats) continue',
    replacement: 'if (usedSats <= window.limitSats) continue',
    tests: BUDGETS,
  },
  {
    name: 'what a payment cost before is not of its limit',
    anchor: "window.counts === 'this' ? p.besidesSats",
    replacement: "window.counts === 'this' ? 0n",
    tests: BUDGETS,
  },
  {
    name: 'what was spent is not of the budget',
    anchor: "AS total FROM spend_holds WHERE state <> 'released'",
    replacement: "AS total FROM spend_holds WHERE state = 'held'",
    tests: BUDGETS,
  },
  {
    name: 'a released hold is spent after all',
    anchor: "amount_sats = ? WHERE operation_id = ? AND state = 'held'",
    replacement: 'amount_sats = ? WHERE operation_id = ?',
    tests: BUDGETS,
  },

  // Operations and proofs
  {
    name: 'one invoice is paid twice',
    anchor: 'if (other !== undefined) throw paidElsewhere',
    replacement: 'if (other === null) throw paidElsewhere',
    tests: OPERATIONS,
  },
  {
    name: 'an operation moves on from any state',
    anchor: 'from === undefined || !canStep(OPERATION_STEPS, from, p.to)',
    replacement: 'from === undefined',
    tests: OPERATIONS,
  },
  {
    name: 'the key of a running operation is freed',
    anchor: "'#failed:' || id WHERE id = ? AND state = 'failed'",
    replacement: "'#failed:' || id WHERE id = ?",
    tests: OPERATIONS,
  },
  {
    name: 'a token is claimed and taken back',
    anchor: "{ id: p.id, tokenState: 'pending' }",
    replacement: '{ id: p.id }',
    tests: OPERATIONS,
  },
  {
    name: 'a failed payment of ours makes income internal',
    anchor: "payment_hash = ? AND state <> 'failed' AND created_at >= ? LIMIT 1",
    replacement: 'payment_hash = ? AND created_at >= ? LIMIT 1',
    tests: OPERATIONS,
  },
  {
    name: 'what is unknown is not at risk',
    anchor: "IS_OPEN = `state IN ('prepared', 'submitted', 'unknown')`",
    replacement: "IS_OPEN = `state IN ('prepared', 'submitted')`",
    tests: OPERATIONS,
  },
  {
    name: 'a proof is reserved twice',
    anchor: '{ y, state: p.from }',
    replacement: '{ y }',
    tests: PROOFS,
  },
  {
    name: 'what is reserved is not held',
    anchor: "mint_url = ? AND state IN ('unspent', 'reserved')`",
    replacement: "mint_url = ? AND state IN ('unspent')`",
    tests: PROOFS,
  },

  // What evidence about a request allows
  {
    name: 'a swap that the mint is at is complete',
    anchor: "return { do: 'wait', reason: 'the mint is still at it' }",
    replacement: "return { do: 'complete' }",
    tests: MACHINE,
  },
  {
    name: 'a swap signed in part is a failure',
    anchor: "seen once they are unblinded.\n  if (restored !== 'none')",
    replacement: "seen once they are unblinded.\n  if (restored === 'all')",
    tests: MACHINE,
  },
  {
    name: 'a quote that was issued for others is minted',
    anchor: "return { do: 'fail', reason: 'the quote was issued for other outputs' }",
    replacement: "return { do: 'complete' }",
    tests: MACHINE,
  },
  {
    name: 'a payment on its way is sent again',
    anchor: "if (quote === 'PENDING' || inputs === 'pending') return",
    replacement: "if (quote === 'PENDING') return",
    tests: MACHINE,
  },
  {
    name: 'a payment that failed is sent again',
    anchor: "quote === 'UNPAID' && acknowledged === true",
    replacement: "quote === 'UNPAID' && acknowledged === false",
    tests: MACHINE,
  },
  {
    name: 'a refused payment whose inputs are gone is failed',
    anchor: "if (refusal !== undefined && (inputs === 'unspent' || quote === 'UNPAID'))",
    replacement: 'if (refusal !== undefined)',
    tests: MACHINE,
  },
  {
    name: 'spent inputs of an unknown payment are a failure',
    anchor: "return { do: 'wait', reason: 'the inputs are spent but the mint does not say that it paid' }",
    replacement: "return { do: 'fail', reason: '' }",
    tests: MACHINE,
  },
  {
    name: 'what is completed fails later',
    anchor: '  completed: [],\n  failed: [],',
    replacement: "  completed: ['failed'],\n  failed: [],",
    tests: MACHINE,
  },

  // Coins and locks
  {
    name: 'the fee of inputs is rounded down',
    anchor: 'Math.floor((ppk + 999) / 1000)',
    replacement: 'Math.floor(ppk / 1000)',
    tests: COINS,
  },
  { name: 'too few coins are chosen', anchor: 'if (chosen.net < target) return undefined', replacement: '', tests: COINS },
  {
    name: 'an exact choice is not',
    anchor: 'return rest === 0n && chosen.length > 0 ? chosen',
    replacement: 'return chosen.length > 0 ? chosen',
    tests: COINS,
  },
  {
    name: 'blanks are too few for the change',
    anchor: 'Math.max(1, overpaid.toString(2).length)',
    replacement: 'Math.max(1, overpaid.toString(2).length - 1)',
    tests: COINS,
  },
  {
    name: 'the fee of the receiver is not covered',
    anchor: 'if (total - fee >= net) return total',
    replacement: 'if (total >= net) return total',
    tests: COINS,
  },
  { name: 'one of two signatures opens a lock', anchor: 'mine.length >= nSigs ?', replacement: 'mine.length > 0 ?', tests: LOCKS },
  {
    name: 'a lock is for all before its time',
    anchor: 'if (isOver && refundKeys.length === 0)',
    replacement: 'if (refundKeys.length === 0)',
    tests: LOCKS,
  },
  {
    name: 'a lock is over a second late',
    anchor: 'locktime !== undefined && locktime <= nowS',
    replacement: 'locktime !== undefined && locktime < nowS',
    tests: LOCKS,
  },
  { name: 'a lock is refunded before its time', anchor: 'if (isOver && canRefund)', replacement: 'if (canRefund)', tests: LOCKS },

  // Invoices
  {
    name: 'an invoice on its way is closed when it ran out',
    anchor: '(answered ? SETTLING_MS : SILENT_GRACE_MS)',
    replacement: '(answered ? 0 : SILENT_GRACE_MS)',
    tests: CHECKS,
  },
  {
    name: 'a silent mint keeps what it was paid',
    anchor: '(answered ? SETTLING_MS : SILENT_GRACE_MS)',
    replacement: 'SETTLING_MS',
    tests: CHECKS,
  },

  // Jobs
  { name: 'a token below the price pays', anchor: 'if (token.netSats < need)', replacement: 'if (token.netSats + 1n < need)', tests: JOBS },
  {
    name: 'a token of anybody is taken in public',
    anchor: "token.lock === 'none' && !token.isPrivate",
    replacement: "token.lock === 'none' && token.isPrivate",
    tests: JOBS,
  },
  {
    name: 'a payment below the price pays',
    anchor: "deposit.heldMsats < sale.priceMsats ? { type: 'back', why: 'little' }",
    replacement: "deposit.heldMsats < 0n ? { type: 'back', why: 'little' }",
    tests: JOBS,
  },
  {
    name: 'a job that is over runs when it is paid',
    anchor: 'if (sale.wantedUntil <= nowMs)',
    replacement: 'if (sale.wantedUntil <= 0)',
    tests: SALES,
  },
  {
    name: 'what is paid for a cancelled job is kept',
    anchor: "return { type: 'back', why: 'withdrawn' }",
    replacement: "return { type: 'nothing' }",
    tests: JOBS,
  },
  {
    name: 'what went back goes back again with what is paid later',
    anchor: 'const owed = sale.paidMsats - (deposit.paidMsats - deposit.heldMsats)',
    replacement: 'const owed = sale.paidMsats as bigint',
    tests: [...JOBS, ...LEASES],
  },
  {
    name: 'a refund is sent again though it is spent',
    anchor: "if (sent.state === 'claimed') return await",
    replacement: "if (sent.state === 'reclaimed') return await",
    tests: JOBS,
  },
  {
    name: 'a failure of the node costs the payer the fee',
    anchor: 'sale.isPayersDoing ? { lessFee: true }',
    replacement: '!sale.isPayersDoing ? { lessFee: true }',
    tests: JOBS,
  },
  {
    name: 'rounding is a tip',
    anchor: "const tip = over === 'tip' ? beyond : 0n",
    replacement: 'const tip = kept - earned',
    tests: JOBS,
  },
  {
    name: 'our own money is earned',
    anchor: "accountOf('node', 'income', 'internal'), amountMsats: -kept",
    replacement: "accountOf('node', 'income', income), amountMsats: -kept",
    tests: JOBS,
  },

  // Leases
  {
    name: 'a lease that the node failed costs its price',
    anchor: "if (by !== 'node') return lease.priceMsats",
    replacement: 'return lease.priceMsats',
    tests: LEASES,
  },
  {
    name: 'a lease that its tenant left costs its time',
    anchor: "if (by !== 'node') return lease.priceMsats",
    replacement: '',
    tests: LEASES,
  },
  {
    name: 'a lease that never began costs its price',
    anchor: "if (lease.state !== 'active' || lease.time === null) return 0n",
    replacement: 'if (lease.time === null) return lease.priceMsats',
    tests: LEASES,
  },
  {
    name: 'what was paid too much for a lease is kept',
    anchor: "over === 'back' ? satsToMsats(msatsToSatsDown(beyond))",
    replacement: "over !== 'back' ? satsToMsats(msatsToSatsDown(beyond))",
    tests: LEASES,
  },

  // Purchases
  {
    name: 'an unknown payment makes way for another offer',
    anchor: "if (payment?.state === 'unknown') return\n",
    replacement: '',
    tests: CUSTOMER,
  },
  {
    name: 'a yes to one offer pays the next one too',
    anchor: "if (orderOf(this.#log.row(id)).pay === 'ask') return true",
    replacement: '',
    tests: CUSTOMER,
  },
  {
    name: 'a job is paid after its end',
    anchor: '!mayBePaid(row) || clock.now() >= row.deadlineAt',
    replacement: '!mayBePaid(row)',
    tests: CUSTOMER,
  },
]
