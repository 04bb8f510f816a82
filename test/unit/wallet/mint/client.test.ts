/** How mints say no: too much at once, a keyset that signs no more; by code or in words only. */
import { expect, it } from 'vitest'
import { MintClient, signaturesSchema, tooMany } from '../../../../src/wallet/mint/client.ts'

it.each<[number, string, object | undefined]>([
  [11_014, 'no words', {}],
  [11_015, 'max outputs exceeded', {}],
  [0, 'inputs exceed the maximum number of inputs: 50', {}],
  [0, 'at most 50 inputs', { most: 50 }],
  [0, '[{"type":"too_long","msg":"List should have at most 50 items after validation, not 100"}]', { most: 50 }],
  [0, 'too many proofs', {}],
  [0, 'too many requests', undefined],
  [0, 'secret too long', undefined],
  [11_006, 'amount must be at most 1000 sat', undefined],
  [11_001, 'Token already spent.', undefined],
])('%i %s', (code, detail, expected) => {
  if (expected === undefined) expect(tooMany(code, detail)).toBeUndefined()
  else expect(tooMany(code, detail)).toMatchObject(expected)
})

it.each<[number, unknown, object]>([
  [400, { detail: 'keyset id inactive.', code: 11_000 }, { kind: 'rejected', code: 12_002 }],
  [400, { detail: 'transaction error', code: 11_000 }, { kind: 'rejected', code: 11_000 }],
  [
    422,
    { detail: [{ type: 'too_long', loc: ['body', 'inputs'] }] },
    { kind: 'rejected', code: 0, detail: expect.stringContaining('too_long') },
  ],
  [413, '<html>too large</html>', { kind: 'rejected', code: 11_014 }],
  [429, { detail: 'too many requests' }, { kind: 'unknown' }],
  [502, { detail: 'bad gateway' }, { kind: 'unknown' }],
  [200, { signatures: [{ id: 7 }, null] }, { kind: 'ok', value: { signatures: ['unreadable', 'unreadable'] } }],
])('an answer %i %j', async (status, body, expected) => {
  const dialer = { fetch: async () => ({ status, headers: {}, text: typeof body === 'string' ? body : JSON.stringify(body) }) }
  const client = new MintClient('http://mint', dialer as never, new AbortController().signal)
  expect(await client.post('/v1/swap', '{}', signaturesSchema)).toMatchObject(expected)
})
