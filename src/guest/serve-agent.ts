/** A managed agent's life: start the process, probe it, serve prompts, start it again by policy, end with a result. */
import { isAbsolute, join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { Exit, ProcessGroup } from '../base/processes.ts'
import { VERSION } from '../base/version.ts'
import type { GuestLaunch } from '../runtime/contract/launch.ts'
import type { LifecycleDetails } from '../runtime/contract/lifecycle.ts'
import type { Protocol } from '../runtime/contract/prompt.ts'
import { AcpAgent } from './agents/acp.ts'
import type { Agent } from './agents/agent.ts'
import { PiAgent } from './agents/pi.ts'
import { KILL_GRACE_MS, startCommand } from './child-process.ts'
import type { LifecycleWriter, Terminal } from './lifecycle-writer.ts'
import { LogSink } from './log-sink.ts'
import { type Listen, PromptServer } from './prompt-server.ts'
import { nextStart, pauseBeforeStart } from './restarts.ts'

/** How long an agent may take to answer its first request. */
const START_TIMEOUT_MS = 120_000
/** For a process whose output has ended to end as well. */
const EXIT_GRACE_MS = 1000
const MAX_LOG_BYTES = 8 * 1024 * 1024

export interface Service {
  readonly launch: GuestLaunch & { readonly protocol: Protocol; readonly prompt: NonNullable<GuestLaunch['prompt']> }
  readonly command: string
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
}

/** @returns the exit code of the guest itself; by then the result is written */
export async function serveAgent(service: Service, writer: LifecycleWriter, clock: Clock, stopping: AbortSignal): Promise<number> {
  const { launch } = service
  const log = new LogSink(launch.spec.paths.guest_log_path, MAX_LOG_BYTES)
  let current: Agent | undefined
  const server = new PromptServer({
    runtimeId: launch.spec.identity.runtime_id,
    protocol: launch.protocol,
    ticketKey: launch.prompt.ticket_key,
    clock,
    agent: () => current,
  })
  try {
    await server.listen(listenOf(service))
    const setAgent = (agent: Agent | undefined) => {
      current = agent
    }
    const terminal = await superviseAgent(service, writer, clock, stopping, log, setAgent)
    writer.finish(terminal)
    return terminal.exitCode ?? (terminal.state === 'completed' ? 0 : 1)
  } finally {
    // The result is written: what can't be closed ends with the process.
    await Promise.allSettled([server.close(), log.close()])
  }
}

async function superviseAgent(
  service: Service,
  writer: LifecycleWriter,
  clock: Clock,
  stopping: AbortSignal,
  log: LogSink,
  setAgent: (agent: Agent | undefined) => void,
): Promise<Terminal> {
  const details = detailsOf(service.launch)
  const policy = service.launch.spec.policies.restart_policy
  for (let shortLives = 0; ; ) {
    writer.enter('starting', 'waiting for the agent', details({}))
    const startedAt = clock.now()
    const life = await oneLife(service, clock, stopping, log, (agent) => {
      setAgent(agent)
      writer.enter('ready', 'serving prompts', details({ probe: 'prompt_endpoint', service_probe_satisfied: true }))
    })
    setAgent(undefined)
    if (stopping.aborted)
      return { state: 'completed', message: 'stopped by the host', exitCode: 0, details: details({ failure_reason: 'terminated' }) }
    log.line(`pylon: ${life.message}`)
    const again = nextStart(policy, { exitCode: life.exit.code, livedMs: clock.now() - startedAt }, shortLives)
    if (again === undefined) {
      const ok = life.exit.code === 0 && life.wasReady
      const reason = life.wasReady ? 'agent_exited' : (life.reason ?? 'agent_exited_before_ready')
      return {
        state: ok ? 'completed' : 'failed',
        message: life.message,
        exitCode: ok ? 0 : life.exit.code || 1,
        details: details(ok ? {} : { failure_reason: shortLives > 0 && !ok ? 'agent_crash_loop' : reason }),
      }
    }
    shortLives = again.shortLives
    await pauseBeforeStart(again.delayMs, clock, stopping)
  }
}

interface LifeEnd {
  readonly exit: Exit
  readonly wasReady: boolean
  readonly message: string
  readonly reason?: string
}

async function oneLife(
  service: Service,
  clock: Clock,
  stopping: AbortSignal,
  log: LogSink,
  onReady: (agent: Agent) => void,
): Promise<LifeEnd> {
  if (stopping.aborted) return { exit: { code: 143, signal: null }, wasReady: false, message: 'the guest was told to stop' }
  const child = startCommand({ command: service.command, cwd: service.cwd, env: service.env, runAs: service.launch.run_as, clock }, true)
  child.process.stderr?.on('data', (chunk: Buffer) => log.write(chunk))
  const onStop = () => child.stop(KILL_GRACE_MS)
  stopping.addEventListener('abort', onStop, { once: true })
  const limit = new AbortController()
  const cancel = clock.after(START_TIMEOUT_MS, () => limit.abort(new Error(`the agent did not answer within ${START_TIMEOUT_MS / 1000} s`)))
  let wasReady = false
  try {
    const agent = agentOf(service, child)
    const died = child.exited.then((exit) => Promise.reject(new Error(describe(exit))))
    await Promise.race([agent.start(limit.signal), died])
    cancel()
    wasReady = true
    onReady(agent)
    const exit = await child.exited
    return { exit, wasReady, message: describe(exit) }
  } catch (error) {
    const timedOut = limit.signal.aborted
    // The end of its output is often seen before the end of the process, whose exit code says more.
    const own = timedOut ? undefined : await Promise.race([child.exited, clock.sleep(EXIT_GRACE_MS).then(() => undefined)])
    if (own === undefined) child.stop(KILL_GRACE_MS)
    const exit = own ?? (await child.exited)
    const reason = timedOut ? 'timeout_waiting_for_agent' : 'agent_exited_before_ready'
    const message = own === undefined ? messageOf(error) : `${describe(exit)} before it was ready`
    return { exit: exit.code === 0 ? { ...exit, code: 1 } : exit, wasReady, message, reason }
  } finally {
    cancel()
    stopping.removeEventListener('abort', onStop)
  }
}

function agentOf(service: Service, child: ProcessGroup): Agent {
  return service.launch.protocol === 'acp' ? new AcpAgent(child, service.cwd) : new PiAgent(child)
}

function describe(exit: Exit): string {
  if (exit.error !== undefined) return `the agent did not start: ${exit.error.message}`
  return exit.code === 127 ? 'the agent was not found (exit 127)' : `the agent exited with ${exit.code}`
}

function detailsOf(launch: Service['launch']): (more: LifecycleDetails) => LifecycleDetails {
  return (more) => ({
    agent_kind: launch.protocol,
    service_kind: 'prompt_endpoint',
    service_probe_satisfied: false,
    version: VERSION,
    ...more,
  })
}

/** A relative socket path is below the state directory, where a long absolute one may not fit a socket address. */
function listenOf(service: Service): Listen {
  const { listen } = service.launch.prompt
  if (!('unix' in listen) || isAbsolute(listen.unix)) return listen
  const path = join(service.launch.spec.paths.state_dir, listen.unix)
  if (Buffer.byteLength(path) <= 107) return { unix: path }
  process.chdir(service.launch.spec.paths.state_dir)
  return { unix: listen.unix }
}
