/** Does something to a stopped home, holding its lease meanwhile. */
import type { Home } from '../../base/paths.ts'
import { acquireLease, LEASE_WAIT_MS } from '../home/lease.ts'
import { prepareHome } from '../home/prepare-home.ts'

/** @throws already_running, home_unusable */
export function withHome<T>(home: Home, work: () => T): T {
  prepareHome(home)
  const lease = acquireLease(home.lease, LEASE_WAIT_MS)
  let isAsync = false
  try {
    const result = work()
    if (result instanceof Promise) {
      isAsync = true
      return result.finally(() => lease.release()) as T
    }
    return result
  } finally {
    if (!isAsync) lease.release()
  }
}
