/** Does something to a stopped home, holding its lease meanwhile. */
import type { Home } from '../../base/paths.ts'
import { acquireLease, LEASE_WAIT_MS } from '../home/lease.ts'
import { prepareHome } from '../home/prepare-home.ts'

/** @throws already_running, home_unusable */
export async function withHome<T>(home: Home, work: () => T | Promise<T>): Promise<T> {
  prepareHome(home)
  const lease = acquireLease(home.lease, LEASE_WAIT_MS)
  try {
    return await work()
  } finally {
    lease.release()
  }
}
