/** Restarts the daemon of a home: the old one starts its successor, so that unlocked keys never leave the two of them. */
import { statSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { isPylonError, PylonError } from '../../base/errors.ts'
import type { Home } from '../../base/paths.ts'
import { callRoute } from '../../control/client.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { lastRunOptions, type Mode } from './run-options.ts'
import { logTail, type Status, startNode, statusIfRunning } from './start.ts'
import { isHomeFree } from './stop.ts'

const DEADLINE_MS = 60_000
const POLL_MS = 50
/** How long a home may look free before the successor is taken to have failed. */
const FREE_GRACE_MS = 5000

/** A stopped node is started as it last ran. @throws start_failed with the successor's last words, conflict */
export async function restartNode(home: Home, network: 'sandbox' | 'live', mode: Mode | undefined): Promise<Status> {
  const logSize = statSync(home.log, { throwIfNoEntry: false })?.size ?? 0
  let oldPid: number
  try {
    oldPid = (await callRoute(home.socket, nodeRoutes.restart, mode === undefined ? {} : { mode })).value.pid
  } catch (error) {
    if (!isPylonError(error, 'not_running')) throw error
    const run = lastRunOptions(home)
    return (await startNode(home, network, mode === undefined ? run : { ...run, mode })).status
  }
  return await successorOf(oldPid, home, logSize)
}

async function successorOf(oldPid: number, home: Home, logSize: number): Promise<Status> {
  const deadline = Date.now() + DEADLINE_MS
  let freeSince: number | undefined
  while (Date.now() < deadline) {
    // Whoever is between an end and a start does not answer: it is asked again.
    const status = await statusIfRunning(home).catch(() => undefined)
    if (status !== undefined && status.value.pid !== oldPid) return status
    freeSince = isHomeFree(home) ? (freeSince ?? Date.now()) : undefined
    if (freeSince !== undefined && Date.now() - freeSince > FREE_GRACE_MS) break
    await delay(POLL_MS)
  }
  throw new PylonError('start_failed', `The node did not come up again. Its last words: ${logTail(home, logSize)}`)
}
