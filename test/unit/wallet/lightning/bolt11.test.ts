/** Invoices of the specification's own examples, and broken ones. */
import { describe, expect, it } from 'vitest'
import { decodeInvoice } from '../../../../src/wallet/lightning/bolt11.ts'

// BOLT-11, examples: 2500 micro-bitcoin for a cup of coffee, within a minute; any amount as a donation.
const COFFEE =
  'lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpuaztrnwngzn3kdzw5hydlzf03qdgm2hdq27cqv3agm2awhz5se903vruatfhq77w3ls4evs3ch9zw97j25emudupq63nyw24cg27h2rspfj9srp'
const DONATION =
  'lnbc1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq8rkx3yf5tcsyz3d73gafnh3cax9rn449d9p5uxz9ezhhypd0elx87sjle52x86fux2ypatgddc6k63n7erqz25le42c4u4ecky03ylcqca784w'

describe('decodeInvoice', () => {
  it('reads amount, hash and dates', () => {
    expect(decodeInvoice(COFFEE)).toMatchObject({
      network: 'bc',
      amountMsats: 250_000_000n,
      paymentHash: '0001020304050607080900010203040506070809000102030405060708090102',
      description: '1 cup coffee',
      createdAt: 1_496_314_658_000,
      expiresAt: 1_496_314_718_000,
    })
    expect(decodeInvoice(` lightning:${COFFEE.toUpperCase()}`).request).toBe(COFFEE)
  })

  it('knows an invoice without an amount, and the hour that is meant without an expiry', () => {
    const donation = decodeInvoice(DONATION)
    expect(donation.amountMsats).toBeUndefined()
    expect(donation.expiresAt - donation.createdAt).toBe(3_600_000)
  })

  it.each([
    ['', 'empty'],
    ['lnbc', 'cut'],
    [`${COFFEE}q`, 'a wrong checksum'],
    [COFFEE.replace('2500u', '2600u'), 'another amount'],
    ['lnurl1abc', 'an lnurl'],
    [`lnbc${'q'.repeat(9000)}`, 'huge'],
  ])('refuses %s (%s)', (text) => {
    expect(() => decodeInvoice(text)).toThrow(expect.objectContaining({ code: 'invoice_invalid' }))
  })
})
