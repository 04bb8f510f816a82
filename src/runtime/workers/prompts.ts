/** Prompts to the runtime behind a broker: the versioned endpoint first, and two older ones for runtimes of before it. */
import type { Dialer } from '../../base/dialer.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import type { PromptCall } from '../adapter.ts'
import { MAX_ANSWER_BYTES, PROMPT_PATH, PROMPT_SCHEMA_VERSION, type PromptResult, type Protocol } from '../contract/prompt.ts'
import { promptBody, readPromptAnswer } from '../prompt-client.ts'
import { isSuccess, Remote, type RemoteAnswer } from '../remote/remote.ts'
import { parseReply } from '../reply-parser.ts'

const MIN_PROMPT_MS = 100
const MAX_PROMPT_MS = 120_000
/** For runtimes of before the versioned endpoint, in this order. */
const OLDER_PATHS = ['/rpc', '/reply'] as const

export interface PromptedRuntime {
  /** Of the runtime that answers prompts. */
  readonly runtimeUrl: string
  readonly runtimeTokenFile?: string | undefined
  /** The most that one prompt may take: 100 to 120000, the default. */
  readonly runtimeTimeoutMs?: number | undefined
}

interface PromptedAgent {
  readonly agent_id: string
  readonly agent_name: string
  readonly protocol: Protocol | null
}

export class RuntimePrompts {
  readonly #http: Remote
  readonly #maxMs: number

  /** @param ends what is under way */
  constructor({ runtimeUrl, runtimeTokenFile, runtimeTimeoutMs = MAX_PROMPT_MS }: PromptedRuntime, dialer: Dialer, ends: AbortSignal) {
    this.#maxMs = Math.max(MIN_PROMPT_MS, Math.min(MAX_PROMPT_MS, runtimeTimeoutMs))
    const of = 'the runtime (runtimes.workers.runtime_token_file)'
    this.#http = new Remote({
      dialer,
      baseUrl: runtimeUrl,
      name: `runtime at ${runtimeUrl}`,
      nextStep: 'Check runtimes.workers.runtime_url and that the runtime listens there.',
      token: runtimeTokenFile === undefined ? undefined : { file: runtimeTokenFile, of },
      signal: ends,
    })
  }

  /** @throws runtime_unsupported for another protocol, timeout, runtime_unreachable, runtime_failed */
  async prompt(agent: PromptedAgent, call: PromptCall, signal: AbortSignal): Promise<PromptResult> {
    const { agent_id, agent_name, protocol } = agent
    if (protocol !== call.protocol)
      throw new PylonError('runtime_unsupported', `This runtime speaks ${protocol ?? 'no protocol'}, not ${call.protocol}.`)
    const url = this.#http.baseUrl
    const timeoutMs = Math.min(call.timeoutMs, this.#maxMs)
    const answer = await this.#post(PROMPT_PATH, promptBody({ ...call, timeoutMs }), timeoutMs, signal)
    if (!isAbsent(answer)) return readPromptAnswer(answer.status, answer.text, `The runtime at ${url}`)
    const { message } = call
    const body = { agent_id, agent_name, type: 'prompt', message, rpc: { type: 'prompt', message }, history: [] }
    for (const path of OLDER_PATHS) {
      const older = await this.#post(path, body, timeoutMs, signal)
      if (!isAbsent(older)) return readReply(older, call.sessionId)
    }
    const paths = `${PROMPT_PATH} nor ${OLDER_PATHS.join(' nor ')}`
    throw new PylonError('runtime_failed', `The runtime at ${url} has neither ${paths}: check runtimes.workers.runtime_url.`)
  }

  async #post(path: `/${string}`, body: unknown, timeoutMs: number, signal: AbortSignal): Promise<RemoteAnswer> {
    try {
      return await this.#http.send(`POST ${path}`, { body, timeoutMs, signal, maxBytes: MAX_ANSWER_BYTES })
    } catch (error) {
      if (!isPylonError(error) || error.details['timeout'] !== true) throw error
      const words = `pi-adapter request timed out after ${timeoutMs}ms (${this.#http.baseUrl}${path}).`
      throw new PylonError('timeout', words, { cause: error })
    }
  }
}

const isAbsent = ({ status }: RemoteAnswer): boolean => status === 404 || status === 405

function readReply(answer: RemoteAnswer, sessionId: string): PromptResult {
  if (!isSuccess(answer)) {
    throw new PylonError('runtime_failed', `pi-adapter HTTP ${answer.status}: ${answer.text.slice(0, 300)}`)
  }
  const reply = parseReply(answer.text)
  if (reply === undefined) throw new PylonError('runtime_failed', 'pi-adapter returned empty reply')
  return { schema_version: PROMPT_SCHEMA_VERSION, session_id: sessionId, reply, stop_reason: 'end_turn' }
}
