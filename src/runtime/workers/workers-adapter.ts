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
import { isPylonError, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Json } from '../../base/json.ts'
import type { ProvisionInput, Readiness, RuntimeAdapter, RuntimeHandle, Welcome } from '../adapter.ts'
import { PROTOCOLS } from '../contract/prompt.ts'
import { guestEnv } from '../remote/agent-request.ts'
import { DONE, Remote } from '../remote/remote.ts'
import { type Made, RemoteAdapter, type RemoteDeps } from '../remote/remote-adapter.ts'
import { type PromptedRuntime, RuntimePrompts } from './prompts.ts'

export interface WorkersSettings extends Partial<PromptedRuntime> {
  /** Of the broker. */
  readonly baseUrl: string
  /** Undefined for a broker that is open. */
  readonly tokenFile?: string
  /** Agents at most, since a broker does not tell. */
  readonly maxInstances: number
}

const HEALTH_MS = 10_000
const MAX_ID = 64

const handleShape = z.strictObject({
  runtime_id: z.string(),
  agent_id: z.string(),
  agent_name: z.string(),
  base_url: z.string(),
  protocol: z.enum(PROTOCOLS).nullable(),
})
type WorkersHandle = z.output<typeof handleShape>

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
    .optional(),
  /** What the broker's agent must have; a broker that answers with another key is refused. */
  bot_pubkey: z
    .string()
    .regex(/^[0-9a-f]{64}$/, 'must be 64 lowercase hex digits')
    .optional(),
})
type WorkersParams = z.output<typeof paramsShape>

const recordShape = z.looseObject({
  id: z.string(),
  name: z.string().nullish(),
  status: z.enum(['booting', 'ready']),
  relay_urls: z.array(z.string()).default([]),
  bot_pubkey: z.string().nullish(),
  key_package_published_at_ms: z.number().nullish(),
})
type AgentRecord = z.output<typeof recordShape>

const welcomeShape = z.object({
  group_id: z.string(),
  created_group: z.json().optional(),
  processed_welcomes: z.json().optional(),
  mls_group_id_hex: z.json().optional(),
  nostr_group_id_hex: z.json().optional(),
})

export class WorkersAdapter extends RemoteAdapter<WorkersHandle, WorkersParams, AgentRecord> {
  readonly #broker: Remote
  /** Undefined where no runtime is configured that answers them. */
  readonly prompt?: NonNullable<RuntimeAdapter['prompt']>

