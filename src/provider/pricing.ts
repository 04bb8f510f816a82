/** What a job costs: the price list, its defaults and the rounding; pure. */
import { type Msats, msats } from '../base/amounts.ts'
import type { Config, Price } from '../base/config.ts'

/** Prices of kinds that the owner put no price on. */
export const DEFAULT_PRICES: Readonly<Record<number, Price>> = {
  5001: { amount_msats: 2000, unit: 'job' },
  5050: { amount_msats: 10_000, unit: 'job' },
}

/** The price of any other kind without one: those that config maps to a command. */
export const DEFAULT_EXEC_PRICE: Price = { amount_msats: 5000, unit: 'job' }

/** What an input that is fetched (url, event, job) counts as, in characters: its size is not known when the price is named. */
export const REFERENCED_INPUT_CHARS = 20_000

/** Output tokens counted when the request names no max_tokens. */
export const DEFAULT_MAX_TOKENS = 512

/** Characters taken for one token; a common estimate for text in Latin script. */
const CHARS_PER_TOKEN = 4n

/** What the price depends on. Characters are UTF-16 code units. */
export interface Usage {
  readonly inputChars: number
  readonly maxOutputTokens: number
}

export function priceOf(config: Config, kind: number): Price {
  const own = config.provider.prices[String(kind)]
  if (own !== undefined) return own
  if (config.provider.exec.some((entry) => entry.kind === kind)) return DEFAULT_EXEC_PRICE
  return DEFAULT_PRICES[kind] ?? DEFAULT_EXEC_PRICE
}

/** Begun units count as whole ones, so what is asked is never below the list. */
export function quote(price: Price, usage: Usage): Msats {
  const each = BigInt(price.amount_msats)
  switch (price.unit) {
    case 'job':
      return msats(each)
    case '1k_chars':
      return msats(each * thousandsUp(BigInt(usage.inputChars)))
    case '1k_tokens': {
      const inputTokens = (BigInt(usage.inputChars) + CHARS_PER_TOKEN - 1n) / CHARS_PER_TOKEN
      return msats(each * thousandsUp(inputTokens + BigInt(usage.maxOutputTokens)))
    }
  }
}

function thousandsUp(count: bigint): bigint {
  const units = (count + 999n) / 1000n
  return units === 0n ? 1n : units
}
