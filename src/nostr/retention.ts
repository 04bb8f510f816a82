/** Forgetting what is old: claims, finished outbox messages, look-ups. A little at a time, so that nothing is held up. */
import type { Config } from '../base/config.ts'
import type { Scope } from '../base/scope.ts'
import type { Command } from '../store/commands.ts'
import { sweepLettersIn, sweepLettersOut } from '../store/nostr/letters.ts'
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
/** Longer than any letter is acted on, or tried. */
const LETTERS_DAYS = 30

export interface RetentionDeps {
  readonly scope: Scope
  readonly store: Store
  config(): Config
}

/** Sweeps every hour. */
export function startRetention(deps: RetentionDeps): void {
  let waitMs = FIRST_MS
  deps.scope.every(
    'sweep',
    () => waitMs,
    async () => {
      waitMs = EVERY_MS
      await sweepOnce(deps)
    },
  )
}

/** Removes all that is past its time. */
export async function sweepOnce({ scope, store, config }: RetentionDeps): Promise<void> {
  const { seen_events_days, outbox_days } = config().retention
  const before = (days: number) => scope.clock.now() - days * DAY_MS
  const sweeps: (() => Command<number>)[] = [
    () => sweepSeenEvents({ before: before(seen_events_days), limit: LIMIT }),
    () => sweepOutbox({ before: before(outbox_days), limit: LIMIT }),
    () => sweepRefusals({ before: before(outbox_days), limit: LIMIT }),
    () => sweepRelayLists({ before: before(RELAY_LISTS_DAYS), limit: LIMIT }),
    () => sweepLettersIn({ before: before(LETTERS_DAYS), limit: LIMIT }),
    () => sweepLettersOut({ before: before(LETTERS_DAYS), limit: LIMIT }),
  ]
  for (const sweep of sweeps) while (!scope.isClosing && (await store.write(sweep())) >= LIMIT);
}