  constructor(settings: WorkersSettings, deps: RemoteDeps) {
    const { baseUrl, tokenFile, runtimeUrl, maxInstances } = settings
    if (baseUrl.trim() === '') throw new PylonError('config_invalid', 'runtimes.workers.base_url is empty: name the URL of the broker.')
    const nextStep = `Check runtimes.workers.base_url and the broker: curl ${baseUrl.replace(/\/+$/, '')}/health`
    super(
      {
        provider: 'workers',
        handle: handleShape,
        params: paramsShape,
        size: { instances: maxInstances, vcpus: 1, memoryMib: 128 },
        nextStep,
        noWelcome: '',
      },
      deps,
    )
    this.#broker = new Remote({
      dialer: deps.dialer,
      baseUrl,
      name: `workers broker at ${baseUrl}`,
      nextStep,
      token: tokenFile === undefined ? undefined : { file: tokenFile, of: 'the broker (runtimes.workers.token_file)' },
      // No such agent, or no such verb: older brokers delete nothing.
      isAbsent: ({ status }) => status === 404 || status === 405,
      signal: this.scope.signal,
    })
    if (runtimeUrl === undefined) return
    const prompts = new RuntimePrompts({ ...settings, runtimeUrl }, deps.dialer, this.scope.signal)
    this.prompt = async (raw, call, signal) => prompts.prompt(this.handleOf(raw), call, signal)
  }

  override async processWelcome(raw: RuntimeHandle, welcome: Welcome): Promise<Json> {
    const handle = this.handleOf(raw)
    const body = {
      group_id: welcome.groupId,
      wrapper_event_id_hex: welcome.wrapperEventIdHex,
      welcome_event_json: welcome.welcomeEventJson,
    }
    const path = `${pathOf(handle)}/runtime/process-welcome` as const
    const processed = await this.#broker.find('process the welcome', welcomeShape, `POST ${path}`, { body })
    return { processed: true, ...given(this.present(handle, processed)) }
  }

  protected async look() {
    await this.#broker.ask('answer', DONE, 'GET /health', { timeoutMs: HEALTH_MS })
    if (this.prompt !== undefined) return {}
    const nextStep = 'Set runtimes.workers.runtime_url to a runtime that serves POST /v1/runtime/prompt.'
    return { reason: 'no runtime URL is configured: prompts are not served', nextStep }
  }

  /** The same id again is the same agent: the broker goes by it. */
  protected async make(input: ProvisionInput, params: WorkersParams, signal: AbortSignal): Promise<Made<WorkersHandle>> {
    const { runtimeId, protocol, env = {} } = input
    const name = params.name ?? input.spec.identity.instance_name
    const secret = env['NOSTR_SECRET_KEY']
    const body = {
      id: brokerId(runtimeId),
      name,
      // The one brain that a broker knows by name; acp goes by the runtime behind it.
      ...(protocol === 'pi' ? { brain: 'pi' } : {}),
      relay_urls: params.relay_urls ?? env['PIKA_RELAY_URLS']?.split(',').filter((url) => url !== '') ?? [],
      ...(secret === undefined ? {} : { bot_secret_key_hex: secret }),
      // For a broker that starts the agent of a session: whose welcomes it accepts, and all that its guest program is told.
      ...(input.session === undefined
        ? {}
        : { owner_pubkey: input.ownerPubkey, session_token: input.session.token, guest_env: guestEnv(input) }),
    }
    const asked = { runtime_id: runtimeId, agent_id: body.id, agent_name: name, base_url: this.#broker.baseUrl, protocol }
    const record = await this.#create(asked, body, signal)
    const handle: WorkersHandle = { ...asked, agent_id: record.id, agent_name: record.name ?? name }
    this.journal.put(runtimeId, handle)
    const wanted = params.bot_pubkey ?? (secret === undefined ? undefined : env['PIKA_BOT_PUBKEY'])
    const { key_package_published_at_ms: published, bot_pubkey } = record
    if (wanted !== undefined && bot_pubkey !== wanted) {
      await this.teardown(handle, { keepVolume: false })
      throw new PylonError('runtime_failed', `The broker at ${asked.base_url} answered with the key ${bot_pubkey}, not ${wanted}.`)
    }
    const metadata = given({ key_package_published_at_ms: published ?? undefined, bot_pubkey: bot_pubkey ?? undefined })
    return { handle, metadata }
  }

  /** Remembered from before it is made: a broker lists nothing. */
  async #create(asked: WorkersHandle, body: Json, signal: AbortSignal): Promise<AgentRecord> {
    const isNew = this.journal.get(asked.runtime_id) === undefined
    this.journal.put(asked.runtime_id, asked)
    try {
      return await this.#broker.ask('create agent', recordShape, 'POST /agents', { body, signal })
    } catch (error) {
      // It said no. No answer is none: the agent may be there, and a teardown or the sweep looks.
      if (isNew && isPylonError(error, 'runtime_failed')) this.journal.delete(asked.runtime_id)
      throw error
    }
  }

  protected async see(handle: WorkersHandle, signal?: AbortSignal): Promise<AgentRecord | undefined> {
    return await this.#broker.find('get agent', recordShape, `GET ${pathOf(handle)}`, { signal })
  }

  protected judge({ status, relay_urls, key_package_published_at_ms }: AgentRecord): Readiness {
    if (status !== 'ready') return { state: 'starting', message: 'the broker starts the agent' }
    if (typeof key_package_published_at_ms === 'number') return { state: 'ready', message: 'the key package is published' }
    if (relay_urls.length > 0) return { state: 'starting', message: 'waiting for workers startup keypackage readiness' }
    return { state: 'ready', message: 'the broker says ready' }
  }

  protected where({ agent_id, base_url }: WorkersHandle) {
    return { agent_id, workers_base_url: base_url }
  }

  /** Older brokers delete nothing: then it says so, instead of claiming it. */
  protected async remove(handle: WorkersHandle) {
    const isDeleted = await this.#broker.find('delete agent', DONE, `DELETE ${pathOf(handle)}`)
    if (isDeleted === true || (await this.see(handle)) === undefined) return {}
    return { teardown: 'manual', hint: `inspect with: ${handle.base_url}/agents/${handle.agent_id}` }
  }
}

const pathOf = ({ agent_id }: WorkersHandle) => `/agents/${encodeURIComponent(agent_id)}` as const

/** The id as a broker writes it: lower case, a dash for whatever else, at most 64. */
function brokerId(id: string): string {
  return id
    .toLowerCase()
    .replace(/[^a-z0-9_-]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, MAX_ID)
}
