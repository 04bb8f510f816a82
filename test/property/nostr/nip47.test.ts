/** NIP-47: what we build we read back, and as others build it; what strangers send gives a value or a typed error. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isPylonError, PylonError } from '../../../src/base/errors.ts'
import { expirationOf } from '../../../src/nostr/nips/nip40.ts'
import {
  buildInfo,
  buildNotifications,
  buildNwcRequest,
  buildNwcResponse,
  encryptionOf,
  formatNwcUri,
  NWC_METHODS,
  openNotification,
  openNwcRequest,
  openNwcResponse,
  parseInfo,
  parseNwcUri,
  parseTransaction,
} from '../../../src/nostr/nips/nip47.ts'
import { tryRelayUrl } from '../../../src/nostr/relay/relay-url.ts'
import { testSigner } from '../../support/test-signer.ts'

const [client, wallet] = [testSigner(1), testSigner(2)]
const NOW_S = 1_750_000_000
const hex64 = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes).toString('hex'))
const relay = fc
  .webAuthority({ withPort: true })
  .map((host) => tryRelayUrl(`wss://${host}/v1`))
  .filter((url) => url !== undefined)
const encryption = fc.constantFrom('nip44_v2' as const, 'nip04' as const)
const params = fc.dictionary(fc.string({ minLength: 1, maxLength: 20 }), fc.oneof(fc.string(), fc.integer(), fc.boolean()), { maxKeys: 5 })

describe('a connection string', () => {
  it('is read back as it was written', () => {
    const uri = fc.record(
      { walletPubkey: hex64, relays: fc.uniqueArray(relay, { minLength: 1, maxLength: 5 }), secret: hex64, lud16: fc.emailAddress() },
      { requiredKeys: ['walletPubkey', 'relays', 'secret'] },
    )
    fc.assert(fc.property(uri, (one) => void expect(parseNwcUri(formatNwcUri(one))).toEqual(one)))
  })

  it('is read as the example of NIP-47, and in the forms of old wallets', () => {
    const [pubkey, secret] = ['b8'.repeat(32), '71'.repeat(32)]
    const query = `?relay=wss%3A%2F%2Frelay.damus.io&secret=${secret}`
    for (const start of ['nostr+walletconnect://', 'nostr+walletconnect:', 'nostrwalletconnect://', 'NOSTR+WALLETCONNECT://']) {
      expect(parseNwcUri(`${start}${pubkey}${query}`)).toEqual({ walletPubkey: pubkey, relays: ['wss://relay.damus.io'], secret })
    }
  })

  it('that is none is refused without a word of what was in it', () => {
    const secret = '71'.repeat(32)
    const bad = [
      '',
      `nostr+walletconnect://${'b8'.repeat(31)}?relay=wss://a.test&secret=${secret}`,
      `nostr+walletconnect://${'b8'.repeat(32)}?secret=${secret}`,
      `nostr+walletconnect://${'b8'.repeat(32)}?relay=https://a.test&secret=${secret}`,
      `nostr+walletconnect://${'b8'.repeat(32)}?relay=wss://a.test&secret=${secret.slice(1)}`,
      `https://a.test/?secret=${secret}`,
    ]
    for (const text of bad) {
      const error = failure(() => parseNwcUri(text))
      expect(isPylonError(error, 'nwc_invalid')).toBe(true)
      expect(JSON.stringify((error as PylonError).toJSON())).not.toContain('7171')
    }
    fc.assert(fc.property(fc.string(), (text) => void expect(failure(() => parseNwcUri(text))).toBeInstanceOf(PylonError)))
  })
})

describe('what a wallet says of itself', () => {
  it('is read back', () => {
    const methods = fc.uniqueArray(fc.constantFrom(...NWC_METHODS), { minLength: 1 })
    fc.assert(
      fc.property(methods, (names) => {
        const info = parseInfo(buildInfo({ methods: names, createdAtS: NOW_S }))
        expect(info).toEqual({
          methods: [...names, 'notifications'],
          encryptions: ['nip44_v2', 'nip04'],
          notifications: ['payment_received', 'payment_sent'],
        })
      }),
    )
  })

  it('names its encryption by a tag, by an older one, or knows NIP-04 alone', () => {
    const info = (...tags: string[][]) => parseInfo({ tags, content: 'pay_invoice,get_balance' })
    expect(info()).toEqual({ methods: ['pay_invoice', 'get_balance'], encryptions: ['nip04'], notifications: [] })
    expect(info(['v', '0.0 1.0']).encryptions).toEqual(['nip44_v2', 'nip04'])
    expect(info(['encryption', 'nip44_v2 nip99']).encryptions).toEqual(['nip44_v2'])
  })
})

describe('requests, responses and notifications', () => {
  it('are read back in either encryption', () => {
    fc.assert(
      fc.property(encryption, fc.constantFrom(...NWC_METHODS), params, (scheme, method, fields) => {
        const options = { encryption: scheme, createdAtS: NOW_S, expiresAtS: NOW_S + 60 }
        const request = client.sign(buildNwcRequest(client, wallet.pubkey, { method, params: fields }, options))
        expect(encryptionOf(request)).toBe(scheme)
        expect(expirationOf(request)).toBe(NOW_S + 60)
        expect(openNwcRequest(wallet, request, scheme)).toEqual({ method, params: fields })
        const to = { clientPubkey: client.pubkey, requestId: request.id, encryption: scheme }
        const done = wallet.sign(buildNwcResponse(wallet, to, method, { result: fields }, NOW_S))
        expect(openNwcResponse(client, done)).toEqual({ method, result: fields, error: undefined })
        const refused = wallet.sign(buildNwcResponse(wallet, to, method, { error: { code: 'QUOTA_EXCEEDED', message: 'no' } }, NOW_S))
        expect(openNwcResponse(client, refused)).toEqual({ method, result: undefined, error: { code: 'QUOTA_EXCEEDED', message: 'no' } })
        for (const template of buildNotifications(wallet, client.pubkey, 'payment_sent', fields, NOW_S)) {
          expect(openNotification(client, wallet.sign(template))).toEqual({ type: 'payment_sent', notification: fields })
        }
      }),
      { numRuns: 30 },
    )
  })

  it('that are malformed give a typed error', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ minLength: 1 }), fc.json()), (text) => {
        const event = client.sign({ kind: 23_194, created_at: NOW_S, tags: [], content: client.nip44Encrypt(wallet.pubkey, text) })
        for (const open of [openNotification, openNwcResponse]) {
          const error = failure(() => open(wallet, event))
          expect(error === undefined || error instanceof PylonError).toBe(true)
        }
        expect(failure(() => openNwcRequest(wallet, { ...event, content: text }, 'nip04'))).toBeInstanceOf(PylonError)
      }),
    )
  })
})

describe('a transaction', () => {
  it('without a state is settled when it has a time, or a preimage of what went out', () => {
    const base = { payment_hash: 'AB'.repeat(32), amount: 1000 }
    expect(parseTransaction({ ...base, type: 'incoming' })).toMatchObject({ state: undefined, paymentHash: 'ab'.repeat(32) })
    expect(parseTransaction({ ...base, type: 'incoming', preimage: 'cd'.repeat(32) }).state).toBeUndefined()
    expect(parseTransaction({ ...base, type: 'incoming', settled_at: NOW_S }).state).toBe('settled')
    expect(parseTransaction({ ...base, type: 'outgoing', preimage: 'cd'.repeat(32) }).state).toBe('settled')
    expect(parseTransaction({ ...base, type: 'outgoing', state: 'failed', settled_at: 0 }).state).toBe('failed')
  })

  it('that cannot be read gives a typed error', () => {
    fc.assert(
      fc.property(fc.anything(), (value) => {
        const error = failure(() => parseTransaction(value))
        expect(error === undefined || isPylonError(error, 'event_invalid')).toBe(true)
      }),
    )
  })
})

function failure(work: () => unknown): unknown {
  try {
    work()
    return undefined
  } catch (error) {
    return error
  }
}
