/** Chance behind one interface, so that a seed repeats a run. Keys of money and identities are not made here. */
import { randomBytes, randomFillSync } from 'node:crypto'

export interface Random {
  /** From 0 (included) to 1 (excluded). */
  float(): number
  bytes(count: number): Uint8Array
}

export const systemRandom: Random = {
  float: () => new DataView(randomFillSync(new Uint8Array(4)).buffer).getUint32(0) / 2 ** 32,
  bytes: (count) => new Uint8Array(randomBytes(count)),
}

/** The same numbers for the same seed (splitmix32): for tests and simulations only. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x9e3779b9) >>> 0
    let mixed = state ^ (state >>> 16)
    mixed = Math.imul(mixed, 0x21f0aaad)
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97)
    return (mixed ^ (mixed >>> 15)) >>> 0
  }
  return {
    float: () => next() / 2 ** 32,
    bytes: (count) => Uint8Array.from({ length: count }, () => next() & 0xff),
  }
}
