/** Keys by the second test vector of BIP-32, and those that @scure/bip32 gives for any path. */
import { HDKey } from '@scure/bip32'
import { expect, test } from 'vitest'
import { HARDENED, keyAt } from '../../../src/base/bip32.ts'
import { randomBelow, seededRandom } from '../../../src/base/random.ts'

const hexOf = (bytes: Uint8Array | null) => Buffer.from(bytes ?? []).toString('hex')

test('the vector', () => {
  const seed = Buffer.from(
    'fffcf9f6f3f0edeae7e4e1dedbd8d5d2cfccc9c6c3c0bdbab7b4b1aeaba8a5a29f9c999693908d8a8784817e7b7875726f6c696663605d5a5754514e4b484542',
    'hex',
  )
  expect(hexOf(keyAt(seed, []).key)).toBe('4b03d6fc340455b363f51020ad3ecca4f0850280cf436c70c727923f6db46c3e')
  expect(hexOf(keyAt(seed, [0, HARDENED + 2_147_483_647, 1]).key)).toBe('704addf544a06e5ee4bea37098463c23613da32020d604506da8c0518e1da4b7')
})

test('any path', () => {
  const random = seededRandom(32)
  for (let i = 0; i < 20; i++) {
    const seed = random.bytes(64)
    const path = Array.from({ length: 1 + randomBelow(random, 5) }, () => randomBelow(random, 2 ** 32))
    const theirs = path.reduce((node, index) => node.deriveChild(index), HDKey.fromMasterSeed(seed))
    const { key, chainCode } = keyAt(seed, path)
    expect([hexOf(key), hexOf(chainCode)]).toEqual([hexOf(theirs.privateKey), hexOf(theirs.chainCode)])
  }
})
