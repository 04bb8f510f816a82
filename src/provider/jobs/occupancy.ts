/** How many open jobs each customer has: counted from the moment of admission, so that a burst cannot outrun the limit. */

export interface Occupancy {
  add(jobId: string, customerPubkey: string): void
  remove(jobId: string): void
  of(customerPubkey: string): number
  has(jobId: string): boolean
}

export function createOccupancy(): Occupancy {
  const customers = new Map<string, string>()
  const counts = new Map<string, number>()
  return {
    add(jobId, customerPubkey) {
      if (customers.has(jobId)) return
      customers.set(jobId, customerPubkey)
      counts.set(customerPubkey, (counts.get(customerPubkey) ?? 0) + 1)
    },
    remove(jobId) {
      const customer = customers.get(jobId)
      if (customer === undefined) return
      customers.delete(jobId)
      const left = (counts.get(customer) ?? 1) - 1
      if (left > 0) counts.set(customer, left)
      else counts.delete(customer)
    },
    of: (customerPubkey) => counts.get(customerPubkey) ?? 0,
    has: (jobId) => customers.has(jobId),
  }
}

export interface Budget {
  /** Whether one more is allowed in this window; counts it. */
  take(key: string, nowMs: number): boolean
}

const MAX_KEYS = 10_000

/** At most `limit` per key and window; forgets everything when the window ends or too many keys came. */
export function createBudget(limit: number, windowMs: number): Budget {
  let startedAt = 0
  const used = new Map<string, number>()
  return {
    take(key, nowMs) {
      if (nowMs - startedAt >= windowMs || used.size >= MAX_KEYS) {
        startedAt = nowMs
        used.clear()
      }
      const count = (used.get(key) ?? 0) + 1
      used.set(key, count)
      return count <= limit
    },
  }
}
