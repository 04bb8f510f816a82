/** Our arithmetic of coins gives what cashu-ts gives, and the vectors of NUT-13; what is forged or malformed proves nothing. */
import {
  blindMessage,
  createBlindSignature,
  createDLEQProof,
  createNewMintKeys,
  hashToCurve as curveOf,
  OutputData,
  pointFromHex,
  serializeMintKeys,
  unblindSignature,
  verifyDLEQProof,
} from '@cashu/cashu-ts'
import { mnemonicToSeedSync } from '@scure/bip39'
import { describe, expect, test } from 'vitest'
import { seededRandom } from '../../../../src/base/random.ts'
import { blind, deriver, hashToCurve, isCoinDleqValid, isDleqValid, ORDER, unblind } from '../../../../src/wallet/ecash/curve.ts'

const random = seededRandom(13)
const toHex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const scalar = () => (BigInt(`0x${toHex(random.bytes(32))}`) % (ORDER - 1n)) + 1n
const mint = createNewMintKeys(4, new Uint8Array(32).fill(7))
const A = serializeMintKeys(mint.pubKeys)['8'] ?? ''
const key = mint.privKeys['8'] as Uint8Array

function coin(secret = toHex(random.bytes(32)), r = scalar()) {
  const { B_ } = blindMessage(new TextEncoder().encode(secret), r)
  const { C_ } = createBlindSignature(B_, key, '')
  const { e, s } = createDLEQProof(B_, key)
  const C = unblindSignature(C_, r, pointFromHex(A)).toHex(true)
  return { secret, r, B_: B_.toHex(true), C_: C_.toHex(true), C, dleq: { e: toHex(e), s: toHex(s) } }
}

test('points are those of cashu-ts', () => {
  for (let i = 0; i < 20; i++) {
    const { secret, r, B_, C_, C, dleq } = coin(i === 0 ? '' : i === 1 ? '["P2PK",{"nonce":"ä"}]' : undefined)
    expect(hashToCurve(secret)).toBe(curveOf(new TextEncoder().encode(secret)).toHex(true))
    expect(blind(secret, r)).toBe(B_)
    expect(unblind(C_, r, A)).toBe(C)
    expect(isDleqValid(dleq, B_, C_, A)).toBe(true)
    expect(isDleqValid(dleq, B_, pointFromHex(C_).toHex(false), pointFromHex(A).toHex(false))).toBe(true)
    expect(isCoinDleqValid({ ...dleq, r: r.toString(16) }, { secret, C }, A)).toBe(true)
  }
})

test('what is forged proves nothing, as with cashu-ts', () => {
  const { secret, r, B_, C_, C, dleq } = coin()
  const other = coin()
  const changed = (hex: string) => hex.slice(0, -1) + (hex.endsWith('0') ? '1' : '0')
  const theirs = ({ e, s }: typeof dleq, b: string, c: string) =>
    verifyDLEQProof({ e: Buffer.from(e, 'hex'), s: Buffer.from(s, 'hex') }, pointFromHex(b), pointFromHex(c), pointFromHex(A))
  expect(theirs(dleq, B_, C_)).toBe(true)
  for (const [proof, b, c] of [
    [{ ...dleq, e: changed(dleq.e) }, B_, C_],
    [{ ...dleq, s: changed(dleq.s) }, B_, C_],
    [other.dleq, B_, C_],
    [dleq, other.B_, C_],
    [dleq, B_, other.C_],
  ] as const) {
    expect(theirs(proof, b, c)).toBe(false)
    expect(isDleqValid(proof, b, c, A)).toBe(false)
  }
  expect(isDleqValid(dleq, B_, C_, serializeMintKeys(mint.pubKeys)['4'] ?? '')).toBe(false)
  const whole = { ...dleq, r: r.toString(16) }
  expect(isCoinDleqValid(whole, { secret: other.secret, C }, A)).toBe(false)
  expect(isCoinDleqValid(whole, { secret, C: other.C }, A)).toBe(false)
  expect(isCoinDleqValid({ ...dleq, r: scalar().toString(16) }, { secret, C }, A)).toBe(false)
  expect(isCoinDleqValid(dleq, { secret, C }, A)).toBe(false)
})

