/** A managed agent's life: start the process, probe it, serve prompts, start it again by policy, end with a result. */
import { isAbsolute, join } from 'node:path'
import { isPylonError, messageOf } from '../base/errors.ts'
import type { Exit, ProcessGroup } from '../base/processes.ts'
import type { Scope } from '../base/scope.ts'
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
export async function serveAgent(service: Service, writer: LifecycleWriter, scope: Scope, stopping: AbortSignal): Promise<number> {
  const { launch } = service
  const log = new LogSink(launch.spec.paths.guest_log_path, MAX_LOG_BYTES)
  let current: Agent | undefined
  const server = new PromptServer({
    runtimeId: launch.spec.identity.runtime_id,
    protocol: launch.protocol,
    ticketKey: launch.prompt.ticket_key,
    clock: scope.clock,
    agent: () => current,
  })
  try {
    await server.listen(listenOf(service))
    const setAgent = (agent: Agent | undefined) => {
      current = agent
    }
    const terminal = await superviseAgent({ service, writer, scope, stopping, log }, setAgent)
    writer.finish(terminal)
    return terminal.exitCode ?? (terminal.state === 'completed' ? 0 : 1)
  } finally {
    // The result is written: what can't be closed ends with the process.
    await Promise.allSettled([server.close(), log.close()])
  }
}

/** What a managed agent lives in. */
interface Surroundings {
  readonly service: Service
  readonly writer: LifecycleWriter
  readonly scope: Scope
  readonly stopping: AbortSignal
  readonly log: LogSink
}

async function superviseAgent(around: Surroundings, setAgent: (agent: Agent | undefined) => void): Promise<Terminal> {
  const { service, writer, scope, stopping, log } = around
  const { clock } = scope
  const details = detailsOf(service.launch)
  const policy = service.launch.spec.policies.restart_policy
  for (let shortLives = 0; ; ) {
    writer.enter('starting', 'waiting for the agent', details({}))
    const startedAt = clock.now()
    const life = await oneLife(around, (agent) => {
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

async function oneLife({ service, scope, stopping, log }: Surroundings, onReady: (agent: Agent) => void): Promise<LifeEnd> {
  if (stopping.aborted) return { exit: { code: 143, signal: null }, wasReady: false, message: 'the guest was told to stop' }
  const child = startCommand(
    { command: service.command, cwd: service.cwd, env: service.env, runAs: service.launch.run_as, clock: scope.clock },
    true,
  )
  child.process.stderr?.on('data', (chunk: Buffer) => log.write(chunk))
  const onStop = () => child.stop(KILL_GRACE_MS)
  stopping.addEventListener('abort', onStop, { once: true })
  let wasReady = false
  try {
    const agent = agentOf(service, child)
    const died = new AbortController()
    // Never rejects.
    void child.exited.then((exit) => died.abort(new Error(describe(exit))))
    await scope.within('start', START_TIMEOUT_MS, (signal) => scope.until('agent', died.signal, () => agent.start(signal)))
    wasReady = true
    onReady(agent)
    const exit = await child.exited
    return { exit, wasReady, message: describe(exit) }
  } catch (error) {
    const timedOut = isPylonError(error, 'timeout')
    // The end of its output is often seen before the end of the process, whose exit code says more.
    const own = !timedOut && (await scope.patience(EXIT_GRACE_MS, child.exited)) ? await child.exited : undefined
    if (own === undefined) child.stop(KILL_GRACE_MS)
    const exit = own ?? (await child.exited)
    const reason = timedOut ? 'timeout_waiting_for_agent' : 'agent_exited_before_ready'
    const late = `the agent did not answer within ${START_TIMEOUT_MS / 1000} s`
    const message = own !== undefined ? `${describe(exit)} before it was ready` : timedOut ? late : messageOf(error)
    return { exit: exit.code === 0 ? { ...exit, code: 1 } : exit, wasReady, message, reason }
  } finally {
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
