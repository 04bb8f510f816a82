/** Commits what is done and must not be lost. */
import type { Clock } from '../base/clock.ts'
import { isPylonError } from '../base/errors.ts'
import type { Scope } from '../base/scope.ts'
import { all, type Command } from './commands.ts'
import type { Store } from './store.ts'

const RETRY_MS = 1000

/** A scope ends the wait for space with itself; a clock does not. */
export type Persisting = { readonly store: Store } & ({ readonly scope: Pick<Scope, 'sleep'> } | { readonly clock: Pick<Clock, 'sleep'> })

/** Commits the commands as one; where the disk is full or another program holds the database it waits until they can be. */
export async function persist(deps: Persisting, ...commands: readonly Command<unknown>[]): Promise<void> {
  const command = all(...commands)
  for (;;) {
    try {
      await deps.store.write(command)
      return
    } catch (error) {
      if (!isPylonError(error, 'disk_full') && !isPylonError(error, 'database_busy')) throw error
      await ('scope' in deps ? deps.scope : deps.clock).sleep(RETRY_MS)
    }
  }
}

/** The same, false when the row has moved on meanwhile (cancelled, paid twice): then nothing was written. */
export async function persistIfUnmoved(deps: Persisting, ...commands: readonly Command<unknown>[]): Promise<boolean> {
  try {
    await persist(deps, ...commands)
    return true
  } catch (error) {
    if (isPylonError(error, 'conflict')) return false
    throw error
  }
}
