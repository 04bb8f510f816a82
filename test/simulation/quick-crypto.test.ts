/** The quick cryptography of simulations gives what the real one gives. */
import { pointFromScalar } from 'tiny-secp256k1'
import { expect, test } from 'vitest'
import { seededRandom } from '../../src/base/random.ts'
import { signOutput } from '../../src/sandbox/mint/blind-signatures.ts'
import { runCryptoTask } from '../../src/wallet/ecash/crypto.ts'
import { quickCrypto } from './quick-crypto.ts'

test('the same outputs and the same proofs', async () => {
  const random = seededRandom(5)
  const [key, seed] = [random.bytes(32), random.bytes(64)]
  const keysetId = '00ad268c4d1f5826'
  const keys = { '1': Buffer.from(pointFromScalar(key, true) ?? []).toString('hex') }
  const amounts = Array.from({ length: 20 }, () => 1)
  const task = { seed, keysetId, counter: 0, amounts }
  const locked = { seed, name: 'a', keysetId, amounts, pubkey: `02${'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}` }
  const outputs = [...(await quickCrypto.run('deterministic', task)), ...(await quickCrypto.run('locked', locked))]
  expect(outputs).toEqual([...runCryptoTask('deterministic', task), ...runCryptoTask('locked', locked)])
  const pairs = outputs.map((output) => {
    const { c, e, s } = signOutput(Buffer.from(output.B_, 'hex'), key)
    return { output, signature: { id: keysetId, amount: 1, C_: c, dleq: { e, s } } }
  })
  const keysets = { [keysetId]: keys }
  expect(await quickCrypto.run('unblind', { pairs, keysets })).toEqual(runCryptoTask('unblind', { pairs, keysets }))
  expect(await quickCrypto.run('unblind', { pairs, keysets: {} })).toEqual(runCryptoTask('unblind', { pairs, keysets: {} }))
  const secrets = outputs.map(({ secret }) => secret)
  expect(await quickCrypto.run('ys', { secrets })).toEqual(runCryptoTask('ys', { secrets }))
})
