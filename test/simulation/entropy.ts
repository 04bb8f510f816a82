/** All chance of this process from one seed, also that of libraries, which know no port. */
import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { pointFromScalar } from 'tiny-secp256k1'
import { randomBelow, randomUuid, seededRandom, systemRandom } from '../../src/base/random.ts'

// Takes chance at its first use only: a run would not be like the one before it.
pointFromScalar(new Uint8Array(32).fill(1))

const POOL_BYTES = 8192

/** @returns puts the chance of the system back */
export function seedEntropy(seed: number): () => void {
  const random = seededRandom(seed)
  const fill = <T extends NodeJS.ArrayBufferView>(into: T): T => {
    new Uint8Array(into.buffer, into.byteOffset, into.byteLength).set(random.bytes(into.byteLength))
    return into
  }
  const restore = [
    replace(crypto, {
      randomBytes: (count: number) => Buffer.from(random.bytes(count)),
      randomFillSync: fill,
      randomUUID: () => randomUuid(random),
      randomInt: (min: number, max?: number) => (max === undefined ? randomBelow(random, min) : min + randomBelow(random, max - min)),
    }),
    replace(globalThis.crypto, { getRandomValues: fill, randomUUID: () => randomUuid(random) }),
    replace(Math, { random: () => random.float() }),
  ]
  syncBuiltinESMExports()
  // Whatever it has in stock of before.
  systemRandom.bytes(POOL_BYTES)
  return () => {
    for (const undo of restore) undo()
    syncBuiltinESMExports()
  }
}

function replace(object: object, functions: Readonly<Record<string, unknown>>): () => void {
  const before = Object.keys(functions).map((name) => [name, Object.getOwnPropertyDescriptor(object, name)] as const)
  for (const [name, value] of Object.entries(functions)) Object.defineProperty(object, name, { value, configurable: true, writable: true })
  return () => {
    for (const [name, descriptor] of before) {
      if (descriptor === undefined) Reflect.deleteProperty(object, name)
      else Object.defineProperty(object, name, descriptor)
    }
  }
}
