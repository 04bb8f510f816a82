/** The composition root: makes every part of a node in order, runs until asked to end, closes in the reverse order. */
import { systemClock } from '../base/clock.ts'
import { loadConfig } from '../base/config.ts'
import { createDialer } from '../base/dialer.ts'
import { toPylonError } from '../base/errors.ts'
import { createLogger, type Logger } from '../base/logger.ts'
import { systemRandom } from '../base/random.ts'
import { Scope } from '../base/scope.ts'
import { VERSION } from '../base/version.ts'
import { ControlServer } from '../control/server.ts'
import { sweepTraces } from '../inference/traces.ts'
import { putSetting } from '../store/settings.ts'
import { Store } from '../store/store.ts'
import { reconcileCalls, StoredTasks, storedClaims } from './calls.ts'
import { Events } from './events.ts'
import { faultHook } from './fault-points.ts'
import { boundRoutes } from './handlers.ts'
import { watchHome } from './home/home-watch.ts'
import { openKeys } from './home/keys.ts'
import { acquireLease, LEASE_WAIT_MS } from './home/lease.ts'
import { LogFile } from './home/log-file.ts'
import { removePidFile, writePidFile } from './home/pidfile.ts'
import { prepareHome } from './home/prepare-home.ts'
import { type DaemonOptions, RUN_OPTIONS_KEY } from './launch/run-options.ts'
import type { LaunchMessage } from './launch/start.ts'
import { startSuccessor } from './launch/successor.ts'
import { settleSurroundings } from './network.ts'
import { PylonNode } from './node.ts'
import { listenToSignals, Shutdown } from './shutdown.ts'

/** For what runs beside the parts: above all the sandbox process. */
const SCOPE_DRAIN_MS = 4000
/** How long the end may take beyond the drain before what is left is cut. */
const CLOSE_DEADLINE_MS = 5000

/** Runs a node in this process until it is told to end. @returns the exit code. @throws what kept it from starting */
export async function runDaemon(options: DaemonOptions): Promise<number> {
  try {
    prepareHome(options.home)
    const logFile = new LogFile(options.home.log, !options.isDetached)
    const { logger } = createLogger({ stream: logFile })
    const shutdown = new Shutdown(logger)
    let node: PylonNode
    try {
      node = await startNode(options, logFile, logger, shutdown)
    } catch (error) {
      await shutdown.close(CLOSE_DEADLINE_MS)
      throw error
    }
    return await runUntilEnd(options, node, logger, shutdown)
  } catch (error) {
    const { code, message } = toPylonError(error)
    await tellLauncher({ type: 'failed', code, message })
    throw error
  }
}

async function startNode(options: DaemonOptions, logFile: LogFile, logger: Logger, shutdown: Shutdown): Promise<PylonNode> {
  const { home, network, run } = options
  const config = loadConfig(home.config)
  logger.level = config.node.log_level

  const lease = acquireLease(home.lease, LEASE_WAIT_MS)
  shutdown.onClose('lease', () => lease.release())
  // While the lease is still ours: later it would be the successor's.
  shutdown.onClose('pid file', () => removePidFile(home))

  const swept = await sweepTraces()
  if (swept.processes + swept.folders > 0) logger.info(swept, 'what commands of a killed node had left is gone')

  const events = new Events(systemClock)
  const faults = faultHook(process.env['PYLON_FAULT'])
  const afterCommit = (labels: readonly string[]) => {
    faults.afterCommit?.(labels)
    events.onCommit(labels)
  }
  const store = Store.open(home.database, { hook: { ...faults, afterCommit } })
  shutdown.onClose('store', () => store.close())
  const clock = systemClock
  const deps = { store, clock, logger }
  const scope = Scope.root('node', { clock, random: systemRandom }, ({ path, error }) =>
    logger.error({ path, err: error }, 'running work failed; the rest goes on'),
  )
  const end = async (ending: Scope, drainMs: number) => {
    for (const { path } of await ending.close(drainMs)) logger.warn({ path }, 'running work did not end in time')
  }
  shutdown.onClose('running work', () => end(scope, SCOPE_DRAIN_MS))
  await reconcileCalls(deps)
  await store.write(putSetting({ key: RUN_OPTIONS_KEY, value: run, at: clock.now() }))

  const { identity, keyring } = await openKeys(options, deps)

  const dialer = createDialer()
  shutdown.onClose('dialer', () => dialer.close())
  const onSandboxLog = (line: string) => logFile.write(line)
  const surroundings = await settleSurroundings({ ...deps, scope, home, network, run, config, dialer, onSandboxLog })

  const calls = scope.child('calls')
  // Once the parts that they wait for have ended.
  shutdown.onClose('calls', () => end(calls, 0))
  const node = new PylonNode({ ...deps, scope, options, config, identity, keyring, dialer, surroundings, logFile, events, shutdown })
  shutdown.onClose('parts', () => node.close())
  if (!keyring.locked) await node.startParts()

  const tasks = new StoredTasks(deps, calls)
  const server = new ControlServer({ scope: calls, routes: boundRoutes(node, tasks), network, claims: storedClaims(deps), tasks, logger })
  await server.listen(home.socket)
  shutdown.onClose('control socket', () => server.close())
  writePidFile(home)
  const watch = scope.child('watch of the home')
  watchHome({
    ...{ scope: watch, home, logger, server },
    onLost: (reason) => {
      // Nothing that still runs could be stored.
      node.drainMs = 0
      shutdown.request(reason)
    },
  })
  shutdown.onClose('watch of the home', () => end(watch, 0))
  logger.info({ pid: process.pid, version: VERSION, home: home.dir, network, mode: node.mode, locked: keyring.locked }, 'ready')
  return node
}

async function runUntilEnd({ home, network }: DaemonOptions, node: PylonNode, logger: Logger, shutdown: Shutdown): Promise<number> {
  const stopListening = listenToSignals(shutdown, () => node.reloadBySignal())
  await tellLauncher({ type: 'ready', pid: process.pid })
  const reason = await shutdown.begun
  logger.info({ reason }, 'ending')
  const isClean = await shutdown.close(node.drainMs + CLOSE_DEADLINE_MS)
  if (node.successor !== undefined) await startSuccessor(home, network, node.successor)
  logger.info({ clean: isClean }, 'ended')
  stopListening()
  return isClean ? 0 : 1
}

/** The process that spawned us waits for exactly one message; it may have gone. */
function tellLauncher(message: LaunchMessage): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined || !process.connected) return resolve()
    process.send(message, undefined, undefined, () => {
      if (process.connected) process.disconnect()
      resolve()
    })
  })
}
