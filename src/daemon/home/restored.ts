/** After a restore: the database is older than the mints, so every wallet asks them for what it made since, before its counters are used again. */
import { messageOf } from '../../base/errors.ts'
import type { Services } from '../services.ts'

const FIRST_RETRY_MS = 5000
const MAX_RETRY_MS = 10 * 60_000

/** Does nothing on a database that was never restored; else resolves after the first try, which goes on by itself until every mint has answered. */
export async function askMintsAfterRestore(services: Services, signal: AbortSignal): Promise<void> {
  if (await askOnce(services)) return
  void (async () => {
    for (let waitMs = FIRST_RETRY_MS; !signal.aborted; waitMs = Math.min(waitMs * 2, MAX_RETRY_MS)) {
      await services.clock.sleep(waitMs, signal).catch(() => undefined)
      if (signal.aborted || (await askOnce(services))) return
    }
  })()
}

/** @returns whether there is nothing left to ask. */
async function askOnce({ wallets, logger }: Services): Promise<boolean> {
  try {
    return await wallets.askAfterRestore()
  } catch (error) {
    logger.warn({ reason: messageOf(error) }, 'the mints could not be asked after the restore yet')
    return false
  }
}
