/** Waits of commands: each ends at a time of its own, and Ctrl-C ends it with words about what goes on without us. */
import { setTimeout as delay } from 'node:timers/promises'
import { isPylonError, PylonError } from '../../base/errors.ts'

/** @param goesOn what becomes of what is waited for, and how to look at it @throws cancelled with these words after Ctrl-C */
export async function interruptible<T>(goesOn: () => string, wait: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const interrupted = new AbortController()
  const stop = () => interrupted.abort()
  process.once('SIGINT', stop)
  try {
    return await wait(interrupted.signal)
  } catch (error) {
    if (!interrupted.signal.aborted || !(isPylonError(error, 'cancelled') || (error as { name?: unknown }).name === 'AbortError'))
      throw error
    throw new PylonError('cancelled', goesOn(), { details: { signal: 'SIGINT' } })
  } finally {
    process.off('SIGINT', stop)
  }
}

/** Resolves after a while, or rejects once Ctrl-C was pressed. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => {
    throw new PylonError('cancelled', 'The wait was given up.')
  })
}
