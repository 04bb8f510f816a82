/** Waiting in the demo: for a condition, bounded, with words for what was waited for. */
import { PylonError } from '../../base/errors.ts'

const EVERY_MS = 300

/** The first answer that is not undefined. @throws demo_failed after `timeoutMs` */
export async function waitFor<T>(what: string, timeoutMs: number, probe: () => Promise<T | undefined>): Promise<T> {
  const until = Date.now() + timeoutMs
  for (;;) {
    const found = await probe()
    if (found !== undefined) return found
    if (Date.now() >= until) throw new PylonError('demo_failed', `Waited ${timeoutMs / 1000} s for ${what}; look at: pylon logs --sandbox`)
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS))
  }
}
