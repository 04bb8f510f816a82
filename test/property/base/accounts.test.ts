/** Names of accounts: taken apart they give what they were put together from, by code and by the database alike. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { type AccountClass, accountOf, accountOwner, agentOf, parseAccount, type WalletOwner } from '../../../src/base/accounts.ts'
import { postEntry } from '../../../src/store/money/ledger.ts'
import { Store } from '../../../src/store/store.ts'

const CLASSES: readonly AccountClass[] = ['wallet', 'held', 'income', 'deposit', 'expense', 'equity']
const hex = fc
  .array(fc.integer({ min: 0, max: 15 }), { minLength: 64, maxLength: 64 })
  .map((digits) => digits.map((d) => d.toString(16)).join(''))
const owner: fc.Arbitrary<WalletOwner> = fc.record({ kind: fc.constantFrom('node', 'customer', 'agent'), pubkey: hex })
/** As addresses of mints and names of jobs are: slashes and colons too. */
const detail = fc.oneof(
  fc.webUrl({ withQueryParameters: true }),
  fc.string({ minLength: 1 }).filter((text) => !/[\n\r\u2028\u2029\0]/.test(text) && text.isWellFormed()),
)

it('come apart into the parts that they are of', async () => {
  const store = Store.open(':memory:')
  let nth = 0
  await fc.assert(
    fc.asyncProperty(owner, fc.constantFrom(...CLASSES), detail, async (wallet, accountClass, text) => {
      const account = accountOf(accountOwner(wallet), accountClass, text)
      expect(parseAccount(account)).toEqual({ owner: accountOwner(wallet), class: accountClass, detail: text })
      expect(agentOf(accountOwner(wallet))).toBe(wallet.kind === 'agent' ? wallet.pubkey : undefined)
      const id = `entry ${++nth}`
      const postings = [
        { account, amountMsats: 1n },
        { account: 'node/equity/other end' as const, amountMsats: -1n },
      ]
      await store.write(postEntry({ id, cause: { type: 'owner', id }, at: 1, postings }))
      const parts = store.sql('SELECT owner, class, detail FROM postings WHERE entry_id = ? AND amount_msats = 1').get(id)
      expect(parts).toEqual({ owner: accountOwner(wallet), class: accountClass, detail: text })
    }),
    { numRuns: 100 },
  )
  const stray = store.sql('SELECT account FROM account_balances WHERE account <> owner || ? || class || ? || detail').all('/', '/')
  expect(stray).toEqual([])
  store.close()
})

it('of no owner, class or detail are none', () => {
  for (const name of ['', 'node', 'node/income', 'node/income/', 'mallory/income/job', 'agent:abc/income/job', 'node/savings/x'])
    expect(() => parseAccount(name)).toThrow(/no account/)
})
