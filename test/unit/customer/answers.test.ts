import { generateSecretKey } from 'nostr-tools/pure'
import { describe, expect, it } from 'vitest'
import { msats } from '../../../src/base/amounts.ts'
import { readAnswer } from '../../../src/customer/answers.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { buildFeedback, buildResult } from '../../../src/nostr/nips/nip90-answers.ts'
import { encodeInvoice } from '../../../src/sandbox/bolt11-encode.ts'
import { refundFeedback } from '../../support/nostr-events.ts'

const customer = createSigner(generateSecretKey())
const provider = createSigner(generateSecretKey())
const stranger = createSigner(generateSecretKey())
const request = customer.sign({ kind: 5001, created_at: 1, tags: [['i', 'secret input', 'text']], content: '' })
const expected = { kind: 5001, signer: customer }

describe('an answer', () => {
  it('is read as what its kind says', () => {
    const result = buildResult({ request, content: 'done', createdAtS: 2 })
    expect(readAnswer(provider.sign(result), expected)).toEqual({ type: 'result', content: 'done' })
    expect(readAnswer(provider.sign({ ...result, kind: 6002 }), expected)).toBeUndefined()
  })

  it('may be encrypted to us, and is only noted when it is encrypted to another', () => {
    const encrypt = { signer: provider, scheme: 'nip44' as const }
    expect(readAnswer(provider.sign(buildResult({ request, content: 'done', encrypt, createdAtS: 2 })), expected)).toEqual({
      type: 'result',
      content: 'done',
    })
    const foreign = buildResult({ request: { ...request, pubkey: stranger.pubkey }, content: 'done', encrypt, createdAtS: 2 })
    expect(readAnswer(provider.sign(foreign), expected)).toEqual({ type: 'note', status: 'a result that we cannot decrypt' })
  })

  it('carries an offer, progress, an error or a refund', () => {
    const feedback = (patch: object) => provider.sign(buildFeedback({ request, status: 'processing', createdAtS: 2, ...patch }))
    expect(readAnswer(feedback({ status: 'payment-required', price: { amountMsats: msats(2000), bolt11: 'lnbc1' } }), expected)).toEqual({
      type: 'offer',
      amountMsats: 2000n,
      bolt11: 'lnbc1',
      invoice: undefined,
    })
    expect(readAnswer(feedback({}), expected)).toEqual({ type: 'processing' })
    expect(readAnswer(feedback({ status: 'error', extra: 'bid_too_low', content: 'more please' }), expected)).toEqual({
      type: 'error',
      code: 'bid_too_low',
      message: 'more please',
      refundToken: null,
    })
    const refund = provider.sign(refundFeedback({ request, signer: provider, error: 'broken', token: 'cashuB123', createdAtS: 2 }))
    expect(readAnswer(refund, expected)).toEqual({ type: 'error', code: 'refunded', message: 'broken', refundToken: 'cashuB123' })
    const long = provider.sign(refundFeedback({ request, signer: provider, error: 'x'.repeat(2000), token: 'cashuB123', createdAtS: 2 }))
    expect(readAnswer(long, expected)).toMatchObject({ message: 'x'.repeat(500) })
    const mute = feedback({ status: 'error', content: '{"error":{"refund_token":"cashuB123"},"refund_token":"cashuB123"}' })
    expect(readAnswer(mute, expected)).toMatchObject({ message: 'no reason was given', refundToken: 'cashuB123' })
  })

  it.each([
    ['an offer without amount', [['status', 'payment-required']], ''],
    [
      'an amount that is no number',
      [
        ['status', 'payment-required'],
        ['amount', '-5', 'lnbc1'],
      ],
      '',
    ],
    [
      'an amount past 2^53',
      [
        ['status', 'payment-required'],
        ['amount', '99999999999999999999', 'lnbc1'],
      ],
      '',
    ],
    ['no tags at all', [], '{"refund_token": 5}'],
    ['an unknown status', [['status', 'banana']], ''],
  ])('from a hostile provider never turns into money: %s', (_name, tags, content) => {
    const event = provider.sign({ kind: 7000, created_at: 2, tags: [...tags, ['e', request.id], ['p', customer.pubkey]], content })
    expect(readAnswer(event, expected)?.type ?? 'note').toBe('note')
  })

  const e = ['e', request.id]
  const invoice = encodeInvoice(
    {
      ...{ network: 'bcrt', amountMsats: 5000n, timestampSeconds: 1, description: 'job' },
      ...{ paymentHash: new Uint8Array(32).fill(1), paymentSecret: new Uint8Array(32).fill(2) },
    },
    new Uint8Array(32).fill(9),
  )
  it.each<[string, number, string[][], string, object]>([
    ['an amount in a result', 6001, [e, ['amount', 'free', 'x'.repeat(9000)]], 'done', { type: 'result', content: 'done' }],
    ['an e tag before the good one', 6001, [['e', 'root'], ['e'], e], 'done', { type: 'result', content: 'done' }],
    [
      'the e tag, beside a copy of the request',
      6001,
      [
        ['request', JSON.stringify(request)],
        ['e', 'x'],
      ],
      'done',
      { type: 'result' },
    ],
    ['the tag that says encrypted', 6001, [e, ['encrypted']], 'plain after all', { type: 'result', content: 'plain after all' }],
    [
      'an amount beside a good invoice',
      7000,
      [e, ['status', 'payment-required'], ['amount', '5 sats', invoice]],
      '',
      { amountMsats: 5000n },
    ],
    [
      'an amount before a good one',
      7000,
      [e, ['status', 'payment-required'], ['amount', ''], ['amount', '5000.0', invoice]],
      '',
      { bolt11: invoice },
    ],
    ['a status before a good one', 7000, [e, ['status'], ['status', ' Processing ']], '', { type: 'processing' }],
    [
      'an amount in an error',
      7000,
      [e, ['status', 'error', 'sorry'], ['amount', 'x']],
      'why',
      { type: 'error', code: 'sorry', message: 'why' },
    ],
  ])('is read as far as it can be, whatever is wrong with %s', (_what, kind, tags, content, read) => {
    expect(readAnswer(provider.sign({ kind, created_at: 2, tags, content }), expected)).toMatchObject(read)
  })

  it('gives the refund that it carries, also where the tag that says encrypted is missing and the status is none', () => {
    const refund = refundFeedback({ request, signer: provider, error: 'broken', token: 'cashuB123', createdAtS: 2 })
    for (const tags of [refund.tags.filter(([name]) => name !== 'encrypted'), refund.tags.filter(([name]) => name !== 'status')]) {
      expect(readAnswer(provider.sign({ ...refund, tags }), expected)).toMatchObject({ type: 'error', refundToken: 'cashuB123' })
    }
  })
})
