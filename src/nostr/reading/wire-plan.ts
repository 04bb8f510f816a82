/** What one relay is asked for many subscriptions together: alike filters in one, few requests, within what the relay takes. Pure. */
import type { Filter } from '../types.ts'

export interface Wanted<T> {
  readonly filter: Filter
  readonly by: T
}

/** A filter as it goes out, and for whom. */
export interface WireFilter<T> {
  readonly filter: Filter
  readonly by: ReadonlySet<T>
}

export interface PlanRules {
  readonly maxFilters: number
  /** Of one request as text. */
  readonly maxChars: number
  /** As few as that, if it can be. */
  readonly maxRequests: number
  /** Shapes that relays have refused: each goes alone. */
  readonly apart: ReadonlySet<string>
}

type ListKey = 'ids' | 'authors' | 'kinds' | `#${string}`

/** Values of one list of one filter, tried in this order: some stores take ten and say so nowhere, and many short filters make many requests. */
const LIST_SIZES = [10, 50, 250, 5000]
/** Around each filter: since, until, limit. */
const FILTER_CHARS = 70
/** Around the request: its type and id. */
const REQUEST_CHARS = 90

const listsOf = (filter: Filter): [ListKey, readonly unknown[]][] =>
  Object.entries(filter).filter((entry): entry is [ListKey, readonly unknown[]] => Array.isArray(entry[1]))

/** The list in which filters that are alike otherwise are put together: who is meant, else who wrote. */
const mergedKey = (filter: Filter): ListKey | undefined =>
  filter['#p'] !== undefined ? '#p' : filter.authors !== undefined ? 'authors' : undefined

/** What the filter asks, whoever is meant. */
export function shapeOfFilter(filter: Filter): string {
  const key = mergedKey(filter)
  const entries = Object.entries(filter).sort(([a], [b]) => (a < b ? -1 : 1))
  return JSON.stringify([key ?? '', ...entries.filter(([name]) => name !== key)])
}

/** One filter for all that are alike but for the keys. */
export function mergeFilters<T>(wanted: readonly Wanted<T>[]): WireFilter<T>[] {
  const merged = new Map<string, { filter: Filter; values: Map<string, Set<T>>; by: Set<T> }>()
  for (const { filter, by } of wanted) {
    const shape = shapeOfFilter(filter)
    const entry = merged.get(shape) ?? { filter, values: new Map<string, Set<T>>(), by: new Set<T>() }
    merged.set(shape, entry)
    entry.by.add(by)
    const key = mergedKey(filter)
    for (const value of (key === undefined ? undefined : (filter[key as '#p'] ?? [])) ?? []) {
      entry.values.set(value, (entry.values.get(value) ?? new Set<T>()).add(by))
    }
  }
  return [...merged.values()].map(({ filter, values, by }) => {
    const key = mergedKey(filter)
    return { filter: key === undefined ? filter : { ...filter, [key]: [...values.keys()].sort() }, by }
  })
}

/** In two, by its longest list; undefined where every list has one value. */
export function halveFilter<T>({ filter, by }: WireFilter<T>): [WireFilter<T>, WireFilter<T>] | undefined {
  const [longest] = listsOf(filter).sort(([, a], [, b]) => b.length - a.length)
  if (longest === undefined || longest[1].length < 2) return undefined
  const [key, values] = longest
  const middle = Math.ceil(values.length / 2)
  return [
    { filter: { ...filter, [key]: values.slice(0, middle) }, by },
    { filter: { ...filter, [key]: values.slice(middle) }, by },
  ]
}

const charsOf = (filter: Filter): number => JSON.stringify(filter).length + FILTER_CHARS

function cut<T>(wire: WireFilter<T>, size: number, maxChars: number): WireFilter<T>[] {
  const isTooLong = listsOf(wire.filter).some(([, values]) => values.length > size) || charsOf(wire.filter) + REQUEST_CHARS > maxChars
  const halves = isTooLong ? halveFilter(wire) : undefined
  return halves === undefined ? [wire] : halves.flatMap((half) => cut(half, size, maxChars))
}

function pack<T>(filters: readonly WireFilter<T>[], rules: PlanRules): WireFilter<T>[][] {
  const alone = filters.filter(({ filter }) => rules.apart.has(shapeOfFilter(filter))).map((wire) => [wire])
  const requests: WireFilter<T>[][] = []
  let chars = 0
  for (const wire of filters) {
    if (rules.apart.has(shapeOfFilter(wire.filter))) continue
    const more = charsOf(wire.filter)
    const last = requests.at(-1)
    if (last === undefined || last.length >= rules.maxFilters || chars + more > rules.maxChars) {
      requests.push([wire])
      chars = REQUEST_CHARS + more
    } else {
      last.push(wire)
      chars += more
    }
  }
  return [...requests, ...alone]
}

export function planRequests<T>(wanted: readonly Wanted<T>[], rules: PlanRules): WireFilter<T>[][] {
  const merged = mergeFilters(wanted)
  let plan: WireFilter<T>[][] = []
  for (const size of LIST_SIZES) {
    plan = pack(
      merged.flatMap((wire) => cut(wire, size, rules.maxChars)),
      rules,
    )
    if (plan.length <= rules.maxRequests) break
  }
  return plan
}
