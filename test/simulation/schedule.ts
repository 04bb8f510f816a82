/**
 * What happens in one run: what is bought, sent and paid, and what goes wrong meanwhile. All of it is drawn from the seed
 * before the run begins, so that any of it can be left out and the rest stays as it was.
 */
import { type Random, randomBelow, seededRandom } from '../../src/base/random.ts'
import { MINT_ERRORS } from '../../src/sandbox/mint/errors.ts'
import type { Weather } from './network.ts'
import { RELAYS } from './places.ts'
import type { ShopMood } from './shop.ts'

/** What somebody does; `salt` seeds whatever chance it needs itself. */
export type Deed =
  | {
      readonly do: 'job'
      readonly words: number
      readonly payWith: 'invoice' | 'token'
      readonly timeoutMs: number
      readonly cancelAfterMs?: number
    }
  /** An owner hands a token to the other node, or offers it to two wallets at once. */
  | { readonly do: 'token'; readonly sats: number; readonly isRace: boolean }
  /** An owner pays an invoice of the other node; twice at once, where it is a race. */
  | { readonly do: 'pay'; readonly sats: number; readonly isRace: boolean }
  /** A program elsewhere pays invoices of the other node by a connection with a budget; each request comes more than once. */
  | { readonly do: 'nwc'; readonly sats: readonly number[]; readonly budgetSats: number; readonly isRace: boolean }
  /** What the provider holds above leaves to the address of an agent of the customer. */
  | { readonly do: 'payout'; readonly aboveSats: number; readonly keepSats: number }
  /** The provider pays an invoice of the customer from its Lightning wallet; once: it leaves it at that where it is told that this failed. */
  | { readonly do: 'wallet pay'; readonly sats: number; readonly isOnce: boolean }
  /** An owner zaps the node that sells with ecash (NIP-61). */
  | { readonly do: 'nutzap'; readonly sats: number }
  /** The provider asks for ecash (NUT-18), by letter or in a shop; the customer pays, some pay twice. */
  | { readonly do: 'request'; readonly sats: number; readonly isSingleUse: boolean; readonly isTwice: boolean; readonly shop?: ShopMood }
  /** The customer rents a machine of the provider. */
  | {
      readonly do: 'lease'
      readonly seconds: number
      readonly payWith: 'invoice' | 'token'
      /** It stays to the end, stays longer, leaves, leaves before it has paid, or never pays. */
      readonly end: 'stays' | 'extends' | 'leaves' | 'cancels' | 'pays not'
      readonly afterMs: number
    }
  | { readonly do: 'fund'; readonly sats: number }
  | { readonly do: 'zap'; readonly sats: number }

export type Fault =
  | { readonly fault: 'weather'; readonly part: keyof Weather; readonly value: number }
  | { readonly fault: 'cut' | 'silence'; readonly relay: number }
  | { readonly fault: 'relay down'; readonly relay: number; readonly forMs: number }
  | { readonly fault: 'mint down'; readonly mint: number; readonly forMs: number }
  | { readonly fault: 'melts hang'; readonly mint: number; readonly count: number; readonly end: 'paid' | 'failed'; readonly forMs: number }
  | { readonly fault: 'rotation'; readonly mint: number; readonly feePpk: number | undefined }
  /** The mint leaves keysets that are not active out of its lists. */
  | { readonly fault: 'keysets lost'; readonly mint: number; readonly forMs: number }
  /** Instead of doing it the mint answers with an error. */
  | {
      readonly fault: 'mint error'
      readonly mint: number
      readonly path: string
      readonly code: keyof typeof MINT_ERRORS
      readonly count: number
    }
  /** What proxies answer, before the mint has heard of it or after it has done it. */
  | {
      readonly fault: 'proxy error'
      readonly mint: number
      readonly path: string
      readonly status: number
      readonly isAfter: boolean
      readonly count: number
    }
  /** What is settled is called pending. */
  | { readonly fault: 'states late'; readonly mint: number; readonly forMs: number }
  /** The next machines are not made; all are gone; nobody can look at them. */
  | { readonly fault: 'machines fail'; readonly count: number }
  | { readonly fault: 'machines lost' }
  | { readonly fault: 'machines away'; readonly forMs: number }
  | { readonly fault: 'kill'; readonly node: number; readonly commits: number; readonly when: 'before' | 'after'; readonly downMs: number }

