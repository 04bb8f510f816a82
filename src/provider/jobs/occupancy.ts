/** How many open jobs each customer has: counted from the moment of admission, so that a burst cannot outrun the limit. */

export class Occupancy {
  readonly #customers = new Map<string, string>()
  readonly #counts = new Map<string, number>()

  add(jobId: string, customerPubkey: string): void {
    if (this.#customers.has(jobId)) return
    this.#customers.set(jobId, customerPubkey)
    this.#counts.set(customerPubkey, this.of(customerPubkey) + 1)
  }

  remove(jobId: string): void {
    const customer = this.#customers.get(jobId)
    if (customer === undefined) return
    this.#customers.delete(jobId)
    const left = this.of(customer) - 1
    if (left > 0) this.#counts.set(customer, left)
    else this.#counts.delete(customer)
  }

  of(customerPubkey: string): number {
    return this.#counts.get(customerPubkey) ?? 0
  }

  has(jobId: string): boolean {
    return this.#customers.has(jobId)
  }
}
