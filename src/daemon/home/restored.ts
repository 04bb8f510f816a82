/** After a restore: the database is older than the mints, so every wallet asks them for what it made since, before its counters are used again. */
import { messageOf } from '../../base/errors.ts'
import type { Scope } from '../../base/scope.ts'
import type { Services } from '../services.ts'

const AGAIN = { minMs: 5000, maxMs: 10 * 60_000 }

/** Does nothing on a database that was never restored; else resolves after the first try, which goes on by itself until every mint has answered. */
export async function askMintsAfterRestore(services: Pick<Services, 'parts' | 'logger'>, scope: Scope): Promise<void> {
  if (await askOnce(services)) return
  const again = scope.backoff(AGAIN)
  scope.spawn('questions after a restore', async () => {
    do await again.wait()
    while (!(await askOnce(services)))
  })
}

/** @returns whether there is nothing left to ask. */
async function askOnce({ parts, logger }: Pick<Services, 'parts' | 'logger'>): Promise<boolean> {
  try {
    return await parts.wallets.get().askAfterRestore()
  } catch (error) {
    logger.warn({ reason: messageOf(error) }, 'the mints could not be asked after the restore yet')
    return false
  }
}
