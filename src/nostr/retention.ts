/** Forgetting what is old: claims, finished outbox messages, look-ups. A little at a time, so that nothing is held up. */
import type { Clock } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Command } from '../store/commands.ts'
import { sweepOutbox, sweepRefusals } from '../store/nostr/outbox.ts'
import { sweepRelayLists } from '../store/nostr/relay-lists.ts'
import { sweepSeenEvents } from '../store/nostr/seen-events.ts'
import type { Store } from '../store/store.ts'

const FIRST_MS = 60_000
const EVERY_MS = 3_600_000
const DAY_MS = 86_400_000
/** Rows in one commit. */
const LIMIT = 500
const RELAY_LISTS_DAYS = 30

export interface RetentionDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  config(): Config
}

/** Sweeps every hour until the returned function is called. */
export function startRetention(deps: RetentionDeps): () => void {
  const { clock, logger } = deps
  let cancel = () => {}
  let stopped = false
  const schedule = (ms: number) => {
    cancel = clock.after(ms, () => {
      sweepOnce(deps, () => stopped)
        .catch((error: unknown) => logger.warn({ error: messageOf(error) }, 'old rows could not be removed'))
        .finally(() => {
          if (!stopped) schedule(EVERY_MS)
        })
    })
  }
  schedule(FIRST_MS)
  return () => {
    stopped = true
    cancel()
  }
}

/** Removes all that is past its time. */
export async function sweepOnce(deps: RetentionDeps, isStopped: () => boolean = () => false): Promise<void> {
  const { store, clock } = deps
  const { seen_events_days, outbox_days } = deps.config().retention
  const before = (days: number) => clock.now() - days * DAY_MS
  const sweeps: (() => Command<number>)[] = [
    () => sweepSeenEvents({ before: before(seen_events_days), limit: LIMIT }),
    () => sweepOutbox({ before: before(outbox_days), limit: LIMIT }),
    () => sweepRefusals({ before: before(outbox_days), limit: LIMIT }),
    () => sweepRelayLists({ before: before(RELAY_LISTS_DAYS), limit: LIMIT }),
  ]
  for (const sweep of sweeps) while (!isStopped() && (await store.write(sweep())) >= LIMIT);
}