test('what is malformed is refused and never ends anything', () => {
  const { secret, r, B_, C_, C, dleq } = coin()
  const zero = '00'.repeat(32)
  const order = ORDER.toString(16)
  for (const bad of ['', zero, order, 'ff'.repeat(32), dleq.e.slice(2), `${dleq.e}00`, 'x'.repeat(64)]) {
    expect(isDleqValid({ ...dleq, e: bad }, B_, C_, A)).toBe(false)
    expect(isDleqValid({ ...dleq, s: bad }, B_, C_, A)).toBe(false)
    expect(isCoinDleqValid({ ...dleq, r: bad }, { secret, C }, A)).toBe(false)
  }
  for (const bad of [
    '',
    '00',
    `02${'ff'.repeat(32)}`,
    B_.slice(2),
    `${B_}00`,
    `05${B_.slice(2)}`,
    `06${pointFromHex(B_).toHex(false).slice(2)}`,
  ]) {
    expect(isDleqValid(dleq, bad, C_, A)).toBe(false)
    expect(isDleqValid(dleq, B_, bad, A)).toBe(false)
    expect(isDleqValid(dleq, B_, C_, bad)).toBe(false)
    expect(isCoinDleqValid({ ...dleq, r: r.toString(16) }, { secret, C: bad }, A)).toBe(false)
    expect(() => unblind(bad, r, A)).toThrow('not on the curve')
    expect(() => unblind(C_, r, bad)).toThrow('not on the curve')
  }
  // The mint signs with what cancels the blinding out: no point is left, and nothing is made of it.
  const cancelling = pointFromHex(A).multiply(r).toHex(true)
  expect(() => unblind(cancelling, r, A)).toThrow('infinity')
})

describe('NUT-13', () => {
  const seed = mnemonicToSeedSync('half depart obvious quality work element tank gorilla view sugar picture humble')

  test('the vectors', () => {
    const derive = deriver(seed, '009a1f293253e41e')
    expect(derive(0).secret).toBe('485875df74771877439ac06339e284c3acfcd9be7abf3bc20b516faeadfe77ae')
    expect(derive(1).secret).toBe('8f2b39e8e594a4056eb1e6dbb4b0c38ef13b1b2c751f64f810ec04ee35b77270')
    expect(derive(0).r.toString(16).padStart(64, '0')).toBe('ad00d431add9c673e843d4c2bf9a778a5f402b985b8da2d5550bf39cda41d679')
    expect(derive(1).r.toString(16).padStart(64, '0')).toBe('967d5232515e10b81ff226ecf5a9e2e2aff92d66ebc3edf0987eb56357fd6248')
  })

  test.each(['009a1f293253e41e', '00ad268c4d1f5826', '00ffffffffffffff', `01${'5e'.repeat(32)}`, `01${'00'.repeat(32)}`])(
    'keyset %s',
    (id) => {
      const derive = deriver(seed, id)
      for (const counter of [0, 1, 2, 255, 65_536, 2 ** 31 - 1]) {
        const { secret, blindingFactor, blindedMessage } = OutputData.createSingleDeterministicData(1, seed, counter, id)
        const ours = derive(counter)
        expect(ours).toEqual({ secret: new TextDecoder().decode(secret), r: blindingFactor })
        expect(blind(ours.secret, ours.r)).toBe(blindedMessage.B_)
      }
    },
  )

  test('no secrets are made for what is no keyset id, nor past the last', () => {
    for (const id of ['', '02ad268c4d1f5826', 'I2yN+iRYfkzT', '00ad268c4d1f58']) expect(() => deriver(seed, id)).toThrow('of a form')
    expect(() => deriver(seed, '00ad268c4d1f5826')(2 ** 31)).toThrow('2^31')
  })
})
