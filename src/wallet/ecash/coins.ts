/** The arithmetic of ecash: fees of inputs, amounts of outputs, and which proofs to spend (NUT-02, 03, 08). Pure. */

export interface Coin {
  readonly amountSats: bigint
  /** Of its keyset: thousandths of a sat for each input. */
  readonly feePpk: number
}

/** NUT-02: what spending these costs, rounded up once over all. */
export function inputFee(coins: readonly Pick<Coin, 'feePpk'>[]): bigint {
  const ppk = coins.reduce((sum, coin) => sum + coin.feePpk, 0)
  return -netOf(0n, ppk)
}

export const sumOf = (coins: readonly Pick<Coin, 'amountSats'>[]): bigint => coins.reduce((sum, coin) => sum + coin.amountSats, 0n)

/** The fewest keyset amounts that make up `total`, ascending (NUT-03). Undefined when the keyset cannot make it. */
export function splitAmount(total: bigint, keysetAmounts: readonly bigint[]): bigint[] | undefined {
  const parts: bigint[] = []
  let rest = total
  for (const amount of [...keysetAmounts].sort((a, b) => (a < b ? 1 : -1))) {
    while (amount > 0n && rest >= amount) {
      parts.push(amount)
      rest -= amount
    }
  }
  return rest === 0n ? parts.reverse() : undefined
}

/** Coins of each small size that a wallet likes to have, and what counts as small. */
const SPARE_COINS = 2
const LARGEST_SPARE_SATS = 64n
/** A coin that is worth less than this many times its fee costs more than it spares. */
const MIN_FEES_WORTH = 10n

/**
 * Amounts that make up `total` and bring the small coins of a wallet up to a few of each size, so that small payments need
 * no swap of their own; the rest in the fewest. @param have what the wallet holds already
 */
export function spreadAmount(
  total: bigint,
  keyset: { readonly amounts: readonly bigint[]; readonly feePpk: number },
  have: readonly Pick<Coin, 'amountSats'>[],
): bigint[] | undefined {
  const spares: bigint[] = []
  let rest = total
  for (const size of [...keyset.amounts].sort((a, b) => (a < b ? -1 : 1))) {
    if (size * 1000n < MIN_FEES_WORTH * BigInt(keyset.feePpk)) continue
    if (size > LARGEST_SPARE_SATS || size * 4n > total) break
    for (let count = have.filter((coin) => coin.amountSats === size).length; count < SPARE_COINS && rest > size; count++) {
      spares.push(size)
      rest -= size
    }
  }
  const parts = rest === 0n ? [] : splitAmount(rest, keyset.amounts)
  return parts === undefined ? splitAmount(total, keyset.amounts) : [...spares, ...parts].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
}

/**
 * Proofs worth at least `target` after the fee of spending them, few and with little left over; undefined when all of them are not enough.
 * Takes the largest that fit, then the smallest that completes, then drops what is not needed. Linear once sorted.
 */
export function selectCoins<C extends Coin>(coins: readonly C[], target: bigint): C[] | undefined {
  if (target <= 0n) return undefined
  const useful = coins
    .filter((coin) => coin.amountSats * 1000n > BigInt(coin.feePpk))
    .sort((a, b) => (a.amountSats === b.amountSats ? a.feePpk - b.feePpk : a.amountSats < b.amountSats ? 1 : -1))
  const chosen = new Purse<C>()
  const skipped: C[] = []
  for (const coin of useful) {
    if (chosen.netWith(coin) <= target) chosen.add(coin)
    else skipped.push(coin)
    if (chosen.net === target) break
  }
  // Complete with the smallest single one that is enough; else with the largest until it is.
  const completing = skipped.findLast((coin) => chosen.netWith(coin) >= target)
  for (const coin of completing === undefined ? skipped : [completing]) if (chosen.net < target) chosen.add(coin)
  if (chosen.net < target) return undefined
  // Also when it fits exactly: a coin may cost all that it is worth, since the fee is rounded up over all.
  for (const coin of chosen.coins().reverse()) if (chosen.netWithout(coin) >= target) chosen.remove(coin)
  return chosen.coins()
}

/** A set of coins that knows what it is worth. */
class Purse<C extends Coin> {
  readonly #coins = new Set<C>()
  #sats = 0n
  #ppk = 0

