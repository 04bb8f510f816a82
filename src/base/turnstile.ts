/** So many at once; the others wait in the order in which they came. */
export type Turnstile = <T>(work: () => Promise<T>) => Promise<T>

export function createTurnstile(atOnce: number): Turnstile {
  const waiting: (() => void)[] = []
  let inside = 0
  return async (work) => {
    if (inside < atOnce) inside++
    else await new Promise<void>((resolve) => waiting.push(resolve))
    try {
      return await work()
    } finally {
      // Who waits takes the place over.
      const next = waiting.shift()
      if (next === undefined) inside--
      else next()
    }
  }
}