export type Step = { readonly atMs: number; readonly salt: number } & (Deed | Fault)

export interface Schedule {
  readonly seed: number
  /** The mints take no fees. */
  readonly isFree: boolean
  readonly mints: 1 | 2
  /** The provider is paid into a Lightning wallet of its own. */
  readonly hasWallet: boolean
  readonly hasAgents: boolean
  /** The provider rents machines out. */
  readonly hasMachines: boolean
  readonly steps: readonly Step[]
}

/** Until then something may begin. */
const DEEDS_MS = 45_000
const FAULT_MS = 35_000
/** A machine is asked for so early that what goes wrong can still meet it at work. */
const RENT_MS = 15_000
type Who = Omit<Schedule, 'seed' | 'steps'>

const PATHS = ['/v1/swap', '/v1/melt/bolt11', '/v1/melt/quote/bolt11', '/v1/mint/bolt11', '/v1/mint/quote/bolt11', '/v1/checkstate']
const CODES = Object.keys(MINT_ERRORS) as (keyof typeof MINT_ERRORS)[]
const STATUSES = [429, 500, 502, 503, 504]
/** Most are paid, and had for a while. */
const ENDS = ['stays', 'stays', 'stays', 'extends', 'extends', 'extends', 'leaves', 'leaves', 'cancels', 'pays not'] as const
const SHOP_MOODS: readonly ShopMood[] = ['takes', 'is busy', 'refuses', 'lies']

export function scheduleOf(seed: number): Schedule {
  const random = seededRandom(seed)
  const below = (count: number) => randomBelow(random, count)
  const isFree = below(2) === 0
  const hasAgents = below(2) === 0
  const mints = below(2) === 0 ? 1 : 2
  const hasWallet = below(3) === 0
  const hasMachines = below(3) === 0
  const world = { isFree, hasAgents, mints, hasWallet, hasMachines } as const
  const steps = [...deeds(random, world), ...faults(random, world)].map((step) => ({
    atMs: below(DEEDS_MS),
    salt: below(2 ** 32),
    ...step,
  }))
  return { seed, ...world, steps }
}

function deeds(random: Random, { hasAgents, mints, hasWallet, hasMachines }: Who): (Deed & { readonly atMs?: number })[] {
  const below = (count: number) => randomBelow(random, count)
  const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T
  const job = (): Deed => ({
    ...{ do: 'job', words: 12 + below(20), payWith: below(5) < 3 ? 'invoice' : 'token', timeoutMs: 100_000 + below(300_000) },
    ...(below(4) === 0 ? { cancelAfterMs: below(20_000) } : {}),
  })
  const others: (() => Deed)[] = [
    () => ({ do: 'token', sats: 2 + below(30), isRace: below(3) === 0 }),
    () => ({ do: 'pay', sats: 1 + below(30), isRace: below(3) === 0 }),
    () => ({
      ...{ do: 'nwc', sats: Array.from({ length: 1 + below(3) }, () => 1 + below(12)), budgetSats: 5 + below(30), isRace: below(2) === 0 },
    }),
    () => ({ do: 'nutzap', sats: 1 + below(20) }),
    () => ({
      ...{ do: 'request', sats: 1 + below(20), isSingleUse: below(2) === 0, isTwice: below(3) === 0 },
      ...(below(2) === 0 ? { shop: pick(SHOP_MOODS) } : {}),
    }),
    ...(hasWallet ? [(): Deed => ({ do: 'wallet pay', sats: 1 + below(30), isOnce: below(2) === 0 })] : []),
    ...(hasAgents ? [(): Deed => ({ do: 'zap', sats: 1 + below(15) }), (): Deed => ({ do: 'fund', sats: 1 + below(20) })] : []),
  ]
  const lease = (): Deed & { readonly atMs: number } => ({
    ...{ do: 'lease', seconds: 16 + 2 * below(20), payWith: below(2) === 0 ? 'invoice' : 'token' },
    ...{ end: pick(ENDS), afterMs: below(15_000), atMs: below(RENT_MS) },
  })
  const list: (Deed & { readonly atMs?: number })[] = Array.from({ length: 1 + below(hasMachines ? 2 : 3) }, hasMachines ? lease : job)
  if (hasMachines) others.push(job)
  // What no mint of the customer can pay alone, before it has spent much.
  if (mints === 2 && below(5) < 2) list.push({ do: 'pay', sats: 116 + below(20), isRace: below(3) === 0, atMs: below(RENT_MS) })
  if (hasAgents && below(5) < 2) {
    // What may go to fees, at least 10 sats, is kept back.
    list.push({ do: 'payout', aboveSats: 18 + below(8), keepSats: below(4) })
    list.push({ do: 'token', sats: 30 + below(20), isRace: false })
  }
  for (let i = 1 + below(3); i > 0; i--) list.push((others[below(others.length)] as () => Deed)())
  return list
}

