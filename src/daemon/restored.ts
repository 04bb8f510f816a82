/** After a restore: the database is older than the mints, so every wallet asks them for what it made since, before its counters are used again. */
import { messageOf } from '../base/errors.ts'
import { walletOwners } from '../store/held-value.ts'
import { getSetting, putSetting } from '../store/settings.ts'
import type { Services } from './services.ts'

/** Setting: ms since the epoch of the last restore. */
export const RESTORED_AT_KEY = 'restored_at'
/** Setting: the restore after which the mints were asked. */
const CHECKED_KEY = 'restored_checked'
const FIRST_RETRY_MS = 5000
const MAX_RETRY_MS = 10 * 60_000

/** Does nothing on a database that was never restored; else resolves after the first try, which goes on by itself until every mint has answered. */
export async function askMintsAfterRestore(services: Services, signal: AbortSignal): Promise<void> {
  if (await askOnce(services, signal, FIRST_RETRY_MS)) return
  void (async () => {
    for (let waitMs = FIRST_RETRY_MS; !signal.aborted; waitMs = Math.min(waitMs * 2, MAX_RETRY_MS)) {
      await services.clock.sleep(waitMs, signal).catch(() => undefined)
      if (signal.aborted || (await askOnce(services, signal, Math.min(waitMs * 2, MAX_RETRY_MS)))) return
    }
  })()
}

/** @returns whether there is nothing left to ask. */
async function askOnce(services: Services, signal: AbortSignal, retryMs: number): Promise<boolean> {
  const { store, clock, logger } = services
  const restoredAt = getSetting<number>(store, RESTORED_AT_KEY)
  if (restoredAt === undefined || getSetting<number>(store, CHECKED_KEY) === restoredAt) return true
  try {
    for (const owner of walletOwners(store)) {
      const found = await services.wallets.restore(owner)
      logger.info({ owner: owner.kind, found_sats: Number(found) }, 'asked the mints after the restore')
    }
    await store.write(putSetting({ key: CHECKED_KEY, value: restoredAt, at: clock.now() }))
    return true
  } catch (error) {
    if (!signal.aborted)
      logger.warn({ reason: messageOf(error), retry_ms: retryMs }, 'the mints could not all be asked after the restore yet')
    return false
  }
}
