/** HTTP to a control plane that is somewhere else: through the guarded dialer, with errors that name the URL and the next step. */
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import type { Dialer } from '../../base/dialer.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'

export interface RemoteOptions {
  readonly dialer: Dialer
  /** Trailing slashes do not matter. The owner configured it: it becomes an exception of the dialer. */
  readonly baseUrl: string
  /** In error messages: `vm-spawner`. */
  readonly name: string
  /** What the owner can do when it does not answer. */
  readonly nextStep: string
  /** Where its token is, and whose it is for error messages. Read for every request, so that a new token needs no restart. */
  readonly token?: { readonly file: string; readonly of: string } | undefined
  /** Whether it says that there is no such thing; default: by 404. */
  readonly isAbsent?: (answer: RemoteAnswer) => boolean
  /** Of the scope that asks: ends what is under way. */
  readonly signal: AbortSignal
}

interface RemoteCall {
  /** Default 30 s. */
  readonly timeoutMs?: number
  readonly body?: unknown
  readonly signal?: AbortSignal | undefined
  readonly maxBytes?: number
}

export interface RemoteAnswer {
  readonly status: number
  readonly text: string
  /** Undefined where the body is no JSON. */
  readonly json: unknown
}

/** A method and a path that begins with a slash: `GET /vms`. */
type Request = `${'GET' | 'POST' | 'DELETE'} /${string}`

/** Of an answer that says no more than that it was done. */
export const DONE = z.unknown().transform(() => true as const)

const CALL_MS = 30_000
/** Of an error body, in characters. */
const SHOWN_CHARS = 300
const BUSY = new Set([429, 502, 503, 504])

export class Remote {
  /** Without a trailing slash. */
  readonly baseUrl: string
  readonly #options: RemoteOptions

  constructor(options: RemoteOptions) {
    this.baseUrl = options.baseUrl.replace(/\/+$/, '')
    this.#options = options
    options.dialer.allow(this.baseUrl)
  }

  /** One exchange, whatever its status. @throws runtime_unreachable (details.timeout), address_refused, a signal's reason */
  async send(request: Request, call: RemoteCall = {}): Promise<RemoteAnswer> {
    const { dialer, name, nextStep, signal } = this.#options
    const [method, path] = partsOf(request)
    const url = `${this.baseUrl}${path}`
    const token = this.#token()
    const ends = call.signal === undefined ? signal : AbortSignal.any([call.signal, signal])
    try {
      const { status, text } = await dialer.fetch(url, {
        method,
        timeoutMs: call.timeoutMs ?? CALL_MS,
        maxBytes: call.maxBytes ?? 1_048_576,
        headers: {
          accept: 'application/json',
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
        signal: ends,
      })
      return { status, text, json: parseJson(text) }
    } catch (error) {
      ends.throwIfAborted()
      if (isPylonError(error, 'address_refused')) throw error
      const details = { url, timeout: isPylonError(error) && error.details['timeout'] === true }
      throw new PylonError('runtime_unreachable', `The ${name} does not answer: ${messageOf(error)} ${nextStep}`, { details, cause: error })
    }
  }

  /**
   * One exchange that must succeed, read.
   * @param what for the message: `create volume`
   * @throws as send does; runtime_unreachable for 429 and 5xx of a gateway, else runtime_failed, both with the body's beginning
   */
  async ask<T>(what: string, shape: z.ZodType<T>, request: Request, call?: RemoteCall): Promise<T> {
    return this.#read(what, shape, request, await this.send(request, call))
  }

  /** The same; undefined where there is no such thing. */
  async find<T>(what: string, shape: z.ZodType<T>, request: Request, call?: RemoteCall): Promise<T | undefined> {
    const answer = await this.send(request, call)
    const isAbsent = this.#options.isAbsent?.(answer) ?? answer.status === 404
    return isAbsent ? undefined : this.#read(what, shape, request, answer)
  }

  #read<T>(what: string, shape: z.ZodType<T>, request: Request, answer: RemoteAnswer): T {
    if (!isSuccess(answer)) throw this.#refusal(what, request, answer)
    const parsed = shape.safeParse(answer.json)
    if (parsed.success) return parsed.data
    const [issue] = parsed.error.issues
    const words = `The answer of the ${this.#options.name} is none that this version knows (${what}; ${issue?.path.join('.')}: ${issue?.message}).`
    throw new PylonError('runtime_failed', words, { details: { url: this.#urlOf(request) } })
  }

  #refusal(what: string, request: Request, { status, text }: RemoteAnswer): PylonError {
    const { name, nextStep } = this.#options
    const [method] = partsOf(request)
    const url = this.#urlOf(request)
    const token = this.#token() ?? ''
    const shown = (token === '' ? text : text.replaceAll(token, '[hidden]')).slice(0, SHOWN_CHARS).trim()
    const isBusy = BUSY.has(status)
    const step = status === 401 || status === 403 ? 'Check the token in its configuration.' : isBusy ? nextStep : ''
    const words = [`The ${name} failed to ${what}: ${method} ${url} gave ${status}`, shown, step].filter((part) => part !== '').join(' ')
    return new PylonError(isBusy ? 'runtime_unreachable' : 'runtime_failed', words, { details: { url, status } })
  }

  #urlOf(request: Request): string {
    return `${this.baseUrl}${partsOf(request)[1]}`
  }

  /** @throws runtime_failed naming the file */
  #token(): string | undefined {
    const { token } = this.#options
    if (token === undefined) return undefined
    let text: string
    try {
      text = readFileSync(token.file, 'utf8').trim()
    } catch (error) {
      throw new PylonError(
        'runtime_failed',
        `The token of ${token.of} cannot be read from ${token.file} (${messageOf(error)}): write it there.`,
      )
    }
    if (text === '') throw new PylonError('runtime_failed', `${token.file} is empty: write the token of ${token.of} there.`)
    return text
  }
}

export function isSuccess({ status }: Pick<RemoteAnswer, 'status'>): boolean {
  return status >= 200 && status < 300
}

function partsOf(request: Request): ['GET' | 'POST' | 'DELETE', string] {
  const space = request.indexOf(' ')
  return [request.slice(0, space) as 'GET' | 'POST' | 'DELETE', request.slice(space + 1)]
}
