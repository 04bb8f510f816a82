/** Chance behind one interface, so that a seed repeats a run. Keys of money and identities are not made here. */
import { randomFillSync } from 'node:crypto'

export interface Random {
  /** From 0 (included) to 1 (excluded). */
  float(): number
  bytes(count: number): Uint8Array
}

export const systemRandom: Random = {
  float: () => new DataView(pooledBytes(4).buffer).getUint32(0) / 2 ** 32,
  bytes: (count) => (count > POOL.length ? randomFillSync(new Uint8Array(count)) : pooledBytes(count)),
}

/** Refilled in one call: one system call for many signatures. */
const POOL = new Uint8Array(8192)
let poolAt = POOL.length

function pooledBytes(count: number): Uint8Array<ArrayBuffer> {
  if (poolAt + count > POOL.length) {
    randomFillSync(POOL)
    poolAt = 0
  }
  const bytes = POOL.slice(poolAt, poolAt + count)
  POOL.fill(0, poolAt, poolAt + count)
  poolAt += count
  return bytes
}

/** `count` bytes as lowercase hex. */
export const randomHex = (random: Random, count: number): string => Buffer.from(random.bytes(count)).toString('hex')

/** A whole number from 0 to `below`, which is left out. */
export const randomBelow = (random: Random, below: number): number => Math.floor(random.float() * below)

/** A UUID of version 4. */
export function randomUuid(random: Random): string {
  const hex = randomHex(random, 16)
  const variant = '89ab'[Number.parseInt(hex.charAt(16), 16) & 3]
  return [hex.slice(0, 8), hex.slice(8, 12), `4${hex.slice(13, 16)}`, `${variant}${hex.slice(17, 20)}`, hex.slice(20)].join('-')
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
