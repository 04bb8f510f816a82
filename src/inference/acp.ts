/**
 * One turn of an agent that speaks the Agent Client Protocol (v1): a command of the owner, started for it and ended with it, all
 * that it started too. It gets a bare environment and an empty folder, offers of ours none (no files, no terminal), and asks in vain.
 */
import { mkdirSync, realpathSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { basename, join, resolve, sep } from 'node:path'
import { RequestError, type RequestPermissionRequest } from '@agentclientprotocol/sdk'
import type { Clock } from '../base/clock.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import { type Exit, ProcessGroup, pickEnv } from '../base/processes.ts'
import { AcpClient, type AcpListener } from './acp-client.ts'
import { endStrays, MARK, makeScratch } from './traces.ts'

/** What the agent may reach beside its model, for one turn. */
export interface AcpHands {
  /** A server of tools over stdio, which the agent starts. */
  readonly server: { readonly name: string; readonly command: string; readonly args: readonly string[] }
  close(): Promise<void>
}

export interface AcpTurn {
  /** argv; the first is looked up on PATH. */
  readonly command: readonly string[]
  readonly prompt: string
  readonly timeoutMs: number
  /** Of all that it says, in characters. */
  readonly maxChars: number
  /** Opens its hands, in a private folder that goes with the turn. */
  readonly openHands?: (dir: string) => Promise<AcpHands>
  /** What is really started: the command within a fence. @param dir must stay in its sight */
  readonly enclose?: (command: readonly string[], dir: string) => Promise<readonly string[]>
  readonly signal: AbortSignal
}

export interface AcpAnswer {
  /** The last that it said, after its last use of a tool. */
  readonly text: string
  /** What it thought and said before, and the tools that it used. */
  readonly thoughts: string
}

const MAX_MESSAGE_BYTES = 4 * 1024 * 1024
const KILL_GRACE_MS = 500
const STDERR_KEPT = 2000
const STDERR_TOLD = 300

/** Why a turn that ended is no answer; a turn that ended well has no such words. */
const NO_ANSWER: Readonly<Record<string, string>> = {
  max_tokens: 'its model ran out of tokens',
  max_turn_requests: 'it asked its model too often',
  refusal: 'it refused to go on',
  cancelled: 'it gave up',
}

/** @throws backend_unavailable when it does not start; backend_failed when it ends, errs, outlives the time or gives no whole answer; output_too_large; the signal's reason */
export async function takeTurn(turn: AcpTurn, clock: Clock): Promise<AcpAnswer> {
  turn.signal.throwIfAborted()
  const dir = makeScratch()
  const cwd = join(dir, 'cwd')
  let hands: AcpHands | undefined
  try {
    mkdirSync(cwd)
    hands = await turn.openHands?.(dir)
    const command = (await turn.enclose?.(turn.command, dir)) ?? turn.command
    return await converse(turn, { command, dir, cwd, hands }, clock)
  } finally {
    await hands?.close()
    await endStrays(dir)
    await rm(dir, { recursive: true, force: true, maxRetries: 3 })
  }
}

interface Place {
  readonly command: readonly string[]
  readonly dir: string
  readonly cwd: string
  readonly hands: AcpHands | undefined
}

async function converse(turn: AcpTurn, place: Place, clock: Clock): Promise<AcpAnswer> {
  const { command, dir, cwd } = place
  const name = turn.command[0] ?? ''
  const env = pickEnv(['PATH', 'HOME', 'LANG'], { [MARK]: basename(dir) })
  const group = new ProcessGroup(command, { cwd, env, stdin: true, pipeGraceMs: KILL_GRACE_MS, clock })
  let stderr = ''
  group.process.stderr?.on('data', (chunk: Buffer) => {
    stderr = `${stderr}${chunk.toString('utf8')}`.slice(-STDERR_KEPT)
  })
  const end = new AbortController()
  const late = new PylonError('backend_failed', `The agent ${name} took longer than ${turn.timeoutMs / 1000} s and was stopped.`)
  const cancelTimeout = clock.after(turn.timeoutMs, () => end.abort(late))
  const onAbort = () => end.abort(turn.signal.reason)
  turn.signal.addEventListener('abort', onAbort, { once: true })
  const gone = group.exited.then((exit) => end.abort(exitError(name, exit, stderr)))
  try {
    return await speak(turn, place, group, end)
  } catch (error) {
    // The connection broke: how the program ended says more.
    if (!(error instanceof RequestError || error instanceof PylonError)) {
      group.stop(KILL_GRACE_MS)
      await gone
    }
    if (end.signal.aborted) throw end.signal.reason
    throw error instanceof PylonError
      ? error
      : new PylonError('backend_failed', `The agent ${name} says: ${messageOf(error)}`, { cause: error })
  } finally {
    cancelTimeout()
    turn.signal.removeEventListener('abort', onAbort)
    group.stop(KILL_GRACE_MS)
    await gone
  }
}

async function speak(turn: AcpTurn, { cwd, hands }: Place, group: ProcessGroup, end: AbortController): Promise<AcpAnswer> {
  const heard = new Heard(turn.maxChars, () =>
    end.abort(new PylonError('output_too_large', `The agent said more than ${turn.maxChars} characters.`)),
  )
  const client = new AcpClient(group, {
    cwd,
    mcpServers: hands === undefined ? [] : [{ ...hands.server, args: [...hands.server.args], env: [] }],
    permit: (request) => [isAllowed(request, cwd, hands?.server.name) ? 'allow_once' : 'reject_once'],
    listener: () => heard,
    maxMessageBytes: MAX_MESSAGE_BYTES,
  })
  await client.initialize(end.signal)
  const session = await client.openSession(end.signal)
  const stopReason = await client.prompt(session, turn.prompt, end.signal)
  end.signal.throwIfAborted()
  const lack = NO_ANSWER[stopReason]
  if (lack !== undefined) throw new PylonError('backend_failed', `The agent gave no answer: ${lack}.`)
  return heard.answer()
}

/** Gathers what the agent says: only what comes after its last tool is its answer. */
class Heard implements AcpListener {
  readonly #maxChars: number
  readonly #onOver: () => void
  #said = ''
  #thoughts = ''

  constructor(maxChars: number, onOver: () => void) {
    this.#maxChars = maxChars
    this.#onOver = onOver
  }

  text(text: string): void {
    this.#said += text
    this.#measure()
  }

  thought(text: string): void {
    this.#thoughts += text
    this.#measure()
  }

  toolCall(_callId: string, title: string): void {
    this.#thoughts += `${this.#said === '' ? '' : `${this.#said}\n`}[${title.slice(0, 200)}]\n`
    this.#said = ''
    this.#measure()
  }

  #measure(): void {
    if (this.#said.length + this.#thoughts.length > this.#maxChars) this.#onOver()
  }

  answer(): AcpAnswer {
    return { text: this.#said, thoughts: this.#thoughts.trim() }
  }
}

/** Reading in its own folder, and the tools that it was given; all else is refused, since nobody is there to be asked. */
function isAllowed({ toolCall }: RequestPermissionRequest, cwd: string, server: string | undefined): boolean {
  const paths = (toolCall.locations ?? []).map(({ path }) => path)
  const isReading = toolCall.kind === 'read' && paths.length > 0 && paths.every((path) => isInside(path, cwd))
  const isOwnTool = server !== undefined && new RegExp(`^(?:mcp__)?${server}(?:__|: |/)[a-z_]{1,64}$`).test(toolCall.title ?? '')
  return isReading || isOwnTool
}

function isInside(path: string, cwd: string): boolean {
  try {
    return realpathSync(resolve(cwd, path)).startsWith(`${realpathSync(cwd)}${sep}`)
  } catch {
    // It is not there: nothing to read.
    return false
  }
}

function exitError(name: string, exit: Exit, stderr: string): PylonError {
  if (exit.error !== undefined) return new PylonError('backend_unavailable', `The agent ${name} does not start: ${exit.error.message}.`)
  const words = stderr.trim().slice(-STDERR_TOLD)
  return new PylonError(
    'backend_failed',
    `The agent ${name} ended with ${exit.code} before it had answered${words === '' ? '.' : `: ${words}`}`,
  )
}
