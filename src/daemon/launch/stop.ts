/** Ends the daemon of a home: by asking, then by signals to the process that it surely is. */
import { setTimeout as delay } from 'node:timers/promises'
import { isPylonError, PylonError } from '../../base/errors.ts'
import type { Home } from '../../base/paths.ts'
import { isSameProcess } from '../../base/process-identity.ts'
import { callRoute } from '../../control/client.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { acquireLease } from '../home/lease.ts'
import { type PidRecord, readPidFile } from '../home/pidfile.ts'

export interface StopOptions {
  readonly timeoutMs: number
  /** Kill at once instead of asking. */
  readonly force: boolean
  /** Told when the node does not answer and signals have to do. */
  readonly onSilent?: () => void
}

export type Stopped = { readonly how: 'not_running' } | { readonly how: 'stopped' | 'killed'; readonly pid: number }

const POLL_MS = 25
const ASK_TIMEOUT_MS = 3000
/** Of the time given; the rest is for closing. */
const DRAIN_SHARE = 0.7

/** @throws stop_failed when a process holds the home and can't be named or ended */
export async function stopNode(home: Home, { timeoutMs, force, onSilent }: StopOptions): Promise<Stopped> {
  const deadline = Date.now() + timeoutMs
  const asked = force ? undefined : await ask(home, timeoutMs)
  const record = readPidFile(home)
  if (record === undefined || !isSameProcess(record)) {
    if (asked !== undefined) return await endUnverified(home, asked, deadline)
    if (isHomeFree(home)) return { how: 'not_running' }
    throw new PylonError(
      'stop_failed',
      `A process holds ${home.dir}, and ${home.pidFile} does not say which: it may be just starting. Try again in a moment.`,
    )
  }
  if (asked === undefined) {
    if (!force) onSilent?.()
    signal(record, force ? 'SIGKILL' : 'SIGTERM')
    // One that was stopped by a signal hears the other only when it goes on.
    if (!force) signal(record, 'SIGCONT')
  }
  if (await isGoneBy(record, force ? Date.now() + ASK_TIMEOUT_MS : deadline)) return { how: force ? 'killed' : 'stopped', pid: record.pid }
  signal(record, 'SIGKILL')
  if (await isGoneBy(record, Date.now() + ASK_TIMEOUT_MS)) return { how: 'killed', pid: record.pid }
  throw new PylonError('stop_failed', `Process ${record.pid} did not end even by SIGKILL; the system holds it (disk?).`)
}

/** The PID that answered, or undefined when the socket gave no sensible answer. */
async function ask(home: Home, timeoutMs: number): Promise<number | undefined> {
  try {
    return (await callRoute(home.socket, nodeRoutes.shutdown, { drain_s: (timeoutMs * DRAIN_SHARE) / 1000 }, { timeoutMs: ASK_TIMEOUT_MS }))
      .value.pid
  } catch (error) {
    // It is on its way out already.
    if (isPylonError(error, 'shutting_down')) return readPidFile(home)?.pid
    return undefined
  }
}

/** Where the system can't tell processes apart (no /proc), the lease tells when it has gone. */
async function endUnverified(home: Home, pid: number, deadline: number): Promise<Stopped> {
  while (Date.now() < deadline) {
    if (isHomeFree(home)) return { how: 'stopped', pid }
    await delay(POLL_MS)
  }
  throw new PylonError('stop_failed', `Process ${pid} still drains; it was asked to end and will. Look at: pylon logs`)
}

/** Waits for a process to end. @returns whether it did. */
export async function isGoneBy(record: PidRecord, deadline: number): Promise<boolean> {
  while (isSameProcess(record)) {
    if (Date.now() >= deadline) return false
    await delay(POLL_MS)
  }
  return true
}

function signal(record: PidRecord, name: 'SIGTERM' | 'SIGKILL' | 'SIGCONT'): void {
  if (!isSameProcess(record)) return
  try {
    process.kill(record.pid, name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') {
      throw new PylonError('stop_failed', `Process ${record.pid} belongs to another user and can't be signalled.`, { cause: error })
    }
  }
}

/** Whether nobody holds the home now. */
export function isHomeFree(home: Home): boolean {
  try {
    acquireLease(home.lease).release()
    return true
  } catch (error) {
    if (isPylonError(error, 'already_running')) return false
    // No home, no node.
    return true
  }
}
