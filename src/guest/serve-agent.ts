/** A managed agent's life: start the process, probe it, serve prompts, start it again by policy, end with a result. */
import { mkdirSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { isPylonError, messageOf } from '../base/errors.ts'
import { given } from '../base/given.ts'
import { createLogger } from '../base/logger.ts'
import type { Exit, ProcessGroup } from '../base/processes.ts'
import type { Scope } from '../base/scope.ts'
import { VERSION } from '../base/version.ts'
import type { GuestLaunch } from '../runtime/contract/launch.ts'
import type { LifecycleDetails } from '../runtime/contract/lifecycle.ts'
import type { Protocol } from '../runtime/contract/prompt.ts'
import { AcpAgent } from './agents/acp.ts'
import type { Agent } from './agents/agent.ts'
import { ConversationBook } from './agents/conversation-book.ts'
import { OpenAiAgent } from './agents/openai.ts'
import { PiAgent } from './agents/pi.ts'
import { AgentSeat } from './agents/seat.ts'
import { KILL_GRACE_MS, startCommand } from './child-process.ts'
import type { LifecycleWriter, Terminal } from './lifecycle-writer.ts'
import { LogSink } from './log-sink.ts'
import { type Listen, PromptServer } from './prompt-server.ts'
import { nextStart, pauseBeforeStart } from './restarts.ts'
import { loadBotKey } from './session/bot-key.ts'
import { GuestSession } from './session/guest-session.ts'
import { type SessionDir, sessionDirOf } from './session/session-dir.ts'

/** How long an agent may take to answer its first request. */
const START_TIMEOUT_MS = 120_000
/** For a process whose output has ended to end as well. */
const EXIT_GRACE_MS = 1000
/** For what the session is storing when the guest ends. */
const SESSION_DRAIN_MS = 2000
const MAX_LOG_BYTES = 8 * 1024 * 1024
/** Of what an agent wrote that did not come up. */
const MAX_TOLD_BYTES = 400
const MAX_TOLD_LINES = 3

export interface Service {
  readonly launch: GuestLaunch & { readonly protocol: Protocol }
  /** Empty: the agent is a model, and no process. */
  readonly command: string
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
  /** Where mounts lie, in front of their paths. */
  readonly root: string
}

/** @returns the exit code of the guest itself; by then the result is written */
export async function serveAgent(service: Service, writer: LifecycleWriter, scope: Scope, stopping: AbortSignal): Promise<number> {
  const { launch } = service
  const log = new LogSink(launch.spec.paths.guest_log_path, MAX_LOG_BYTES)
  const seat = new AgentSeat()
  const sessionScope = scope.child('session')
  const server = launch.prompt === undefined ? undefined : promptServer(launch, launch.prompt.ticket_key, scope, seat)
  try {
    const place = launch.session === undefined ? undefined : sessionDirOf(launch, service.root)
    const session = place === undefined ? undefined : openSession(service, place, sessionScope, seat, log)
    if (launch.prompt !== undefined) await server?.listen(listenOf(launch.prompt.listen, launch.spec.paths.state_dir))
    session?.start()
    const around = { service: withHome(service, place), writer, scope, stopping, log, seat, session, dir: place?.dir }
    const terminal = await superviseAgent(around)
    writer.finish(terminal)
    return terminal.exitCode ?? (terminal.state === 'completed' ? 0 : 1)
  } finally {
    // The result is written: what can't be closed ends with the process.
    await Promise.allSettled([sessionScope.close(SESSION_DRAIN_MS), server?.close(), log.close()])
  }
}

function promptServer(launch: Service['launch'], ticketKey: string, { clock }: Scope, seat: AgentSeat): PromptServer {
  const { runtime_id: runtimeId } = launch.spec.identity
  return new PromptServer({ runtimeId, protocol: launch.protocol, ticketKey, clock, agent: () => seat.agent })
}

/** @throws database_*, identity_invalid */
function openSession({ launch, env }: Service, { dir }: SessionDir, scope: Scope, seat: AgentSeat, log: LogSink): GuestSession | undefined {
  const { session, protocol } = launch
  if (session === undefined) return undefined
  const { logger } = createLogger({ stream: { write: (line: string) => log.write(line) } })
  return new GuestSession({
    scope,
    logger,
    launch: { ...launch, session, protocol },
    signer: loadBotKey(dir, env['NOSTR_SECRET_KEY']),
    dir,
    seat,
  })
}

/** The agent of a session finds again what it wrote in an earlier runtime; the key is not for it to know. */
function withHome(service: Service, place: SessionDir | undefined): Service {
  if (place === undefined) return service
  const { NOSTR_SECRET_KEY: _secret, PYLON_SESSION_TOKEN: _token, ...env } = service.env
  if (place.home === undefined) return { ...service, env }
  mkdirSync(place.home, { recursive: true, mode: 0o700 })
  return { ...service, env: { HOME: place.home, ...env } }
}

/** What a managed agent lives in. */
interface Surroundings {
  readonly service: Service
  readonly writer: LifecycleWriter
  readonly scope: Scope
  readonly stopping: AbortSignal
  readonly log: LogSink
  readonly seat: AgentSeat
  readonly session: GuestSession | undefined
  /** Of the session. */
  readonly dir: string | undefined
}

async function superviseAgent(around: Surroundings): Promise<Terminal> {
  const { service, writer, scope, stopping, log, seat, session } = around
  const { clock } = scope
  const details = detailsOf(service.launch, session)
  const policy = service.launch.spec.policies.restart_policy
  for (let shortLives = 0; ; ) {
    writer.enter('starting', 'waiting for the agent', details({}))
    const startedAt = clock.now()
    const gone = new AbortController()
    const life = await oneLife(around, (agent) => {
      seat.take(agent)
      scope.spawn('ready', () => becomeReady(around, details, gone.signal))
    })
    gone.abort()
    seat.leave()
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

/** It serves as soon as the agent does; one with a session is ready when its owner can find its key package. */
async function becomeReady({ writer, session }: Surroundings, details: Details, gone: AbortSignal): Promise<void> {
  const probed = details({ probe: 'prompt_endpoint', service_probe_satisfied: true })
  if (session !== undefined) {
    writer.enter('starting', 'publishing the key package', probed)
    await session.published()
  }
  if (!gone.aborted) writer.enter('ready', 'serving prompts', probed)
}

interface LifeEnd {
  readonly exit: Exit
  readonly wasReady: boolean
  readonly message: string
  readonly reason?: string
}

async function oneLife(around: Surroundings, onReady: (agent: Agent) => void): Promise<LifeEnd> {
  const { service, scope, stopping, log } = around
  if (service.command === '') return await lifeOfModel(around, onReady)
  if (stopping.aborted) return { exit: { code: 143, signal: null }, wasReady: false, message: 'the guest was told to stop' }
  const child = startCommand(
    { command: service.command, cwd: service.cwd, env: service.env, runAs: service.launch.run_as, clock: scope.clock },
    true,
  )
  let tail = Buffer.alloc(0)
  child.process.stderr?.on('data', (chunk: Buffer) => {
    log.write(chunk)
    tail = Buffer.concat([tail, chunk]).subarray(-MAX_TOLD_BYTES)
  })
  const onStop = () => child.stop(KILL_GRACE_MS)
  stopping.addEventListener('abort', onStop, { once: true })
  let wasReady = false
  try {
    const agent = agentOf(around, child)
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
    return { exit: exit.code === 0 ? { ...exit, code: 1 } : exit, wasReady, message: withLastWords(message, tail), reason }
  } finally {
    stopping.removeEventListener('abort', onStop)
  }
}

/** A model has no process: it serves until the guest is told to stop, or it does not answer to begin with. */
async function lifeOfModel({ service, scope, stopping, dir }: Surroundings, onReady: (agent: Agent) => void): Promise<LifeEnd> {
  const { env, launch } = service
  const agent = new OpenAiAgent({
    server: { name: 'the model server', baseUrl: env['PYLON_AGENT_BASE_URL'] ?? '', ...given({ apiKey: env['PYLON_AGENT_API_KEY'] }) },
    model: env['PYLON_AGENT_MODEL'] ?? '',
    system: env['PYLON_AGENT_SYSTEM'],
    dir: join(dir ?? launch.spec.paths.state_dir, 'conversations'),
  })
  try {
    await scope.within('start', START_TIMEOUT_MS, (signal) => agent.start(AbortSignal.any([signal, stopping])))
  } catch (error) {
    return { exit: { code: 1, signal: null }, wasReady: false, message: messageOf(error), reason: 'timeout_waiting_for_agent' }
  }
  onReady(agent)
  if (!stopping.aborted) await new Promise<void>((resolve) => stopping.addEventListener('abort', () => resolve(), { once: true }))
  return { exit: { code: 0, signal: null }, wasReady: true, message: 'the guest was told to stop' }
}

function agentOf({ service, dir }: Surroundings, child: ProcessGroup): Agent {
  const book = new ConversationBook(dir === undefined ? undefined : join(dir, `${service.launch.protocol}-conversations.json`))
  return service.launch.protocol === 'acp' ? new AcpAgent(child, service.cwd, book) : new PiAgent(child, book)
}

/** With the last lines that it wrote to standard error: its machine is gone soon. */
function withLastWords(message: string, stderr: Buffer): string {
  const lines = stderr
    .toString()
    .split('\n')
    .map((line) => line.replace(/\p{Cc}+/gu, ' ').trim())
  const last = lines
    .filter((line) => line !== '')
    .slice(-MAX_TOLD_LINES)
    .join(' | ')
  return last === '' ? message : `${message}; it wrote: ${last}`
}

function describe(exit: Exit): string {
  if (exit.error !== undefined) return `the agent did not start: ${exit.error.message}`
  return exit.code === 127 ? 'the agent was not found (exit 127)' : `the agent exited with ${exit.code}`
}

type Details = (more: LifecycleDetails) => LifecycleDetails

function detailsOf(launch: Service['launch'], session: GuestSession | undefined): Details {
  return (more) => ({
    agent_kind: launch.protocol,
    service_kind: 'prompt_endpoint',
    service_probe_satisfied: false,
    version: VERSION,
    ...(session === undefined ? {} : { bot_pubkey: session.pubkey }),
    ...more,
  })
}

/** A relative socket path is below the state directory, where a long absolute one may not fit a socket address. */
function listenOf(listen: Listen, stateDir: string): Listen {
  if (!('unix' in listen) || isAbsolute(listen.unix)) return listen
  const path = join(stateDir, listen.unix)
  if (Buffer.byteLength(path) <= 107) return { unix: path }
  process.chdir(stateDir)
  return { unix: listen.unix }
}
