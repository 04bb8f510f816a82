/** Tokens locked in every way that a mint opens for us (NUT-11, 14), made by another wallet's code, are redeemed at a real mint. */
import { randomBytes, randomUUID } from 'node:crypto'
import { Amount, blindMessage, getEncodedToken, OutputData } from '@cashu/cashu-ts'
import { expect, it, onTestFinished } from 'vitest'
import { startSandbox } from '../../support/sandbox.ts'
import { tempDir } from '../../support/temp.ts'
import { expectSound, openHome, ownerCause, testWords } from './home.ts'

const OTHER = `03${'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}`

async function ask<T>(url: string, body?: unknown): Promise<T> {
  const response = await fetch(url, body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) })
  expect(response.status).toBe(200)
  return (await response.json()) as T
}

/** One token of 8 sats for each of the secrets. */
async function mintTokens(mint: string, secrets: readonly string[]): Promise<string[]> {
  const quote = await ask<{ quote: string; request: string }>(`${mint}/v1/mint/quote/bolt11`, { amount: 8 * secrets.length, unit: 'sat' })
  await ask(`${mint}/sandbox/pay`, { request: quote.request })
  const { keysets } = await ask<{ keysets: [{ id: string; keys: Record<string, string> }] }>(`${mint}/v1/keys`)
  const [{ id, keys }] = keysets
  const outputs = secrets.map((secret) => {
    const text = new TextEncoder().encode(secret)
    const { B_, r } = blindMessage(text)
    return new OutputData({ amount: Amount.from(8), B_: B_.toHex(true), id }, r, text)
  })
  const blinded = outputs.map(({ blindedMessage: { B_ } }) => ({ amount: 8, B_, id }))
  type Signature = { id: string; amount: number; C_: string; dleq: { e: string; s: string } }
  const { signatures } = await ask<{ signatures: Signature[] }>(`${mint}/v1/mint/bolt11`, { quote: quote.quote, outputs: blinded })
  return outputs.map((output, i) => {
    const proof = output.toProof({ ...(signatures[i] as Signature), amount: Amount.from(8) }, { id, keys })
    return getEncodedToken({ mint, unit: 'sat', proofs: [proof] })
  })
}

it('is redeemed where we may, and refused with the reason where we may not', async () => {
  const sandbox = await startSandbox()
  onTestFinished(() => sandbox.stop())
  const home = await openHome({ dir: tempDir(), mintUrls: [sandbox.mintUrl], words: testWords() })
  onTestFinished(() => home.close())
  const ours = home.node.lockPubkey
  const nostrKey = `02${home.node.owner.pubkey}`
  const nowS = Math.floor(Date.now() / 1000)
  const [past, future] = [String(nowS - 3600), String(nowS + 3600)]
  const p2pk = (data: string, ...tags: (string | number)[][]) => ['P2PK', { data, tags }] as const
  const forms: [readonly ['P2PK' | 'HTLC', object], 'ours' | 'none' | RegExp][] = [
    [p2pk(OTHER, ['locktime', past]), 'none'],
    [p2pk(OTHER, ['locktime', past], ['refund', ours]), 'ours'],
    [p2pk(ours, ['locktime', past], ['refund', OTHER]), 'ours'],
    [p2pk(OTHER, ['pubkeys', ours], ['n_sigs', '1']), 'ours'],
    [p2pk(OTHER, ['pubkeys', ours, nostrKey], ['n_sigs', '2']), 'ours'],
    [p2pk(ours, ['e', 'ab'.repeat(32)], ['P', 'cd'.repeat(32)]), 'ours'],
    [p2pk(ours, ['locktime', Number(future)], ['refund', OTHER]), 'ours'],
    [p2pk(nostrKey, ['sigflag', 'SIG_ALL'], ['pubkeys', OTHER]), 'ours'],
    [
      [
        'HTLC',
        {
          data: 'ef'.repeat(32),
          tags: [
            ['locktime', past],
            ['refund', ours],
          ],
        },
      ],
      'ours',
    ],
    [p2pk(OTHER, ['locktime', future], ['refund', ours]), /another key until/],
    [p2pk(ours, ['pubkeys', OTHER], ['n_sigs', '2']), /needs 2 signatures, and 1/],
  ]
  const nonce = () => randomBytes(32).toString('hex')
  const tokens = await mintTokens(
    sandbox.mintUrl,
    forms.map(([[kind, condition]]) => JSON.stringify([kind, { nonce: nonce(), ...condition }])),
  )
  const receive = (token: string) =>
    home.node.receiveToken({ idempotencyKey: randomUUID(), cause: ownerCause(), token, creditAccount: 'node/equity/funding' })
  for (const [i, [, expected]] of forms.entries()) {
    const token = tokens[i] ?? ''
    if (expected instanceof RegExp) {
      expect(await home.node.inspectToken(token)).toMatchObject({ lock: 'other', lockReason: expect.stringMatching(expected) })
      await expect(receive(token)).rejects.toMatchObject({ code: 'token_locked', message: expect.stringMatching(expected) })
    } else {
      expect((await home.node.inspectToken(token)).lock).toBe(expected)
      expect(await receive(token)).toMatchObject({ amountSats: 7n })
    }
  }
  await expectSound(home, sandbox.mintUrl)
})
