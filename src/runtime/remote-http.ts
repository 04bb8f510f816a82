/** HTTP to a substrate that is somewhere else: through the guarded dialer, with errors that name the URL and the next step. */
import { readFileSync } from 'node:fs'
import type { Dialer } from '../base/dialer.ts'
import { isPylonError, messageOf, PylonError } from '../base/errors.ts'
import { parseJson } from '../base/json.ts'

export interface RemoteOptions {
  readonly dialer: Dialer
  /** Trailing slashes do not matter. Whoever owns the origin has made it an exception of the dialer. */
  readonly baseUrl: string
  /** In error messages: `vm-spawner`. */
  readonly name: string
  /** What the owner can do when it does not answer. */
  readonly nextStep: string
  /** Read for every request, so that a new token needs no restart. */
  readonly token?: () => string | undefined
}

export interface RemoteCall {
  readonly method: 'GET' | 'POST' | 'DELETE'
  /** Beginning with a slash. */
  readonly path: string
  readonly body?: unknown
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
  readonly maxBytes?: number
}

export interface RemoteAnswer {
  readonly status: number
  readonly text: string
  /** Undefined where the body is no JSON. */
  readonly json: unknown
}

export interface Remote {
  /** Without a trailing slash. */
  readonly baseUrl: string
  /** One exchange, whatever its status. @throws runtime_unreachable (details.timeout), address_refused, the signal's reason */
  send(call: RemoteCall): Promise<RemoteAnswer>
  /**
   * One exchange that must succeed.
   * @param what for the message: `create volume`
   * @throws as send does; runtime_unreachable for 429 and 5xx of a gateway, else runtime_failed, both with the body's beginning
   */
  ask(what: string, call: RemoteCall): Promise<RemoteAnswer>
  /** The error for an answer that is none of those expected. */
  refusal(what: string, call: Pick<RemoteCall, 'method' | 'path'>, answer: RemoteAnswer): PylonError
}

export function isSuccess({ status }: Pick<RemoteAnswer, 'status'>): boolean {
  return status >= 200 && status < 300
}

/** Of an error body, in characters. */
const SHOWN_CHARS = 300
const BUSY = new Set([429, 502, 503, 504])

export function createRemote(options: RemoteOptions): Remote {
  const baseUrl = options.baseUrl.replace(/\/+$/, '')

  async function send(call: RemoteCall): Promise<RemoteAnswer> {
    const token = options.token?.()
    const url = `${baseUrl}${call.path}`
    try {
      const { status, text } = await options.dialer.fetch(url, {
        method: call.method,
        timeoutMs: call.timeoutMs,
        maxBytes: call.maxBytes ?? 1_048_576,
        headers: {
          accept: 'application/json',
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
        ...(call.signal === undefined ? {} : { signal: call.signal }),
      })
      return { status, text, json: parseJson(text) }
    } catch (error) {
      call.signal?.throwIfAborted()
      if (isPylonError(error, 'address_refused')) throw error
      const details = { url, timeout: isPylonError(error) && error.details['timeout'] === true }
      throw new PylonError('runtime_unreachable', `The ${options.name} does not answer: ${messageOf(error)} ${options.nextStep}`, {
        details,
        cause: error,
      })
    }
  }

  function refusal(what: string, { method, path }: Pick<RemoteCall, 'method' | 'path'>, answer: RemoteAnswer): PylonError {
    const url = `${baseUrl}${path}`
    const shown = hide(answer.text, options.token?.()).slice(0, SHOWN_CHARS).trim()
    const step =
      answer.status === 401 || answer.status === 403
        ? 'Check the token in its configuration.'
        : BUSY.has(answer.status)
          ? options.nextStep
          : ''
    const words = `The ${options.name} failed to ${what}: ${method} ${url} gave ${answer.status} ${shown}`.trim()
    return new PylonError(BUSY.has(answer.status) ? 'runtime_unreachable' : 'runtime_failed', `${words}${step === '' ? '' : ` ${step}`}`, {
      details: { url, status: answer.status },
    })
  }

  return {
    baseUrl,
    send,
    refusal,
    async ask(what, call) {
      const answer = await send(call)
      if (isSuccess(answer)) return answer
      throw refusal(what, call, answer)
    },
  }
}

/** What may not be shown, wherever a server repeats it. */
function hide(text: string, secret: string | undefined): string {
  return secret === undefined || secret === '' ? text : text.replaceAll(secret, '[hidden]')
}

/** The token in a file of the owner. @throws runtime_failed naming the file */
export function tokenFromFile(path: string, name: string): string {
  let text: string
  try {
    text = readFileSync(path, 'utf8').trim()
  } catch (error) {
    throw new PylonError('runtime_failed', `The token of ${name} cannot be read from ${path} (${messageOf(error)}): write it there.`)
  }
  if (text === '') throw new PylonError('runtime_failed', `${path} is empty: write the token of ${name} there.`)
  return text
}

/** One at a time for each id: a second call for an id that is under way gets the first one's answer. */
export class Once<T> {
  readonly #running = new Map<string, Promise<T>>()

  do(id: string, work: () => Promise<T>): Promise<T> {
    const running = this.#running.get(id)
    if (running !== undefined) return running
    const mine = work().finally(() => this.#running.delete(id))
    this.#running.set(id, mine)
    return mine
  }
}
