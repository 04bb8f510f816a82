/** Starts the daemon in the background and returns when it is really ready, or with its own words for why it is not. */
import { closeSync, openSync, readFileSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { ERRORS, type ErrorCode, isPylonError, PylonError } from '../../base/errors.ts'
import type { Home } from '../../base/paths.ts'
import { type ChildProcess, spawnProcess } from '../../base/processes.ts'
import { type Answer, callRoute, type Output } from '../../control/client.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { rotateLog } from '../home/log-file.ts'
import { prepareHome } from '../home/prepare-home.ts'
import { type RunOptions, runArgs } from './run-options.ts'
import { childEnv, selfCommand } from './self-command.ts'

export type Status = Answer<Output<typeof nodeRoutes.status>>

export interface Started {
  readonly wasRunning: boolean
  readonly status: Status
}

/** What the daemon tells the process that spawned it: exactly one of these. */
export type LaunchMessage =
  | { readonly type: 'ready'; readonly pid: number }
  | { readonly type: 'failed'; readonly code: string; readonly message: string }

const READY_DEADLINE_MS = 90_000
const RETRY_MS = 100
const END_GRACE_MS = 5000

/** One daemon whoever else starts at the same moment: who loses the race waits for the winner. @throws start_failed and the daemon's own error */
export async function startNode(home: Home, network: 'sandbox' | 'live', run: RunOptions): Promise<Started> {
  prepareHome(home)
  const deadline = Date.now() + READY_DEADLINE_MS
  for (;;) {
    const running = await statusIfRunning(home)
    if (running !== undefined) return { wasRunning: true, status: running }
    try {
      await launch(home, network, run, deadline)
      return { wasRunning: false, status: await callRoute(home.socket, nodeRoutes.status, {}) }
    } catch (error) {
      // Another one holds the home: it is about to answer, or about to end and leave the home to us.
      if (!isPylonError(error, 'already_running') || Date.now() > deadline) throw error
    }
    await delay(RETRY_MS)
  }
}

/** The status of the node of a home, or undefined when none answers. */
export async function statusIfRunning(home: Home): Promise<Status | undefined> {
  try {
    return await callRoute(home.socket, nodeRoutes.status, {}, { timeoutMs: 20_000 })
  } catch (error) {
    if (isPylonError(error, 'not_running')) return undefined
    throw error
  }
}

/**
 * A daemon in its own session, logging to the home's log file, with nothing of ours inherited.
 * @param secretFd pass a pipe as descriptor 3, on which the daemon expects the words of its identity.
 */
export function spawnDaemon(home: Home, network: 'sandbox' | 'live', run: RunOptions, third: 'ipc' | 'pipe'): ChildProcess {
  rotateLog(home.log)
  const log = openSync(home.log, 'a', 0o600)
  try {
    const keyArgs = third === 'pipe' ? ['--key-fd', '3'] : []
    const { command, args } = selfCommand(['daemon', '--detached', ...keyArgs, ...runArgs(run, network)])
    const liveHome = network === 'sandbox' ? dirname(home.dir) : home.dir
    return spawnProcess([command, ...args], {
      cwd: home.dir,
      detached: true,
      stdio: ['ignore', log, log, third],
      env: childEnv(process.env, { PYLON_HOME: liveHome }),
    })
  } finally {
    closeSync(log)
  }
}

async function launch(home: Home, network: 'sandbox' | 'live', run: RunOptions, deadline: number): Promise<void> {
  const logSize = statSync(home.log, { throwIfNoEntry: false })?.size ?? 0
  const child = spawnDaemon(home, network, run, 'ipc')
  const outcome = await outcomeOf(child, deadline)
  if (outcome.type === 'message' && outcome.message.type === 'ready') {
    child.disconnect()
    child.unref()
    return
  }
  if (outcome.type === 'message' && outcome.message.type === 'failed') {
    await endOf(child)
    const { code, message } = outcome.message
    throw new PylonError(Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'start_failed', message)
  }
  if (outcome.type === 'late') killGroup(child)
  const words =
    outcome.type === 'late' ? 'did not become ready in time' : `ended with ${outcome.type === 'exit' ? outcome.how : 'an error'}`
  throw new PylonError('start_failed', `The daemon ${words}. Its last words: ${logTail(home, logSize)}`)
}

type Outcome = { type: 'message'; message: LaunchMessage } | { type: 'exit'; how: string } | { type: 'late' }

function outcomeOf(child: ChildProcess, deadline: number): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve({ type: 'late' }), Math.max(1, deadline - Date.now()))
    const settle = (outcome: Outcome) => {
      clearTimeout(timer)
      resolve(outcome)
    }
    child.once('message', (message) => settle({ type: 'message', message: message as LaunchMessage }))
    child.once('exit', (code, signal) => {
      // A message that was sent just before the end is delivered after this turn.
      setImmediate(() => settle({ type: 'exit', how: signal === null ? `exit code ${code}` : `signal ${signal}` }))
    })
    child.once('error', (error) => {
      clearTimeout(timer)
      reject(new PylonError('start_failed', `The daemon could not be started: ${error.message}`))
    })
  })
}

/** It has said why and is ending: nothing of it is left when we return. */
async function endOf(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const timer = setTimeout(() => killGroup(child), END_GRACE_MS)
  await new Promise<void>((resolve) => child.once('exit', () => resolve()))
  clearTimeout(timer)
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    // Already gone.
  }
}

/** The last lines written since `from`. */
export function logTail(home: Home, from: number): string {
  try {
    const text = readFileSync(home.log).subarray(from).toString('utf8').trimEnd()
    return text.split('\n').slice(-5).join(' | ') || `(nothing in ${home.log})`
  } catch {
    // It ended before it had a log.
    return `(no log at ${home.log})`
  }
}
