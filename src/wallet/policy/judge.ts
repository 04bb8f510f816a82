/**
 * What may be spent, pure: by whom, how much, to whom, over which rail. It says at once what no circumstance can change, and which
 * windows the spend must fit; those are counted where they are held, in the commit that makes the operation (store/money/budgets.ts).
 */
import type { PairLimit, SpendWindow } from '../../store/money/budgets.ts'

/** How sats move: tokens, Lightning by a mint's quotes, the owner's own Lightning wallet, or from wallet to wallet of this home. */
export type Rail = 'ecash' | 'mint' | `nwc:${string}` | 'own'

/** Limits of one subject; what is left out does not bind. Windows roll: an hour is the last 60 minutes, a day the last 24 hours. */
export interface SpendLimits {
  readonly perTxSats?: bigint
  readonly perTickSats?: bigint
  readonly perHourSats?: bigint
  readonly perDaySats?: bigint
  /** To one counterparty in a day; all that nobody can name are one. */
  readonly perCounterpartySats?: bigint
  /** `ecash`, `mint`, `nwc`; absent or empty: any. */
  readonly rails?: readonly string[]
  /** Keys in hex, addresses and hosts. Where there are any, nobody else is paid. */
  readonly allow?: readonly string[]
  /** Never paid. */
  readonly deny?: readonly string[]
  /** Rest for two that pay one another so often within a time; 0 payments: never. */
  readonly pair?: { readonly payments: number; readonly windowMs: number }
}

export interface SpendOrder {
  readonly amountSats: bigint
  readonly rail: Rail
  readonly tickId?: string | undefined
  /** Who is paid: a key in hex, or else an address or host; undefined where nobody can say. */
  readonly counterparty?: string | undefined
  /** By what lists may mean it besides: its address, the host that is asked. */
  readonly names?: readonly string[] | undefined
  /** Milliseconds since the epoch. */
  readonly at: number
}

export type SpendVerdict =
  | { readonly allowed: true; readonly windows: readonly SpendWindow[]; readonly pair?: PairLimit }
  | { readonly allowed: false; readonly rule: 'rail' | 'deny' | 'allow'; readonly reason: string }

const HOUR_MS = 3_600_000
const DAY_MS = 86_400_000

export function judgeSpend(order: SpendOrder, limits: SpendLimits): SpendVerdict {
  const { rails = [], allow = [], deny = [] } = limits
  const names = namesOf(order)
  const denied = names.find((name) => deny.some((entry) => means(entry, name)))
  if (denied !== undefined) return { allowed: false, rule: 'deny', reason: `${denied} is on the list of those who are never paid` }
  const isOwn = order.rail === 'own'
  if (!isOwn && rails.length > 0 && !rails.includes(order.rail.split(':')[0] ?? '')) {
    return { allowed: false, rule: 'rail', reason: `nothing is paid over ${order.rail}, only over ${rails.join(', ')}` }
  }
  if (!isOwn && allow.length > 0 && !names.some((name) => allow.some((entry) => means(entry, name)))) {
    return { allowed: false, rule: 'allow', reason: `${names[0] ?? 'whoever asks this'} is not on the list of those who may be paid` }
  }
  return { allowed: true, windows: windowsOf(order, limits), ...pairOf(order, limits) }
}

function windowsOf({ at, tickId, counterparty = '' }: SpendOrder, limits: SpendLimits): SpendWindow[] {
  const { perTxSats, perTickSats, perHourSats, perDaySats, perCounterpartySats } = limits
  const windows: SpendWindow[] = []
  if (perTxSats !== undefined) windows.push({ name: 'per transaction', limitSats: perTxSats, counts: 'this' })
  if (perTickSats !== undefined && tickId !== undefined) windows.push({ name: 'per tick', limitSats: perTickSats, counts: 'tick', tickId })
  if (perHourSats !== undefined) windows.push({ name: 'per hour', limitSats: perHourSats, counts: 'since', since: at - HOUR_MS })
  if (perDaySats !== undefined) windows.push({ name: 'per day', limitSats: perDaySats, counts: 'since', since: at - DAY_MS })
  if (perCounterpartySats !== undefined)
    windows.push({
      name: 'per counterparty and day',
      limitSats: perCounterpartySats,
      counts: 'since',
      since: at - DAY_MS,
      counterparty: counterparty.toLowerCase(),
    })
  return windows
}

function pairOf({ at, counterparty }: SpendOrder, { pair }: SpendLimits): { pair?: PairLimit } {
  if (pair === undefined || pair.payments === 0 || counterparty === undefined) return {}
  return { pair: { counterparty: counterparty.toLowerCase(), payments: pair.payments, since: at - pair.windowMs } }
}

function namesOf({ counterparty, names = [] }: SpendOrder): string[] {
  return [...(counterparty === undefined ? [] : [counterparty]), ...names].map((name) => name.toLowerCase())
}

/** A host means every address and subdomain of it. */
function means(entry: string, name: string): boolean {
  const [wanted, host] = [entry.toLowerCase(), name.slice(name.lastIndexOf('@') + 1)]
  return name === wanted || host === wanted || (wanted.includes('.') && !wanted.includes('@') && host.endsWith(`.${wanted}`))
}
