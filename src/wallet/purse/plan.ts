/** Several mints as one purse, pure: which sats go from which mint to which, so that one of them holds what is wanted. */
import { type Coin, inputFee, selectCoins, splitAmount, sumOf } from '../ecash/coins.ts'

/** What one wallet has at one mint. */
export interface PurseMint {
  readonly url: string
  readonly isUp: boolean
  /** Free ones, with what spending each costs. */
  readonly coins: readonly Coin[]
  /** Of these sats so many must stay there: customers are owed them. */
  readonly keptSats: bigint
  /** How much more it may hold under its cap. */
  readonly roomSats: bigint
  /** Inputs that it takes in one request. */
  readonly maxInputs: number
  /** Of the keyset that it makes coins of. */
  readonly sizes: readonly bigint[]
  readonly feePpk: number
}

/** What is to be spent at a mint, where it is the one that spends. */
export interface WantedThere {
  /** All that leaves but the fee of the inputs: the amount, and a reserve. */
  readonly netSats: bigint
  /** The most that moving it there, and the inputs there, may cost. */
  readonly maxFeeSats: bigint
}

/** What the mint `from` reserves for a payment of `amountSats` to `to`. */
export type ReserveOf = (from: string, to: string, amountSats: bigint) => bigint

export interface PlannedMove {
  readonly from: string
  readonly to: string
  /** What arrives. */
  readonly amountSats: bigint
  /** The most that it costs: the reserve, and the inputs. */
  readonly feeSats: bigint
}

export type PursePlan =
  | { readonly isPossible: true; readonly target: string; readonly moves: readonly PlannedMove[]; readonly feeSats: bigint }
  | { readonly isPossible: false; readonly why: string }

/** Tries at an amount that depends on its own fee. */
const MAX_ROUNDS = 12

/** The cheapest plan into one of the mints of `wanted`; why there is none, where there is none. */
export function planMoves(mints: readonly PurseMint[], wanted: ReadonlyMap<string, WantedThere>, reserveOf: ReserveOf): PursePlan {
  const plans = mints.flatMap((mint) => {
    const there = wanted.get(mint.url)
    return there === undefined ? [] : [planInto(mint, there, mints, reserveOf)]
  })
  const possible = plans
    .filter((plan) => plan.isPossible)
    .sort((a, b) => (a.feeSats === b.feeSats ? a.moves.length - b.moves.length : a.feeSats < b.feeSats ? -1 : 1))
  return possible[0] ?? plans[0] ?? { isPossible: false, why: 'no mint of the list can spend it' }
}

function planInto(target: PurseMint, { netSats, maxFeeSats }: WantedThere, mints: readonly PurseMint[], reserveOf: ReserveOf): PursePlan {
  const no = (why: string): PursePlan => ({ isPossible: false, why: `${target.url}: ${why}` })
  if (!target.isUp) return no('it does not answer')
  const sources = mints.filter((mint) => mint.url !== target.url && mint.isUp).sort((a, b) => (free(a) > free(b) ? -1 : 1))
  let missing = netSats > free(target) ? netSats - free(target) : 0n
  for (let round = 0; round < MAX_ROUNDS; round++) {
    if (missing > target.roomSats) return no(`${missing} sats more would be above its cap`)
    const moves = gatherFrom(sources, target.url, missing, reserveOf)
    const moved = moves.reduce((sum, move) => sum + move.amountSats, 0n)
    const moveFees = moves.reduce((sum, move) => sum + move.feeSats, 0n)
    if (moved < missing) return no(`${missing - moved} of ${netSats} sats are missing when all that others can send has arrived`)
    const coins = [...target.coins, ...moves.flatMap((move) => coinsOf(move.amountSats, target))]
    const inputs = feeToSpend(target, coins, netSats)
    if (inputs === undefined) {
      // What spending there costs is missing too.
      const short = netSats + feeOfAll(target, coins) - (sumOf(coins) - target.keptSats)
      missing += short > 0n ? short : 1n
      continue
    }
    const feeSats = moveFees + inputs
    if (feeSats > maxFeeSats) return no(`it would cost ${feeSats} sats in fees, and at most ${maxFeeSats} are allowed`)
    return { isPossible: true, target: target.url, moves, feeSats }
  }
  return no('its fees eat what arrives')
}

/** From as few as can be, the fullest first. */
function gatherFrom(sources: readonly PurseMint[], to: string, amountSats: bigint, reserveOf: ReserveOf): PlannedMove[] {
  const moves: PlannedMove[] = []
  let rest = amountSats
  for (const source of sources) {
    if (rest <= 0n) break
    const move = mostMovable(source, to, rest, reserveOf)
    if (move === undefined) continue
    moves.push(move)
    rest -= move.amountSats
  }
  return moves
}

/** As much of `wantedSats` as this mint can send with all that it costs. */
export function mostMovable(source: PurseMint, to: string, wantedSats: bigint, reserveOf: ReserveOf): PlannedMove | undefined {
  let amountSats = wantedSats < free(source) ? wantedSats : free(source)
  for (let round = 0; round < MAX_ROUNDS && amountSats > 0n; round++) {
    const reserve = reserveOf(source.url, to, amountSats)
    const inputs = feeToSpend(source, source.coins, amountSats + reserve)
    if (inputs !== undefined) return { from: source.url, to, amountSats, feeSats: reserve + inputs }
    const left = free(source) - reserve - feeOfAll(source, source.coins)
    amountSats = left < amountSats ? left : amountSats - 1n
  }
  return undefined
}

/** What may leave a mint at all. */
export function free({ coins, keptSats }: Pick<PurseMint, 'coins' | 'keptSats'>): bigint {
  const rest = sumOf(useful(coins)) - keptSats
  return rest > 0n ? rest : 0n
}

/** What the inputs cost to spend so much there; undefined where these coins are not enough. */
export function feeToSpend(mint: PurseMint, coins: readonly Coin[], netSats: bigint): bigint | undefined {
  const chosen = selectCoins(coins, netSats)
  if (chosen === undefined) return undefined
  const fee = inputFee(chosen) * rounds(mint, chosen)
  return sumOf(useful(coins)) - mint.keptSats >= netSats + fee ? fee : undefined
}

/** An upper bound of what spending all of them costs. */
const feeOfAll = (mint: PurseMint, coins: readonly Coin[]): bigint => inputFee(useful(coins)) * rounds(mint, useful(coins))

/** More than the mint takes at once are made into larger ones first, which costs as much again. */
const rounds = ({ maxInputs }: PurseMint, coins: readonly Coin[]): bigint => (coins.length > maxInputs ? 2n : 1n)

const useful = (coins: readonly Coin[]): Coin[] => coins.filter((coin) => coin.amountSats * 1000n > BigInt(coin.feePpk))

const coinsOf = (amountSats: bigint, { sizes, feePpk }: PurseMint): Coin[] =>
  (splitAmount(amountSats, sizes) ?? []).map((size) => ({ amountSats: size, feePpk }))
