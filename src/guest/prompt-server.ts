/** Serves POST /v1/runtime/prompt inside a runtime: tickets checked, sessions in order, a key answered once. */
import { createHash } from 'node:crypto'
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Clock } from '../base/clock.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import { parseJson } from '../base/json.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import { hasManyHosts } from '../base/one-host.ts'
import {
  decodePromptRequest,
  MAX_PROMPT_BYTES,
  PROMPT_ERRORS,
  PROMPT_PATH,
  PROMPT_SCHEMA_VERSION,
  type PromptErrorCode,
  type PromptRequest,
  type PromptResult,
  type Protocol,
} from '../runtime/contract/prompt.ts'
import { verifyTicket } from '../runtime/contract/ticket.ts'
import type { Agent } from './agents/agent.ts'

/** Prompts that run or wait at once. */
const MAX_IN_FLIGHT = 32
/** Answers kept for a key that comes again. */
const MAX_KEPT = 256

export type Listen = { readonly unix: string } | { readonly host: string; readonly port: number }

export interface PromptServerOptions {
  readonly runtimeId: string
  readonly protocol: Protocol
  readonly ticketKey: string
  readonly clock: Clock
  /** The agent now, or undefined while it starts again. */
  readonly agent: () => Agent | undefined
}

class PromptFailure extends Error {
  readonly code: PromptErrorCode
  constructor(code: PromptErrorCode, message: string) {
    super(message)
    this.code = code
  }
}

interface Kept {
  readonly digest: string
  readonly answer: Promise<PromptResult>
}

export class PromptServer {
  readonly #options: PromptServerOptions
  readonly #server: Server
  /** Turns of one session run one behind the other. */
  readonly #lines = new KeyedQueue()
  readonly #kept = new Map<string, Kept>()
  #inFlight = 0

  constructor(options: PromptServerOptions) {
    this.#options = options
    this.#server = createServer({ headersTimeout: 10_000, requestTimeout: 30_000 }, (request, response) => {
      this.#handle(request, response).catch(() => response.destroy())
    })
  }

  /** @returns where it listens, as for a status. @throws Error */
  async listen(where: Listen): Promise<string> {
    if ('unix' in where) rmSync(where.unix, { force: true })
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      if ('unix' in where) this.#server.listen(where.unix, resolve)
      else this.#server.listen(where.port, where.host, resolve)
    })
    if ('unix' in where) {
      chmodSync(where.unix, 0o600)
      return 'unix'
    }
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? `${address.address}:${address.port}` : where.host
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const path = (request.url ?? '').split('?')[0]
      if (path !== PROMPT_PATH) throw new PromptFailure('not_found', `There is only ${PROMPT_PATH}.`)
      if (hasManyHosts(request)) throw new PromptFailure('invalid_request', 'The request has more than one Host header.')
      if (request.method !== 'POST') throw new PromptFailure('method_not_allowed', 'Use POST.')
      this.#authorize(request)
      const prompt = await this.#read(request)
      const gone = new AbortController()
      response.once('close', () => gone.abort(new PromptFailure('timeout', 'The client has gone.')))
      send(response, 200, await this.#answer(prompt, gone.signal))
    } catch (error) {
      const failure = error instanceof PromptFailure ? error : new PromptFailure('agent_failed', messageOf(error).slice(0, 2000))
      if (failure.code === 'request_too_large') response.setHeader('connection', 'close')
      send(response, PROMPT_ERRORS[failure.code], { error: failure.code, message: failure.message })
    }
  }

  #authorize(request: IncomingMessage): void {
    const [scheme, ticket] = (request.headers.authorization ?? '').split(' ')
    const { ticketKey, runtimeId, clock } = this.#options
    if (scheme?.toLowerCase() !== 'bearer' || ticket === undefined || !verifyTicket(ticketKey, runtimeId, ticket, clock.now())) {
      throw new PromptFailure('unauthorized', 'Send Authorization: Bearer with a fresh launch ticket of this runtime.')
    }
  }

  async #read(request: IncomingMessage): Promise<PromptRequest> {
    const chunks: Buffer[] = []
    let bytes = 0
    for await (const chunk of request as AsyncIterable<Buffer>) {
      bytes += chunk.length
      if (bytes > MAX_PROMPT_BYTES) throw new PromptFailure('request_too_large', `The request is over ${MAX_PROMPT_BYTES} bytes.`)
      chunks.push(chunk)
    }
    let prompt: PromptRequest
    try {
      prompt = decodePromptRequest(parseJson(Buffer.concat(chunks).toString('utf8')))
    } catch (error) {
      throw new PromptFailure('invalid_request', error instanceof PylonError ? error.message : 'The request is malformed.')
    }
    if (prompt.protocol !== this.#options.protocol) {
      throw new PromptFailure('unsupported_protocol', `This runtime speaks ${this.#options.protocol}.`)
    }
    return prompt
  }

  /** A prompt with a key goes on when its client has gone, so that the client can come again for the answer. */
  #answer(prompt: PromptRequest, gone: AbortSignal): Promise<PromptResult> {
    if (prompt.idempotency_key === undefined) return this.#admit(prompt, gone)
    const key = `${prompt.session_id}\n${prompt.idempotency_key}`
    const digest = createHash('sha256').update(prompt.message).digest('hex')
    const kept = this.#kept.get(key)
    if (kept !== undefined) {
      if (kept.digest !== digest) throw new PromptFailure('idempotency_conflict', 'The key was used in this session with another message.')
      return kept.answer
    }
    const answer = this.#admit(prompt, undefined)
    this.#kept.set(key, { digest, answer })
    // What failed may be tried again under the same key.
    answer.catch(() => this.#kept.delete(key))
    const [oldest] = this.#kept.keys()
    if (this.#kept.size > MAX_KEPT && oldest !== undefined) this.#kept.delete(oldest)
    return answer
  }

  async #admit(prompt: PromptRequest, gone: AbortSignal | undefined): Promise<PromptResult> {
    if (this.#inFlight >= MAX_IN_FLIGHT)
      throw new PromptFailure('overloaded', `${MAX_IN_FLIGHT} prompts are waiting already; try again later.`)
    this.#inFlight++
    // pi holds one conversation at a time: there all sessions stand in one line.
    const line = prompt.protocol === 'pi' ? '' : prompt.session_id
    try {
      return await this.#lines.run(line, () => this.#turn(prompt, gone))
    } finally {
      this.#inFlight--
    }
  }

  async #turn(prompt: PromptRequest, gone: AbortSignal | undefined): Promise<PromptResult> {
    const agent = this.#options.agent()
    if (agent === undefined) throw new PromptFailure('agent_unavailable', 'The agent is starting; try again.')
    const limit = new AbortController()
    const cancel = this.#options.clock.after(prompt.timeout_ms, () =>
      limit.abort(new PromptFailure('timeout', `The agent took longer than ${prompt.timeout_ms} ms.`)),
    )
    try {
      const signal = gone === undefined ? limit.signal : AbortSignal.any([limit.signal, gone])
      signal.throwIfAborted()
      const turn = await agent.prompt(prompt.session_id, prompt.message, signal)
      return {
        schema_version: PROMPT_SCHEMA_VERSION,
        session_id: prompt.session_id,
        reply: turn.reply,
        stop_reason: turn.stopReason,
        ...(turn.events.length === 0 ? {} : { events: [...turn.events] }),
      }
    } finally {
      cancel()
    }
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  if (response.destroyed) return
  const text = JSON.stringify(body)
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text), 'cache-control': 'no-store' })
  response.end(text)
}
