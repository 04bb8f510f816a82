/** The sandbox process of a sandbox node: started with it, started again when it dies, ended with it. */
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { z } from 'zod'
import type { Clock } from '../base/clock.ts'
import { ERRORS, type ErrorCode, isPylonError, messageOf, PylonError } from '../base/errors.ts'
import { parseJson } from '../base/json.ts'
import type { Logger } from '../base/logger.ts'
import type { Home } from '../base/paths.ts'
import { type ChildProcess, spawnProcess } from '../base/processes.ts'
import type { Scope } from '../base/scope.ts'
import { type Health, OK } from './health.ts'
import { childEnv, selfCommand } from './launch/self-command.ts'

/** Where a sandbox serves. */
export interface SandboxUrls {
  readonly relayUrl: string
  readonly mintUrl: string
  readonly lnurlBaseUrl: string
}

const READY_DEADLINE_MS = 20_000
const AGAIN = { minMs: 250, maxMs: 30_000 }
const PORT_ATTEMPTS = 15
const PORT_WAIT_MS = 200
const STOP_GRACE_MS = 3000

const readyLine = z.object({ relay_url: z.string(), mint_url: z.string(), lnurl_base_url: z.string(), version: z.string(), pid: z.int() })
const failedLine = z.object({ error: z.object({ code: z.string(), message: z.string() }) })

interface Deps {
  /** The process ends with it. */
  readonly scope: Scope
  readonly home: Home
  readonly logger: Logger
  /** Descriptor-backed sink of the child's own log lines. */
  onLog(line: string): void
}

export class SandboxChild {
  readonly #deps: Deps
  #child: ChildProcess | undefined
  #health: Health = { state: 'degraded', reason: 'starting' }

  constructor(deps: Deps) {
    this.#deps = deps
    deps.scope.atEnd('process', () => this.#stop())
  }

  get health(): Health {
    return this.#health
  }

  /** The sandbox of a node that was killed just now may hold its ports a moment longer. @throws port_taken, sandbox_failed */
  async start(): Promise<SandboxUrls> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#launch()
      } catch (error) {
        if (!isPylonError(error, 'port_taken') || attempt >= PORT_ATTEMPTS) throw error
        await this.#deps.scope.sleep(PORT_WAIT_MS)
      }
    }
  }

  async #launch(): Promise<SandboxUrls> {
    const { scope, home, logger, onLog } = this.#deps
    const { command, args } = selfCommand(['sandbox', '--dir', join(home.dir, 'services')])
    // The IPC channel carries nothing: its end tells the sandbox that we have died.
    const child = spawnProcess([command, ...args], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'], env: childEnv(process.env) })
    this.#child = child
    if (child.stderr !== null) createInterface({ input: child.stderr }).on('line', (line) => onLog(`${line}\n`))
    const urls = await firstLine(child, scope.clock)
    this.#health = OK
    child.once('exit', () => scope.spawn('start again', () => this.#startAgain()))
    logger.info({ pid: child.pid, ...urls }, 'the sandbox serves')
    return urls
  }

  async #stop(): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
    child.kill('SIGTERM')
    const cancelKill = this.#deps.scope.clock.after(STOP_GRACE_MS, () => child.kill('SIGKILL'))
    await exited
    cancelKill()
  }

  async #startAgain(): Promise<void> {
    const { scope, logger } = this.#deps
    for (const again = scope.backoff(AGAIN); ; ) {
      const { exitCode, signalCode } = this.#child ?? {}
      const how = typeof signalCode === 'string' ? `signal ${signalCode}` : `exit code ${exitCode}`
      const restartInMs = again.nextMs()
      logger.error({ how, restart_in_ms: restartInMs }, 'the sandbox ended')
      this.#health = { state: 'degraded', reason: `the sandbox process ended with ${how} and is started again`, nextStep: 'pylon logs' }
      await scope.sleep(restartInMs)
      try {
        await this.#launch()
        return
      } catch (error) {
        logger.error({ reason: messageOf(error) }, 'the sandbox did not start again')
      }
    }
  }
}

/** The one line that says where it serves, or why it does not. */
function firstLine(child: ChildProcess, clock: Clock): Promise<SandboxUrls> {
  return new Promise((resolve, reject) => {
    const cancelLate = clock.after(READY_DEADLINE_MS, () => {
      child.kill('SIGKILL')
      fail(new PylonError('sandbox_failed', 'The sandbox did not become ready in time; its lines in the log say why.'))
    })
    const fail = (error: PylonError) => {
      cancelLate()
      reject(error)
    }
    child.once('error', (error) => fail(new PylonError('sandbox_failed', `The sandbox could not be started: ${error.message}`)))
    child.once('exit', () => fail(new PylonError('sandbox_failed', 'The sandbox ended before it was ready; its lines in the log say why.')))
    if (child.stdout === null) return fail(new PylonError('internal', 'The sandbox has no output.'))
    createInterface({ input: child.stdout }).once('line', (line) => {
      const ready = readyLine.safeParse(parseJson(line))
      const failed = failedLine.safeParse(parseJson(line))
      if (ready.success) {
        cancelLate()
        const { relay_url, mint_url, lnurl_base_url } = ready.data
        resolve({ relayUrl: relay_url, mintUrl: mint_url, lnurlBaseUrl: lnurl_base_url })
      } else if (failed.success) {
        const { code, message } = failed.data.error
        fail(new PylonError(Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'sandbox_failed', message))
      } else {
        fail(new PylonError('sandbox_failed', 'The sandbox said something that is no ready line.'))
      }
    })
  })
}
