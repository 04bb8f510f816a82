/** What is kept of jobs: those at rest go after a while, and work that nobody paid for has little room, whatever its age. */
import type { Config } from '../../base/config.ts'
import type { Scope } from '../../base/scope.ts'
import type { Command } from '../../store/commands.ts'
import { sweepJobs } from '../../store/selling/jobs.ts'
import { boundUnpaidBytes, sweepJobMessages, sweepStrangersQuotes, sweepUnpaidJobs } from '../../store/selling/unpaid-jobs.ts'
import type { Store } from '../../store/store.ts'

const RETENTION_EVERY_MS = 3_600_000
const UNPAID_EVERY_MS = 60_000
const BATCH = 200
/** Free jobs that were done and stay as one line each. */
const DONE_KEPT = 1000
const DAY_MS = 86_400_000

export class Retention {
  readonly #deps: { readonly store: Store; readonly scope: Scope; readonly config: () => Config }
  #nextRestingAt = 0
  #nextUnpaidAt = 0

  constructor(deps: { readonly store: Store; readonly scope: Scope; readonly config: () => Config }) {
    this.#deps = deps
  }

  async run(): Promise<void> {
    const { provider, retention } = this.#deps.config()
    const now = this.#deps.scope.clock.now()
    await this.#each(() => boundUnpaidBytes({ maxBytes: provider.unpaid_bytes }), 1)
    if (now >= this.#nextUnpaidAt) {
      this.#nextUnpaidAt = now + UNPAID_EVERY_MS
      await this.#sweepUnpaid(now - retention.unpaid_jobs_minutes * 60_000)
    }
    if (now >= this.#nextRestingAt) {
      this.#nextRestingAt = now + RETENTION_EVERY_MS
      const before = now - retention.finished_jobs_days * DAY_MS
      await this.#each(() => sweepJobs({ before, cancelsBefore: now - 2 * provider.max_age_s * 1000, limit: BATCH }), BATCH)
    }
  }

  /** Forgotten soon, with what was said about it. */
  async #sweepUnpaid(before: number): Promise<void> {
    await this.#each(() => sweepUnpaidJobs({ before, keepDone: DONE_KEPT, limit: BATCH }), BATCH)
    await this.#each(() => sweepJobMessages({ before, limit: BATCH }), BATCH)
    await this.#each(() => sweepStrangersQuotes({ limit: BATCH }), BATCH)
    if (!this.#deps.scope.isClosing) await this.#deps.store.shrink()
  }

  /** Some at a time, until fewer than `full` were found. */
  async #each(sweepSome: () => Command<number>, full: number): Promise<void> {
    while (!this.#deps.scope.isClosing && (await this.#deps.store.write(sweepSome())) >= full);
  }
}