/** Those of the weather are there from the start; of the others each seed has some. */
function faults(random: Random, { isFree, mints, hasMachines }: Who): (Fault & { readonly atMs?: number })[] {
  const below = (count: number) => randomBelow(random, count)
  const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T
  const some = (most: number) => random.float() * most
  const weather = {
    ...{ maxMs: 50 + below(3000), requestLost: some(0.1), answerLost: some(0.2), answerLate: some(0.1) },
    ...{ requestTwice: some(0.1), frameLost: some(0.15), frameTwice: some(0.3) },
  }
  const list: (Fault & { readonly atMs?: number })[] = Object.entries(weather).map(([part, value]) => ({
    ...{ fault: 'weather', part: part as keyof Weather, value, atMs: 0 },
  }))
  const sometimes = (chance: number, make: () => Fault & { readonly atMs?: number }) => {
    if (random.float() < chance) list.push(make())
  }
  for (const relay of RELAYS.keys()) {
    sometimes(0.6, () => ({ fault: 'cut', relay }))
    sometimes(0.6, () => ({ fault: 'silence', relay }))
    sometimes(0.6, () => ({ fault: 'relay down', relay, forMs: below(FAULT_MS) }))
  }
  for (let mint = 0; mint < mints; mint++) {
    sometimes(0.5, () => ({ fault: 'mint down', mint, forMs: below(FAULT_MS) }))
    sometimes(0.5, () => ({ fault: 'melts hang', mint, count: 1 + below(2), end: pick(['paid', 'failed']), forMs: below(FAULT_MS) }))
    sometimes(0.3, () => ({ fault: 'rotation', mint, feePpk: isFree ? 0 : pick([undefined, 0, 100]) }))
    sometimes(0.3, () => ({ fault: 'keysets lost', mint, forMs: below(FAULT_MS) }))
    sometimes(0.3, () => ({ fault: 'states late', mint, forMs: below(FAULT_MS) }))
  }
  if (hasMachines) {
    sometimes(0.4, () => ({ fault: 'machines fail', count: 1 + below(2), atMs: below(2 * RENT_MS) }))
    sometimes(0.4, () => ({ fault: 'machines lost', atMs: RENT_MS + below(DEEDS_MS) }))
    sometimes(0.4, () => ({ fault: 'machines away', forMs: below(2 * FAULT_MS) }))
    // Longer than some of them are rented.
    sometimes(0.2, () => ({
      fault: 'kill',
      node: 0,
      commits: 1 + below(25),
      when: 'after',
      downMs: below(2 * FAULT_MS),
      atMs: RENT_MS + below(RENT_MS),
    }))
  }
  for (let i = below(3); i > 0; i--)
    list.push({ fault: 'mint error', mint: below(mints), path: pick(PATHS), code: pick(CODES), count: 1 + below(3) })
  for (let i = below(3); i > 0; i--)
    list.push({
      fault: 'proxy error',
      mint: below(mints),
      path: pick(PATHS),
      status: pick(STATUSES),
      isAfter: below(2) === 0,
      count: 1 + below(3),
    })
  for (const node of [0, 1])
    sometimes(0.7, () => ({ fault: 'kill', node, commits: 1 + below(25), when: pick(['before', 'after']), downMs: below(30_000) }))
  return list
}

export const inOrder = (steps: readonly Step[]): Step[] => [...steps].sort((a, b) => a.atMs - b.atMs)

/** A step as a line for people. */
export function lineOf({ atMs, salt: _salt, ...step }: Step): string {
  const { name, ...rest } = 'do' in step ? { ...step, name: step.do } : { ...step, name: step.fault }
  const details = Object.entries(rest).flatMap(([key, value]) => (key === 'do' || key === 'fault' ? [] : [`${key}=${String(value)}`]))
  return `${(atMs / 1000).toFixed(1).padStart(6)} s  ${name} ${details.join(' ')}`
}
