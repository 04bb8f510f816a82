import { generateSecretKey } from 'nostr-tools/pure'
import { describe, expect, it } from 'vitest'
import { msats } from '../../../src/base/amounts.ts'
import { readAnswer } from '../../../src/customer/answers.ts'
import { buildFeedback, buildRefund, buildResult } from '../../../src/nostr/nips/nip90-answers.ts'
import { createSigner } from '../../../src/nostr/signer.ts'

const customer = createSigner(generateSecretKey())
const provider = createSigner(generateSecretKey())
const stranger = createSigner(generateSecretKey())
const request = customer.sign({ kind: 5001, created_at: 1, tags: [['i', 'secret input', 'text']], content: '' })
const expected = { kind: 5001, providers: [provider.pubkey], signer: customer }

describe('an answer', () => {
  it('is read from the provider that was asked, and from nobody else', () => {
    const result = buildResult({ request, content: 'done', createdAtS: 2 })
    expect(readAnswer(provider.sign(result), expected)).toEqual({ type: 'result', content: 'done' })
    expect(readAnswer(stranger.sign(result), expected)).toBeUndefined()
    expect(readAnswer(stranger.sign(result), { ...expected, providers: undefined })).toEqual({ type: 'result', content: 'done' })
    expect(readAnswer(provider.sign({ ...result, kind: 6002 }), expected)).toBeUndefined()
  })

  it('may be encrypted to us, and is none when it is encrypted to another', () => {
    const encrypt = { signer: provider, scheme: 'nip44' as const }
    expect(readAnswer(provider.sign(buildResult({ request, content: 'done', encrypt, createdAtS: 2 })), expected)).toEqual({
      type: 'result',
      content: 'done',
    })
    const foreign = buildResult({ request: { ...request, pubkey: stranger.pubkey }, content: 'done', encrypt, createdAtS: 2 })
    expect(readAnswer(provider.sign(foreign), expected)).toBeUndefined()
  })

  it('carries an offer, progress, an error or a refund', () => {
    const feedback = (patch: object) => provider.sign(buildFeedback({ request, status: 'processing', createdAtS: 2, ...patch }))
    expect(readAnswer(feedback({ status: 'payment-required', price: { amountMsats: msats(2000), bolt11: 'lnbc1' } }), expected)).toEqual({
      type: 'offer',
      amountMsats: 2000n,
      bolt11: 'lnbc1',
    })
    expect(readAnswer(feedback({}), expected)).toEqual({ type: 'processing' })
    expect(readAnswer(feedback({ status: 'error', extra: 'bid_too_low', content: 'more please' }), expected)).toEqual({
      type: 'error',
      code: 'bid_too_low',
      message: 'more please',
      refundToken: null,
    })
    const refund = provider.sign(buildRefund({ request, signer: provider, error: 'broken', token: 'cashuB123', createdAtS: 2 }))
    expect(readAnswer(refund, expected)).toEqual({ type: 'error', code: 'refunded', message: 'broken', refundToken: 'cashuB123' })
    const long = provider.sign(buildRefund({ request, signer: provider, error: 'x'.repeat(2000), token: 'cashuB123', createdAtS: 2 }))
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
})
