/** Amounts of bitcoin: bigint, branded by unit, so that a sat is never taken for a millisat. */
import { PylonError } from './errors.ts'

export type Msats = bigint & { readonly __unit: 'msat' }
export type Sats = bigint & { readonly __unit: 'sat' }

const MAX_WIRE = BigInt(Number.MAX_SAFE_INTEGER)

function whole(value: bigint | number, unit: string): bigint {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw new PylonError('amount_invalid', `Amount ${value} is not a whole number of ${unit}.`)
  }
  const amount = BigInt(value)
  if (amount > MAX_WIRE || amount < -MAX_WIRE) {
    throw new PylonError('amount_invalid', `Amount ${amount} ${unit} is past 2^53-1.`)
  }
  return amount
}

export const msats = (value: bigint | number): Msats => whole(value, 'msats') as Msats
export const sats = (value: bigint | number): Sats => whole(value, 'sats') as Sats
export const satsToMsats = (value: Sats): Msats => msats(value * 1000n)
/** What we ask for: up to the next whole sat. */
export const msatsToSatsUp = (value: Msats): Sats => sats((value + 999n) / 1000n)
/** What we credit: down to the whole sat. */
export const msatsToSatsDown = (value: Msats): Sats => sats(value / 1000n)
/** The JSON integer of an amount. */
export const wire = (value: bigint): number => Number(whole(value, 'units'))

/** By hand: Intl would read its data at every start, which is a tenth of a command. */
const THOUSANDS = /\B(?=(?:\d{3})+$)/g
/** `1,234 sats`, or `1,234.567 sats` where msats remain: for people, never for machines. */
export function formatSats(amount: Msats): string {
  const rest = amount % 1000n
  const base = String(amount / 1000n).replaceAll(THOUSANDS, ',')
  const text = rest === 0n ? base : `${base}.${(rest < 0n ? -rest : rest).toString().padStart(3, '0')}`
  return `${text} ${amount === 1000n ? 'sat' : 'sats'}`
}
