/**
 * Runtimes behind a broker (Cloudflare Workers): the broker keeps the agent's identity and its relays and hosts no agent
 * process itself; prompts go to the runtime whose URL the owner configured.
 *
 * Failure semantics. The broker does not answer: readiness is `unreachable`, every other call fails as
 * runtime_unreachable, nothing is retried here. It refuses: runtime_failed with its words. The runtime does not answer a
 * prompt within its time: timeout; it is down: runtime_unreachable; it answers with an error, or with nothing:
 * runtime_failed. A prompt is sent at most once to each of its three endpoints, and to the next only on 404 or 405.
 */
import { z } from 'zod'
import type { Dialer } from '../base/dialer.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import type { Json } from '../base/json.ts'
import type { AdapterProbe, PromptCall, Provisioned, ProvisionInput, Readiness, RuntimeAdapter, RuntimeHandle, Welcome } from './adapter.ts'
import { MAX_ANSWER_BYTES, PROMPT_PATH, PROMPT_SCHEMA_VERSION, PROTOCOLS, type PromptResult } from './contract/prompt.ts'
import { shapeError } from './contract/spec.ts'
import { promptBody, readPromptAnswer } from './prompt-client.ts'
import { createRemote, Once, type Remote, type RemoteAnswer, tokenFromFile } from './remote-http.ts'
import { parseReply } from './reply-parser.ts'

export interface WorkersSettings {
  /** Of the broker. */
  readonly baseUrl: string
  readonly tokenFile?: string
  /** Of the runtime that answers prompts. Without it a runtime takes none. */
  readonly runtimeUrl?: string
  readonly runtimeTokenFile?: string
  /** The most that one prompt may take: 100 to 120000, the default. */
  readonly runtimeTimeoutMs?: number
  /** Agents at most, since a broker does not tell; default 10. */
  readonly maxInstances?: number
}

const CALL_MS = 30_000
const DEFAULT_MAX_INSTANCES = 10
const MIN_PROMPT_MS = 100
const MAX_PROMPT_MS = 120_000
const MAX_ID = 64
/** For runtimes of before the versioned endpoint, in this order. */
const OLDER_PATHS = ['/rpc', '/reply'] as const

const handleShape = z.strictObject({
  runtime_id: z.string(),
  agent_id: z.string(),
  agent_name: z.string(),
  base_url: z.string(),
  protocol: z.enum(PROTOCOLS).nullable(),
})
type WorkersHandle = z.output<typeof handleShape>

