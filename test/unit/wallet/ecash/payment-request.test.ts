/** Payment requests as the NUTs' own vectors have them, and as strangers may write them. */
import { PaymentRequest, PaymentRequestTransportType } from '@cashu/cashu-ts'
import { describe, expect, it } from 'vitest'
import { encodePaymentRequest, parsePaymentRequest, readPayload, writePayload } from '../../../../src/wallet/ecash/payment-request.ts'

/** NUT-18. */
const NOSTR =
  'creqApWF0gaNhdGVub3N0cmFheKlucHJvZmlsZTFxeTI4d3VtbjhnaGo3dW45ZDNzaGp0bnl2OWtoMnVld2Q5aHN6OW1od2RlbjV0ZTB3ZmprY2N0ZTljdXJ4dmVuOWVlaHFjdHJ2NWhzenJ0aHdkZW41dGUwZGVoaHh0bnZkYWtxcWd5ZGFxeTdjdXJrNDM5eWtwdGt5c3Y3dWRoZGh1NjhzdWNtMjk1YWtxZWZkZWhrZjBkNDk1Y3d1bmw1YWeBgmFuYjE3YWloYjdhOTAxNzZhYQphdWNzYXRhbYF4Imh0dHBzOi8vbm9mZWVzLnRlc3RudXQuY2FzaHUuc3BhY2U='
const POST =
  'creqApWF0gaNhdGRwb3N0YWF4H2h0dHBzOi8vYXBpLmV4YW1wbGUuY29tL3JlY2VpdmVhZ/dhaWhhMmMxMmY0NWFhGDJhdWNzYXRhbYF4GWh0dHBzOi8vY2FzaHUuZXhhbXBsZS5jb20='
const TIMEOUT_LOCK =
  'creqApWFpaGM5ZTQ1ZDJhYWEZAfRhdWNzYXRhbYF4GGh0dHBzOi8vbWludC5leGFtcGxlLmNvbWVudXQxMKNha2RQMlBLYWR4QjAyYzNiNWJiMjdlMzYxNDU3YzkyZDkzZDc4ZGQ3M2QzZDUzNzMyMTEwYjJjZmU4YjUwZmJjMGFiYzYxNWU5YzMzMWF0gYJndGltZW91dGQzNjAw'
const MINIMAL = 'creqAo2FpaDdmNGEyYjM5YXVjc2F0YW2BeBhodHRwczovL21pbnQuZXhhbXBsZS5jb20='
/** NUT-26. */
const BECH32 =
  'CREQB1QYQQWER9D4HNZV3NQGQQSQQQQQQQQQQRAQPSQQGQQSQQZQG9QQVXSAR5WPEN5TE0D45KUAPWV4UXZMTSD3JJUCM0D5RQQRJRDANXVET9YPCXZ7TDV4H8GXHR3TQ'
const LOCK = `02${'c3'.repeat(32)}`

