/** The guest role, inside a runtime: reads what to do, does it, and leaves a terminal result whatever happens. */
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { systemClock } from '../base/clock.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import { systemRandom } from '../base/random.ts'
import { Scope } from '../base/scope.ts'
import { decodeGuestRequest } from '../runtime/contract/guest-request.ts'
import { decodeLaunch, type GuestLaunch } from '../runtime/contract/launch.ts'
import { CANONICAL_PATHS, pathsUnder, type RuntimePaths } from '../runtime/contract/paths.ts'
import { launchFromEnv, stateDirOf } from './launch-from-env.ts'
import { LifecycleWriter } from './lifecycle-writer.ts'
import { relayPrompt } from './relay-prompt.ts'
import { runOnce } from './run-once.ts'
import { serveAgent } from './serve-agent.ts'

const USAGE = `Usage: pylon guest --spec PATH            run as launch.json says
       pylon guest --request PATH [--state-dir DIR]   run one guest-request.json
       pylon guest --session                run as the environment says: PYLON_SESSION_TOKEN, PYLON_OWNER_PUBKEY, PYLON_RUNTIME_ID,
                                            PIKA_RELAY_URLS, PYLON_PROTOCOL, STATE_DIR, and PYLON_ENTRY_COMMAND or PYLON_AGENT_BASE_URL
       pylon guest --prompt SOCKET          post the request on stdin to the prompt endpoint, TICKET in PYLON_TICKET`

/** What a bad request exits with. */
const BOOTSTRAP_EXIT = 2
/** Unprivileged, where a request says so and the guest is root: nobody. */
const NOBODY = { uid: 65_534, gid: 65_534 }
const DEFAULT_TIMEOUT_SECS = 3600

/** @param argv after `guest` @returns the exit code */
export async function runGuest(argv: readonly string[]): Promise<number> {
  let options: { spec?: string; request?: string; 'state-dir'?: string; prompt?: string; session?: boolean }
  try {
    const text = { type: 'string' } as const
    options = parseArgs({
      args: [...argv],
      options: { spec: text, request: text, 'state-dir': text, prompt: text, session: { type: 'boolean' } },
    }).values
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n${USAGE}\n`)
    return BOOTSTRAP_EXIT
  }
  if (options.prompt !== undefined) return relayPrompt(options.prompt)
  if (options.session === true) return await live({ read: () => launchFromEnv(process.env) }, pathsUnder(stateDirOf(process.env)))
  const source = options.spec ?? options.request
  if (source === undefined) {
    process.stderr.write(`${USAGE}\n`)
    return BOOTSTRAP_EXIT
  }
  const stateDir = options['state-dir'] ?? (options.spec === undefined ? CANONICAL_PATHS.state_dir : dirname(resolve(source)))
  const orders = options.spec === undefined ? { request: source } : { read: () => readLaunch(source) }
  return await live(orders, pathsUnder(resolve(stateDir)))
}

/** A launch, from wherever it is read, or the path of a request. */
type Orders = { readonly read: () => GuestLaunch } | { readonly request: string }

async function live(orders: Orders, fallback: RuntimePaths): Promise<number> {
  const stopping = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => stopping.abort())
  let writer: LifecycleWriter | undefined
  const crash = (error: unknown) => {
    try {
      fail(writer ?? new LifecycleWriter(fallback, systemClock), `Guest crashed: ${messageOf(error)}`, 1)
    } finally {
      process.kill(process.pid, 'SIGKILL')
    }
  }
  const scope = Scope.root('guest', { clock: systemClock, random: systemRandom }, ({ error }) => crash(error))
  process.on('uncaughtException', crash)
  process.on('unhandledRejection', crash)
  try {
    const launch = 'read' in orders ? orders.read() : undefined
    const request = 'request' in orders ? decodeGuestRequest(readFileSync(orders.request, 'utf8'), orders.request) : undefined
    writer = new LifecycleWriter(launch?.spec.paths ?? fallback, systemClock)
    writer.booted('the guest runs')
    if (launch !== undefined) return await runLaunch(launch, writer, scope, stopping.signal)
    if (request === undefined) return BOOTSTRAP_EXIT
    const run = {
      command: request.command,
      timeoutSecs: request.timeout_secs,
      runAs: request.run_as_root || process.getuid?.() !== 0 ? undefined : NOBODY,
      cwd: process.cwd(),
      env: { PYLON_ARTIFACTS_DIR: fallback.artifacts_dir },
      paths: fallback,
      restartPolicy: 'never',
    } as const
    return await runOnce(run, writer, scope, stopping.signal)
  } catch (error) {
    const known = error instanceof PylonError || writer === undefined
    const message = `Guest bootstrap failed: ${messageOf(error)}`
    try {
      fail(writer ?? new LifecycleWriter(fallback, systemClock), message, known ? BOOTSTRAP_EXIT : 1)
    } catch (unwritten) {
      process.stderr.write(`pylon guest: ${message}\nNo result is left: ${messageOf(unwritten)}; make ${fallback.state_dir} writable.\n`)
    }
    return known ? BOOTSTRAP_EXIT : 1
  } finally {
    process.off('uncaughtException', crash)
    process.off('unhandledRejection', crash)
  }
}

function fail(writer: LifecycleWriter, message: string, exitCode: number): void {
  process.stderr.write(`pylon guest: ${message}\n`)
  writer.finish({ state: 'failed', message, exitCode, details: { failure_reason: 'guest_bootstrap_failed' } })
}

/** The file holds the ticket key and secrets of the environment: gone before anything else runs here, where the place allows it. */
function readLaunch(path: string): GuestLaunch {
  const text = readFileSync(path, 'utf8')
  try {
    rmSync(path, { force: true })
  } catch {
    // A read-only place is the host's to clean.
  }
  return decodeLaunch(text, path)
}

async function runLaunch(launch: GuestLaunch, writer: LifecycleWriter, scope: Scope, stopping: AbortSignal): Promise<number> {
  const { spec } = launch
  const cwd = launch.working_dir ?? process.cwd()
  mkdirSync(cwd, { recursive: true })
  const env = {
    ...launch.env,
    PYLON_RUNTIME_ID: spec.identity.runtime_id,
    PYLON_ARTIFACTS_DIR: spec.paths.artifacts_dir,
  }
  const command = spec.entry_command ?? ''
  const { protocol } = launch
  if (protocol !== null) {
    const root = process.env['PYLON_ROOT'] ?? ''
    return await serveAgent({ launch: { ...launch, protocol }, command, cwd, env, root }, writer, scope, stopping)
  }
  const run = {
    command,
    timeoutSecs: launch.timeout_secs ?? DEFAULT_TIMEOUT_SECS,
    runAs: launch.run_as,
    cwd,
    env,
    paths: spec.paths,
    restartPolicy: spec.policies.restart_policy,
  }
  return await runOnce(run, writer, scope, stopping)
}