  get net(): bigint {
    return netOf(this.#sats, this.#ppk)
  }

  netWith(coin: C): bigint {
    return netOf(this.#sats + coin.amountSats, this.#ppk + coin.feePpk)
  }

  netWithout(coin: C): bigint {
    return netOf(this.#sats - coin.amountSats, this.#ppk - coin.feePpk)
  }

  add(coin: C): void {
    this.#coins.add(coin)
    this.#sats += coin.amountSats
    this.#ppk += coin.feePpk
  }

  remove(coin: C): void {
    this.#coins.delete(coin)
    this.#sats -= coin.amountSats
    this.#ppk -= coin.feePpk
  }

  coins(): C[] {
    return [...this.#coins]
  }
}

const netOf = (sats: bigint, ppk: number): bigint => sats - BigInt(Math.floor((ppk + 999) / 1000))

/** A subset that is worth exactly `total` by face, or undefined: greedy, from the largest. */
export function selectExact<C extends Coin>(coins: readonly C[], total: bigint): C[] | undefined {
  const chosen: C[] = []
  let rest = total
  for (const coin of [...coins].sort((a, b) => (a.amountSats < b.amountSats ? 1 : -1))) {
    if (coin.amountSats > rest) continue
    chosen.push(coin)
    rest -= coin.amountSats
  }
  return rest === 0n && chosen.length > 0 ? chosen : undefined
}

/**
 * Which of many small coins to make into fewer large ones, `max` at a time; undefined where that would bring nothing, since
 * the fee eats what it gathers. Takes the neighbours in size whose value is drawn together most.
 */
export function coinsToMerge<C extends Coin>(coins: readonly C[], max: number, keysetAmounts: readonly bigint[]): C[] | undefined {
  const sorted = [...coins].sort((a, b) => (a.amountSats < b.amountSats ? -1 : 1))
  const size = Math.min(max, sorted.length)
  const weight = (amounts: readonly bigint[]) => amounts.reduce((sum, amount) => sum + amount * amount, 0n)
  let best: { coins: C[]; gain: bigint } | undefined
  for (let i = 0; i + size <= sorted.length; i++) {
    const some = sorted.slice(i, i + size)
    const before = weight(some.map((coin) => coin.amountSats))
    const after = weight(splitAmount(sumOf(some) - inputFee(some), keysetAmounts) ?? [])
    // Half as much again, so that it comes to an end: it can't grow for ever.
    if (after * 2n >= before * 3n && after - before > (best?.gain ?? 0n)) best = { coins: some, gain: after - before }
  }
  return best?.coins
}

/** What moving coins out of a keyset that signs no more may cost, at the most: this part of what is moved. */
const MOVING_COST_PART = 10n

/**
 * Coins that are worth being swapped for others: all whose fee is below their value where they end soon, else those that
 * cost little, and only as long as all of it stays within `mayCost` sats.
 */
export function coinsToMove<C extends Coin>(coins: readonly C[], options: { endsSoon: boolean; mayCost: bigint; max: number }): C[] {
  const { endsSoon, mayCost, max } = options
  const part = endsSoon ? 1n : MOVING_COST_PART
  const chosen = coins
    .filter((coin) => coin.amountSats * 1000n >= BigInt(coin.feePpk) * part && coin.amountSats > 0n)
    .sort((a, b) => (a.amountSats < b.amountSats ? 1 : -1))
    .slice(0, max)
  while (chosen.length > 0) {
    const [sum, fee] = [sumOf(chosen), inputFee(chosen)]
    if (sum > fee && (endsSoon || (fee * part <= sum && fee <= mayCost))) return chosen
    chosen.pop()
  }
  return []
}

/** NUT-08: how many blank outputs can carry any change up to `overpaid`. */
export function blankOutputs(overpaid: bigint): number {
  return overpaid <= 0n ? 0 : Math.max(1, overpaid.toString(2).length)
}

/** What to send so that the receiver is left with `net` after spending it, with the fewest outputs of a keyset. */
export function coverFee(net: bigint, keysetAmounts: readonly bigint[], feePpk: number): bigint {
  let total = net
  for (;;) {
    const parts = splitAmount(total, keysetAmounts) ?? []
    const fee = inputFee(parts.map(() => ({ feePpk })))
    if (total - fee >= net) return total
    total = net + fee
  }
}