describe('a request', () => {
  it.each([
    ['creqA', NOSTR],
    ['cashu: in front', `cashu:${NOSTR}`],
    ['another case of the prefix', `CREQA${NOSTR.slice(5)}`],
  ])('by letter is read (%s)', (_, text) => {
    expect(parsePaymentRequest(text)).toMatchObject({
      ...{ id: 'b7a90176', amountSats: 10n, mints: ['https://nofees.testnut.cashu.space'], singleUse: false, lockTo: undefined },
      transports: [{ type: 'nostr', pubkey: expect.stringMatching(/^[0-9a-f]{64}$/), relays: expect.arrayContaining(['wss://nos.lol']) }],
    })
  })

  it('by POST, by hand and in bech32 is read', () => {
    expect(parsePaymentRequest(POST)).toMatchObject({
      amountSats: 50n,
      transports: [{ type: 'post', url: 'https://api.example.com/receive' }],
    })
    expect(parsePaymentRequest(MINIMAL)).toMatchObject({ id: '7f4a2b39', amountSats: undefined, transports: [] })
    const coffee = { id: 'demo123', amountSats: 1000n, mints: ['https://mint.example.com'], description: 'Coffee payment', singleUse: true }
    expect(parsePaymentRequest(BECH32)).toMatchObject(coffee)
    expect(parsePaymentRequest(BECH32.toLowerCase())).toMatchObject(coffee)
  })

  it('comes back from what was made of it, in both forms', () => {
    const made = {
      ...{ id: 'f00', amountSats: 21n, mints: ['https://mint.example'], description: 'tea', singleUse: true },
      transports: [{ type: 'nostr' as const, pubkey: 'ab'.repeat(32), relays: ['wss://relay.example'] }],
    }
    const { creqA, creqB } = encodePaymentRequest(made)
    expect(creqA).toMatch(/^creqA/)
    expect(creqB).toMatch(/^CREQB1/)
    for (const text of [creqA, creqB]) expect(parsePaymentRequest(text)).toEqual({ ...made, text, lockTo: undefined })
  })

  it('may want a lock to one key, and nothing that the token would not have', () => {
    const locked = (tags: string[][], kind = 'P2PK', data = LOCK) =>
      new PaymentRequest([], 'x', 5, 'sat', ['https://mint.example'], undefined, false, { kind, data, tags }).toEncodedCreqA()
    expect(parsePaymentRequest(locked([]))).toMatchObject({ lockTo: LOCK })
    expect(parsePaymentRequest(locked([['sigflag', 'SIG_INPUTS']]))).toMatchObject({ lockTo: LOCK })
    const refused = [locked([['locktime', '99']]), locked([], 'HTLC'), locked([], 'P2PK', 'ff'), TIMEOUT_LOCK]
    for (const text of refused) expect(() => parsePaymentRequest(text)).toThrow(expect.objectContaining({ code: 'destination_invalid' }))
  })

  it.each([
    ['damaged', 'creqAzzzz'],
    ['nested without end', `creqA${'gYGB'.repeat(2000)}`],
    ['too long', `creqA${'A'.repeat(9000)}`],
    ['damaged bech32', `${BECH32.slice(0, -1)}P`],
    ['in another unit', new PaymentRequest([], 'x', 5, 'usd', ['https://mint.example']).toEncodedCreqA()],
    ['of mints that are none', new PaymentRequest([], 'x', 5, 'sat', ['file:///etc/passwd']).toEncodedCreqA()],
    ['for nothing', new PaymentRequest([], 'x', 0, 'sat', []).toEncodedCreqA()],
    [
      'with another transport only',
      new PaymentRequest([{ type: 'pigeon' as PaymentRequestTransportType, target: 'x' }], 'x', 5, 'sat').toEncodedCreqA(),
    ],
    [
      'to a POST that is no URL',
      new PaymentRequest([{ type: PaymentRequestTransportType.POST, target: 'ftp://x' }], 'x', 5, 'sat').toEncodedCreqA(),
    ],
  ])('that is %s is refused', (_, text) => {
    expect(() => parsePaymentRequest(text)).toThrow(expect.objectContaining({ code: 'destination_invalid' }))
  })
})

describe('a payload', () => {
  const proof = { id: '00'.repeat(8), amount: 4, secret: 'aa', C: `02${'11'.repeat(32)}` }
  const payload = (change: object = {}) =>
    JSON.stringify({ id: 'f00', mint: 'https://Mint.example/', unit: 'sat', proofs: [proof], ...change })

  it('becomes one token, and a written one is read again', () => {
    expect(readPayload(payload({ memo: 'hi' }))).toMatchObject({
      id: 'f00',
      memo: 'hi',
      mintUrl: 'https://mint.example',
      faceSats: 4n,
      token: expect.stringMatching(/^cashuB/),
    })
    const written = writePayload({ id: 'f00', mintUrl: 'https://mint.example', proofs: [proof] })
    expect(readPayload(written)).toMatchObject({ id: 'f00', secrets: ['aa'] })
  })

  it.each([
    ['no JSON', 'hello "proofs"'],
    ['without an id', payload({ id: undefined })],
    ['without proofs', payload({ proofs: [] })],
    ['with too many proofs', payload({ proofs: Array.from({ length: 201 }, (_, i) => ({ ...proof, secret: `s${i}` })) })],
    ['over an amount that is none', payload({ proofs: [{ ...proof, amount: -4 }] })],
    ['with a point that is none', payload({ proofs: [{ ...proof, C: 'zz' }] })],
    ['of 5 MB', `{"proofs":"${'x'.repeat(5_000_000)}"}`],
    ['of a mint that is none', payload({ mint: 'file:///x' })],
  ])('that is %s is none', (_, text) => {
    expect(readPayload(text)).toBeUndefined()
  })
})
