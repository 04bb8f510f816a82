/** Prompts to the runtime behind a broker: the versioned endpoint first, and two older ones for runtimes of before it. */
import type { Dialer } from '../../base/dialer.ts'
import { PylonError } from '../../base/errors.ts'
import type { PromptCall } from '../adapter.ts'
import { MAX_ANSWER_BYTES, PROMPT_PATH, PROMPT_SCHEMA_VERSION, type PromptResult } from '../contract/prompt.ts'
import { promptBody, readPromptAnswer } from '../prompt-client.ts'
import { createRemote, isSuccess, type Remote, type RemoteAnswer, tokenFromFile } from '../remote-http.ts'
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

export interface PromptedAgent {
  readonly agent_id: string
  readonly agent_name: string
}

export class RuntimePrompts {
  readonly #http: Remote
  readonly #maxMs: number

  constructor({ runtimeUrl, runtimeTokenFile, runtimeTimeoutMs = MAX_PROMPT_MS }: PromptedRuntime, dialer: Dialer) {
    // The owner configured it.
    dialer.allow(runtimeUrl)
    this.#maxMs = Math.max(MIN_PROMPT_MS, Math.min(MAX_PROMPT_MS, runtimeTimeoutMs))
    this.#http = createRemote({
      dialer,
      baseUrl: runtimeUrl,
      name: `runtime at ${runtimeUrl}`,
      nextStep: 'Check runtimes.workers.runtime_url and that the runtime listens there.',
      ...(runtimeTokenFile === undefined
        ? {}
        : { token: () => tokenFromFile(runtimeTokenFile, 'the runtime (runtimes.workers.runtime_token_file)') }),
    })
  }

  /** @throws timeout, runtime_unreachable, runtime_failed */
  async prompt(agent: PromptedAgent, call: PromptCall, signal: AbortSignal): Promise<PromptResult> {
    const url = this.#http.baseUrl
    const timeoutMs = Math.min(call.timeoutMs, this.#maxMs)
    const send = (path: string, body: unknown) => this.#post({ path, body, timeoutMs, signal })
    const answer = await send(PROMPT_PATH, promptBody({ ...call, timeoutMs }))
    if (!isAbsent(answer)) return readPromptAnswer(answer.status, answer.text, `The runtime at ${url}`)
    const body = {
      agent_id: agent.agent_id,
      agent_name: agent.agent_name,
      type: 'prompt',
      message: call.message,
      rpc: { type: 'prompt', message: call.message },
      history: [],
    }
    for (const path of OLDER_PATHS) {
      const older = await send(path, body)
      if (!isAbsent(older)) return readReply(older, call.sessionId)
    }
    throw new PylonError(
      'runtime_failed',
      `The runtime at ${url} has neither ${PROMPT_PATH} nor ${OLDER_PATHS.join(' nor ')}: check runtimes.workers.runtime_url.`,
    )
  }

  async #post(call: {
    readonly path: string
    readonly body: unknown
    readonly timeoutMs: number
    readonly signal: AbortSignal
  }): Promise<RemoteAnswer> {
    try {
      return await this.#http.send({ method: 'POST', maxBytes: MAX_ANSWER_BYTES, ...call })
    } catch (error) {
      if (!(error instanceof PylonError) || error.details['timeout'] !== true) throw error
      throw new PylonError('timeout', `pi-adapter request timed out after ${call.timeoutMs}ms (${this.#http.baseUrl}${call.path}).`, {
        cause: error,
      })
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
