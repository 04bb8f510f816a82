/** How long what was said is kept, and how much of it. */
import type { Config } from '../base/config.ts'
import type { Scope } from '../base/scope.ts'
import { sweepMessages, trimMessages } from '../store/sessions/messages.ts'
import type { Store } from '../store/store.ts'

const DAY_MS = 86_400_000
const LIMIT = 500

export interface Forgetting {
  readonly store: Store
  readonly scope: Pick<Scope, 'clock' | 'isClosing'>
  readonly owner: string
  readonly groups: readonly string[]
  readonly retention: Pick<Config['retention'], 'session_messages_days' | 'session_messages_per_group'>
}

/** Forgets what is too old or too much of one group; never what is still to be sent. */
export async function forgetMessages({ store, scope, owner, groups, retention }: Forgetting): Promise<void> {
  for (const groupId of groups) await store.write(trimMessages({ owner, groupId, keep: retention.session_messages_per_group }))
  const before = scope.clock.now() - retention.session_messages_days * DAY_MS
  while (!scope.isClosing && (await store.write(sweepMessages({ owner, before, limit: LIMIT }))) >= LIMIT);
}