const hex64 = z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 lowercase hex digits')
const paramsShape = z.strictObject({
  name: z.string().min(1).max(128).optional(),
  relay_urls: z
    .array(
      z
        .string()
        .regex(/^wss?:\/\//)
        .max(1024),
    )
    .max(32)
    .default([]),
  /** What the broker's agent must have; a broker that answers with another key is refused. */
  bot_pubkey: hex64.optional(),
})

const recordShape = z.looseObject({
  id: z.string(),
  name: z.string().nullish(),
  status: z.enum(['booting', 'ready']),
  relay_urls: z.array(z.string()).default([]),
  bot_pubkey: z.string().nullish(),
  key_package_published_at_ms: z.number().nullish(),
})
type AgentRecord = z.output<typeof recordShape>

const welcomeShape = z.looseObject({
  group_id: z.string(),
  created_group: z.json().optional(),
  processed_welcomes: z.json().optional(),
  mls_group_id_hex: z.json().optional(),
  nostr_group_id_hex: z.json().optional(),
})

/** The id as a broker writes it: lower case, a dash for whatever else, at most 64. */
export function brokerId(id: string): string {
  return id
    .toLowerCase()
    .replace(/[^a-z0-9_-]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, MAX_ID)
}

export function createWorkersAdapter(settings: WorkersSettings, deps: { readonly dialer: Dialer }): RuntimeAdapter {
  const { dialer } = deps
  const { baseUrl, tokenFile, runtimeUrl, runtimeTokenFile } = settings
  if (baseUrl.trim() === '') throw new PylonError('config_invalid', 'runtimes.workers.base_url is empty: name the URL of the broker.')
  dialer.allow(baseUrl)
  const broker = createRemote({
    dialer,
    baseUrl,
    name: `workers broker at ${baseUrl}`,
    nextStep: `Check runtimes.workers.base_url and the broker: curl ${baseUrl.replace(/\/+$/, '')}/health`,
    ...(tokenFile === undefined ? {} : { token: () => tokenFromFile(tokenFile, 'the broker (runtimes.workers.token_file)') }),
  })
  if (runtimeUrl !== undefined) dialer.allow(runtimeUrl)
  const runtime =
    runtimeUrl === undefined
      ? undefined
      : createRemote({
          dialer,
          baseUrl: runtimeUrl,
          name: `runtime at ${runtimeUrl}`,
          nextStep: 'Check runtimes.workers.runtime_url and that the runtime listens there.',
          ...(runtimeTokenFile === undefined
            ? {}
            : { token: () => tokenFromFile(runtimeTokenFile, 'the runtime (runtimes.workers.runtime_token_file)') }),
        })
  const workers = new Workers(broker, runtime, settings)
  const provisioning = new Once<Provisioned>()
  return {
    provider: 'workers',
    probe: () => workers.probe(),
    async capacity() {
      const instances = settings.maxInstances ?? DEFAULT_MAX_INSTANCES
      // A broker hosts no process and tells no count: the callers' own records say what is taken.
      const all = { instances, vcpus: instances, memoryMib: instances * 128 }
      return { ...all, free: all }
    },
    provision: (input, signal) => provisioning.do(input.runtimeId, () => workers.provision(input, signal)),
    readiness: (raw, signal) => workers.readiness(decodeHandle(raw), signal),
    processWelcome: (raw, welcome) => workers.processWelcome(decodeHandle(raw), welcome),
    teardown: (raw) => workers.teardown(decodeHandle(raw)),
    ...(runtime === undefined ? {} : { prompt: (raw, call, signal) => workers.prompt(decodeHandle(raw), runtime, call, signal) }),
  }
}

function decodeHandle(raw: RuntimeHandle): WorkersHandle {
  const parsed = handleShape.safeParse(raw)
  if (parsed.success) return parsed.data
  throw new PylonError('internal', 'This is no handle of a workers runtime.')
}

class Workers {
  readonly #broker: Remote
  readonly #runtime: Remote | undefined
  readonly #settings: WorkersSettings

  constructor(broker: Remote, runtime: Remote | undefined, settings: WorkersSettings) {
    this.#broker = broker
    this.#runtime = runtime
    this.#settings = settings
  }

  async probe(): Promise<AdapterProbe> {
    try {
      await this.#broker.ask('answer', { method: 'GET', path: '/health', timeoutMs: 10_000 })
      if (this.#runtime !== undefined) return { usable: true, isolated: true }
      const nextStep = 'Set runtimes.workers.runtime_url to a runtime that serves POST /v1/runtime/prompt.'
      return { usable: true, isolated: true, reason: 'no runtime URL is configured: prompts are not served', nextStep }
    } catch (error) {
      const nextStep = `Check runtimes.workers.base_url: curl ${this.#broker.baseUrl}/health`
      return { usable: false, isolated: true, reason: messageOf(error), nextStep }
    }
  }

  /** The same id again is the same agent: the broker goes by it. */
  async provision(input: ProvisionInput, signal: AbortSignal): Promise<Provisioned> {
    const params = paramsShape.safeParse(input.params ?? {})
    if (!params.success) throw shapeError('The workers parameters', 'invalid_request', params.error)
    if (input.protocol === null)
      throw new PylonError('runtime_unsupported', 'A broker runs no commands: name a protocol, or another provider.')
    const { name = input.spec.identity.instance_name } = params.data
    const env = input.env ?? {}
    const relay_urls = params.data.relay_urls ?? env['PIKA_RELAY_URLS']?.split(',').filter((url) => url !== '') ?? []
    const secret = env['NOSTR_SECRET_KEY']
    const bot_pubkey = params.data.bot_pubkey ?? (secret === undefined ? undefined : env['PIKA_BOT_PUBKEY'])
    const id = brokerId(input.runtimeId)
    const answer = await this.#broker.ask('create agent', {
      method: 'POST',
      path: '/agents',
      body: {
        id,
        name,
        // The one brain that a broker knows by name; acp goes by the runtime behind it.
        ...(input.protocol === 'pi' ? { brain: 'pi' } : {}),
        relay_urls,
        ...(secret === undefined ? {} : { bot_secret_key_hex: secret }),
      },
      timeoutMs: CALL_MS,
      signal,
    })
    const record = readRecord(answer, this.#broker.baseUrl)
    if (bot_pubkey !== undefined && record.bot_pubkey !== bot_pubkey) {
      await this.#remove(record.id)
      throw new PylonError(
        'runtime_failed',
        `The broker at ${this.#broker.baseUrl} answered with the key ${record.bot_pubkey}, not ${bot_pubkey}.`,
      )
    }
    const handle: WorkersHandle = {
      runtime_id: input.runtimeId,
      agent_id: record.id,
      agent_name: record.name ?? name,
      base_url: this.#broker.baseUrl,
      protocol: input.protocol,
    }
    const published = record.key_package_published_at_ms
    return {
      handle,
      protocols: [...PROTOCOLS],
      metadata: {
        agent_id: record.id,
        workers_base_url: this.#broker.baseUrl,
        ...(published === null || published === undefined ? {} : { key_package_published_at_ms: published }),
        ...(record.bot_pubkey === null || record.bot_pubkey === undefined ? {} : { bot_pubkey: record.bot_pubkey }),
      },
    }
  }

  async readiness(handle: WorkersHandle, signal: AbortSignal): Promise<Readiness> {
    let record: AgentRecord | undefined
    try {
      record = await this.#find(handle.agent_id, signal)
    } catch (error) {
      if (error instanceof PylonError && error.code === 'runtime_unreachable') return { state: 'unreachable', message: error.message }
      throw error
    }
    if (record === undefined) throw gone(handle)
    if (record.status !== 'ready') return { state: 'starting', message: 'the broker starts the agent' }
    const isPublished = typeof record.key_package_published_at_ms === 'number'
    if (record.relay_urls.length > 0 && !isPublished)
      return { state: 'starting', message: 'waiting for workers startup keypackage readiness' }
    return { state: 'ready', message: isPublished ? 'the key package is published' : 'the broker says ready' }
  }

  async processWelcome(handle: WorkersHandle, welcome: Welcome): Promise<Json> {
    const call = {
      method: 'POST',
      path: `/agents/${encodeURIComponent(handle.agent_id)}/runtime/process-welcome`,
      body: {
        group_id: welcome.groupId,
        ...(welcome.wrapperEventIdHex === undefined ? {} : { wrapper_event_id_hex: welcome.wrapperEventIdHex }),
        ...(welcome.welcomeEventJson === undefined ? {} : { welcome_event_json: welcome.welcomeEventJson }),
      },
      timeoutMs: CALL_MS,
    } as const
    const answer = await this.#broker.send(call)
    if (answer.status === 404) throw gone(handle)
    const parsed = welcomeShape.safeParse(answer.json)
    if (answer.status < 200 || answer.status > 299 || !parsed.success) throw this.#broker.refusal('process the welcome', call, answer)
    const { group_id, created_group, processed_welcomes, mls_group_id_hex, nostr_group_id_hex } = parsed.data
    const all = { group_id, created_group, processed_welcomes, mls_group_id_hex, nostr_group_id_hex }
    const known = Object.entries(all).filter((entry): entry is [string, Json] => entry[1] !== undefined)
    return { processed: true, ...Object.fromEntries(known) }
  }

  /** Older brokers delete nothing: then it says so, instead of claiming it. */
  async teardown(handle: WorkersHandle): Promise<Json> {
    const where = { agent_id: handle.agent_id, workers_base_url: handle.base_url }
    if (await this.#remove(handle.agent_id)) return { teardown: 'deleted', ...where }
    return { teardown: 'manual', ...where, hint: `inspect with: ${handle.base_url}/agents/${handle.agent_id}` }
  }

  async prompt(handle: WorkersHandle, runtime: Remote, call: PromptCall, signal: AbortSignal): Promise<PromptResult> {
    if (handle.protocol !== call.protocol) {
      throw new PylonError('runtime_unsupported', `This runtime speaks ${handle.protocol ?? 'no protocol'}, not ${call.protocol}.`)
    }
    const configured = this.#settings.runtimeTimeoutMs ?? MAX_PROMPT_MS
    const timeoutMs = Math.min(call.timeoutMs, Math.max(MIN_PROMPT_MS, Math.min(MAX_PROMPT_MS, configured)))
    const send = (path: string, body: unknown) => this.#post(runtime, { path, body, timeoutMs, signal })
    const answer = await send(PROMPT_PATH, promptBody({ ...call, timeoutMs }))
    if (!isAbsent(answer)) return readPromptAnswer(answer.status, answer.text, `The runtime at ${runtime.baseUrl}`)
    const body = {
      agent_id: handle.agent_id,
      agent_name: handle.agent_name,
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
      `The runtime at ${runtime.baseUrl} has neither ${PROMPT_PATH} nor ${OLDER_PATHS.join(' nor ')}: check runtimes.workers.runtime_url.`,
    )
  }

  async #post(
    runtime: Remote,
    call: { readonly path: string; readonly body: unknown; readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<RemoteAnswer> {
    try {
      return await runtime.send({ method: 'POST', maxBytes: MAX_ANSWER_BYTES, ...call })
    } catch (error) {
      if (!(error instanceof PylonError) || error.details['timeout'] !== true) throw error
      throw new PylonError('timeout', `pi-adapter request timed out after ${call.timeoutMs}ms (${runtime.baseUrl}${call.path}).`, {
        cause: error,
      })
    }
  }

  /** Whether the agent is gone now. */
  async #remove(id: string): Promise<boolean> {
    const call = { method: 'DELETE', path: `/agents/${encodeURIComponent(id)}`, timeoutMs: CALL_MS } as const
    const answer = await this.#broker.send(call)
    if (answer.status >= 200 && answer.status < 300) return true
    if (answer.status !== 404 && answer.status !== 405) throw this.#broker.refusal('delete agent', call, answer)
    // No such agent, or no such verb.
    return (await this.#find(id)) === undefined
  }

  async #find(id: string, signal?: AbortSignal): Promise<AgentRecord | undefined> {
    const call = { method: 'GET', path: `/agents/${encodeURIComponent(id)}`, timeoutMs: CALL_MS } as const
    const answer = await this.#broker.send(signal === undefined ? call : { ...call, signal })
    if (answer.status === 404) return undefined
    if (answer.status !== 200) throw this.#broker.refusal('get agent', call, answer)
    return readRecord(answer, this.#broker.baseUrl)
  }
}

const isAbsent = ({ status }: RemoteAnswer): boolean => status === 404 || status === 405

function readReply(answer: RemoteAnswer, sessionId: string): PromptResult {
  if (answer.status < 200 || answer.status > 299) {
    throw new PylonError('runtime_failed', `pi-adapter HTTP ${answer.status}: ${answer.text.slice(0, 300)}`)
  }
  const reply = parseReply(answer.text)
  if (reply === undefined) throw new PylonError('runtime_failed', 'pi-adapter returned empty reply')
  return { schema_version: PROMPT_SCHEMA_VERSION, session_id: sessionId, reply, stop_reason: 'end_turn' }
}

function readRecord(answer: RemoteAnswer, url: string): AgentRecord {
  const parsed = recordShape.safeParse(answer.json)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new PylonError(
    'runtime_failed',
    `The broker at ${url} answered with no agent record: ${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}.`,
  )
}

function gone({ agent_id, base_url }: WorkersHandle): PylonError {
  return new PylonError('runtime_gone', `The broker at ${base_url} has no agent ${agent_id} any more: provision a new one.`)
}
