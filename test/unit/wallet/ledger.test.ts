/** The ledger: balance, once only, sums, earnings and the audit. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Account, agentOwner } from '../../../src/base/accounts.ts'
import { all, defineCommand } from '../../../src/store/commands.ts'
import { earningsSummary } from '../../../src/store/money/earnings.ts'
import { accountBalance, auditLedger, ledgerHistory, postEntry } from '../../../src/store/money/ledger.ts'
import { putWalletOwner } from '../../../src/store/money/mints.ts'
import { insertProofs } from '../../../src/store/money/proofs.ts'
import type { Store } from '../../../src/store/store.ts'
import { balancesByPrefix } from '../../support/ledger.ts'
import { openStore } from '../../support/store.ts'

let dir: string
let store: Store

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'pylon-ledger-'))
  store = openStore(join(dir, 'pylon.db'))
})

afterEach(() => {
  store.close()
  rmSync(dir, { recursive: true, force: true })
})

const tamper = defineCommand('tamper', (sql, by: bigint) => {
  sql(`UPDATE postings SET amount_msats = amount_msats + ? WHERE account = 'node/income/job'`).run(by)
})

const AGENT = agentOwner('ab'.repeat(32))
const job = (id: string) => ({ type: 'job' as const, id })

describe('postEntry', () => {
  it('posts a balanced entry once', async () => {
    const entry = {
      id: 'job:1:settled',
      cause: job('1'),
      at: 1000,
      postings: [
        { account: 'node/deposit/job:1' as const, amountMsats: 5000n },
        { account: 'node/income/job' as const, amountMsats: -4500n },
        { account: 'node/income/rounding' as const, amountMsats: -500n },
      ],
    }
    expect(await store.write(postEntry(entry))).toBe(true)
    expect(await store.write(postEntry(entry))).toBe(false)
    expect(accountBalance(store, 'node/income/job')).toBe(-4500n)
    expect(balancesByPrefix(store, 'node/income/')).toEqual(
      new Map([
        ['node/income/job', -4500n],
        ['node/income/rounding', -500n],
      ]),
    )
    expect(ledgerHistory(store, { owner: 'node', limit: 5 })).toMatchObject([{ id: 'job:1:settled', at: 1000 }])
    expect(ledgerHistory(store, { owner: 'customer', limit: 5 })).toEqual([])
  })

  it('refuses an unbalanced set and undoes what was written with it', async () => {
    const good = postEntry({ id: 'a', cause: job('1'), at: 1, postings: [] })
    const bad = postEntry({ id: 'b', cause: job('1'), at: 1, postings: [{ account: 'node/income/job' as const, amountMsats: 1n }] })
    await expect(store.write(all(good, bad))).rejects.toThrow(/does not balance/)
    const lacking = postEntry({ id: 'c', cause: job('1'), at: 1, postings: [{ account: 'node/income/job' as const, amountMsats: -1n }] })
    await expect(store.write(lacking)).rejects.toThrow(/does not balance/)
    expect(ledgerHistory(store, { limit: 5 })).toEqual([])
  })

  it('adds up what several entries post to one account, down to nothing', async () => {
    const move = (id: string, amountMsats: bigint) => {
      const from = { account: 'node/deposit/job:1' as const, amountMsats: -amountMsats }
      return store.write(postEntry({ id, cause: job('1'), at: 1, postings: [{ account: 'node/income/job' as const, amountMsats }, from] }))
    }
    await move('a', 5n)
    await move('b', 7n)
    expect(accountBalance(store, 'node/income/job')).toBe(12n)
    await move('c', -12n)
    expect(accountBalance(store, 'node/income/job')).toBe(0n)
    expect(balancesByPrefix(store, 'node/')).toEqual(new Map())
  })

  it('refuses accounts that nobody owns', async () => {
    const postings = [
      { account: 'mallory/income/job' as Account, amountMsats: 1n },
      { account: 'node/income/job' as const, amountMsats: -1n },
    ]
    await expect(store.write(postEntry({ id: 'a', cause: job('1'), at: 1, postings }))).rejects.toThrow(/no account/)
  })
})

describe('earnings', () => {
  it('counts income of others by source, rounding as other, own purchases apart', async () => {
    const income = (id: string, account: Account, amountMsats: bigint, at: number) =>
      postEntry({
        id,
        cause: job(id),
        at,
        postings: [
          { account, amountMsats: -amountMsats },
          { account: 'node/equity/funding' as const, amountMsats },
        ],
      })
    const day = 86_400_000
    await store.write(
      all(
        income('a', 'node/income/job', 7000n, 10),
        income('b', 'node/income/rounding', 300n, 10),
        income('c', `${AGENT}/income/zap`, 2000n, day + 1),
        income('d', 'node/income/internal', 9000n, 10),
        income('e', 'node/income/tip', 1n, day + 2),
      ),
    )
    const summary = earningsSummary(store, { limit: 2 })
    expect(summary).toMatchObject({
      totalMsats: 9301n,
      internalMsats: 9000n,
      jobsCompleted: 0,
      bySource: { job: 7000n, zap: 2000n, lease: 0n, tip: 1n, other: 300n },
      byDay: [
        { day: '1970-01-01', amountMsats: 7300n },
        { day: '1970-01-02', amountMsats: 2001n },
      ],
    })
    expect(summary.recent.map((row) => [row.id, row.source])).toEqual([
      ['e#tip', 'tip'],
      ['c#zap', 'zap'],
    ])
    expect(earningsSummary(store, { limit: 9, sinceMs: day }).totalMsats).toBe(2001n)
  })
})

describe('auditLedger', () => {
  it('finds value in the ledger that no proof stands for', async () => {
    expect(auditLedger(store)).toEqual({ ok: true, problems: [] })
    const postings = [
      { account: 'node/wallet/https://mint.example' as const, amountMsats: 1000n },
      { account: 'node/equity/funding' as const, amountMsats: -1000n },
    ]
    await store.write(postEntry({ id: 'a', cause: { type: 'owner', id: 'x' }, at: 1, postings }))
    expect(auditLedger(store)).toMatchObject({ ok: false, problems: [expect.stringContaining('1000 msats')] })
  })

  it('finds proofs that the ledger does not know', async () => {
    const [pubkey, mintUrl] = ['ab'.repeat(32), 'https://mint.example']
    await store.write(putWalletOwner({ pubkey, kind: 'node', accountOwner: 'node' }))
    const proof = { y: 'y', secret: 's', keysetId: 'k', amountSats: 2n, c: 'c', dleq: null, mintUrl, ownerPubkey: pubkey }
    await store.write(insertProofs({ proofs: [{ ...proof, state: 'unspent', operationId: null }], at: 1 }))
    expect(auditLedger(store)).toMatchObject({ ok: false, problems: [expect.stringContaining('worth 2000 msats')] })
  })

  it.each([-1n, 1n])('finds an entry that somebody changed by %s', async (by) => {
    const postings = [
      { account: 'node/deposit/job:1' as const, amountMsats: 5n },
      { account: 'node/income/job' as const, amountMsats: -5n },
    ]
    await store.write(postEntry({ id: 'a', cause: job('1'), at: 1, postings }))
    await store.write(tamper(by))
    expect(auditLedger(store).problems).toEqual([
      expect.stringContaining('entry a is off balance'),
      expect.stringContaining('account node/income/job is not the sum'),
      expect.stringContaining('sums of income/job on 1970-01-01'),
    ])
  })
})
