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
import type { Dialer } from '../../base/dialer.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type {
  AdapterProbe,
  PromptCall,
  Provisioned,
  ProvisionInput,
  Readiness,
  RuntimeAdapter,
  RuntimeHandle,
  Welcome,
} from '../adapter.ts'
import { assertAgentRequest } from '../agent-request.ts'
import { PROTOCOLS, type PromptResult, type Protocol } from '../contract/prompt.ts'
import { shapeError } from '../contract/spec.ts'
import type { Journal } from '../journal.ts'
import { Once } from '../remote-http.ts'
import { type AgentRecord, Broker, brokerId } from './broker.ts'
import { type PromptedRuntime, RuntimePrompts } from './prompts.ts'

export interface WorkersSettings extends Partial<PromptedRuntime> {
  /** Of the broker. */
  readonly baseUrl: string
  readonly tokenFile?: string
  /** Agents at most, since a broker does not tell; default 10. */
  readonly maxInstances?: number
}

const DEFAULT_MAX_INSTANCES = 10

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
    .optional(),
  /** What the broker's agent must have; a broker that answers with another key is refused. */
  bot_pubkey: hex64.optional(),
})

export function createWorkersAdapter(
  settings: WorkersSettings,
  deps: { readonly dialer: Dialer; readonly journal: Journal },
): RuntimeAdapter {
  const { baseUrl, tokenFile, runtimeUrl } = settings
  if (baseUrl.trim() === '') throw new PylonError('config_invalid', 'runtimes.workers.base_url is empty: name the URL of the broker.')
  const broker = new Broker(baseUrl, tokenFile, deps.dialer)
  const prompts = runtimeUrl === undefined ? undefined : new RuntimePrompts({ ...settings, runtimeUrl }, deps.dialer)
  const workers = new Workers(broker, prompts !== undefined, deps.journal)
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
    assertPossible: async (input) => void decodeRequest(input),
    provision: (input, signal) => provisioning.do(input.runtimeId, () => workers.provision(input, signal)),
    readiness: (raw, signal) => workers.readiness(decodeHandle(raw), signal),
    processWelcome: (raw, welcome) => workers.processWelcome(decodeHandle(raw), welcome),
    teardown: (raw) => workers.teardown(decodeHandle(raw)),
    listOwned: async () => workers.listOwned(),
    ...(prompts === undefined ? {} : { prompt: (raw, call, signal) => promptOf(prompts, decodeHandle(raw), call, signal) }),
  }
}

function decodeHandle(raw: RuntimeHandle): WorkersHandle {
  const parsed = handleShape.safeParse(raw)
  if (parsed.success) return parsed.data
  throw new PylonError('internal', 'This is no handle of a workers runtime.')
}

/** @throws runtime_unsupported, spec_mount_refused, invalid_request */
function decodeRequest(input: ProvisionInput): { params: z.output<typeof paramsShape>; protocol: Protocol } {
  const protocol = assertAgentRequest('workers', input)
  const params = paramsShape.safeParse(input.params ?? {})
  if (!params.success) throw shapeError('The workers parameters', 'invalid_request', params.error)
  return { params: params.data, protocol }
}

class Workers {
  readonly #broker: Broker
  readonly #takesPrompts: boolean
  /** A broker lists nothing: which of its agents are this node's is remembered here, from before they are made. */
  readonly #journal: Journal

  constructor(broker: Broker, takesPrompts: boolean, journal: Journal) {
    this.#broker = broker
    this.#journal = journal
    this.#takesPrompts = takesPrompts
  }

  async probe(): Promise<AdapterProbe> {
    try {
      await this.#broker.health()
      if (this.#takesPrompts) return { usable: true, isolated: true }
      const nextStep = 'Set runtimes.workers.runtime_url to a runtime that serves POST /v1/runtime/prompt.'
      return { usable: true, isolated: true, reason: 'no runtime URL is configured: prompts are not served', nextStep }
    } catch (error) {
      const nextStep = `Check runtimes.workers.base_url: curl ${this.#broker.url}/health`
      return { usable: false, isolated: true, reason: messageOf(error), nextStep }
    }
  }

  /** The same id again is the same agent: the broker goes by it. */
  async provision(input: ProvisionInput, signal: AbortSignal): Promise<Provisioned> {
    const { params, protocol } = decodeRequest(input)
    const { name = input.spec.identity.instance_name } = params
    const env = input.env ?? {}
    const relay_urls = params.relay_urls ?? env['PIKA_RELAY_URLS']?.split(',').filter((url) => url !== '') ?? []
    const secret = env['NOSTR_SECRET_KEY']
    const bot_pubkey = params.bot_pubkey ?? (secret === undefined ? undefined : env['PIKA_BOT_PUBKEY'])
    const body = {
      id: brokerId(input.runtimeId),
      name,
      // The one brain that a broker knows by name; acp goes by the runtime behind it.
      ...(protocol === 'pi' ? { brain: 'pi' } : {}),
      relay_urls,
      ...(secret === undefined ? {} : { bot_secret_key_hex: secret }),
      // Whose welcomes its agent accepts, for a broker that asks.
      ...(input.session === undefined ? {} : { owner_pubkey: input.ownerPubkey, session_token: input.session.token }),
    }
    const asked = { runtime_id: input.runtimeId, agent_id: body.id, agent_name: name, base_url: this.#broker.url, protocol }
    const record = await this.#create(asked, body, signal)
    const handle: WorkersHandle = { ...asked, agent_id: record.id, agent_name: record.name ?? name }
    this.#journal.put(input.runtimeId, handle)
    if (bot_pubkey !== undefined && record.bot_pubkey !== bot_pubkey) {
      await this.teardown(handle)
      throw new PylonError(
        'runtime_failed',
        `The broker at ${this.#broker.url} answered with the key ${record.bot_pubkey}, not ${bot_pubkey}.`,
      )
    }
    const published = record.key_package_published_at_ms
    return {
      handle,
      protocols: [...PROTOCOLS],
      metadata: {
        agent_id: record.id,
        workers_base_url: this.#broker.url,
        ...(published === null || published === undefined ? {} : { key_package_published_at_ms: published }),
        ...(record.bot_pubkey === null || record.bot_pubkey === undefined ? {} : { bot_pubkey: record.bot_pubkey }),
      },
    }
  }

  async #create(asked: WorkersHandle, body: Json, signal: AbortSignal): Promise<AgentRecord> {
    const isNew = this.#journal.get(asked.runtime_id) === undefined
    this.#journal.put(asked.runtime_id, asked)
    try {
      return await this.#broker.create(body, signal)
    } catch (error) {
      // It said no. No answer is none: the agent may be there, and a teardown or the sweep looks.
      if (isNew && isPylonError(error, 'runtime_failed')) this.#journal.delete(asked.runtime_id)
      throw error
    }
  }

  async readiness(handle: WorkersHandle, signal: AbortSignal): Promise<Readiness> {
    let record: AgentRecord | undefined
    try {
      record = await this.#broker.find(handle.agent_id, signal)
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
    const processed = await this.#broker.processWelcome(handle.agent_id, welcome)
    if (processed === undefined) throw gone(handle)
    return { processed: true, ...processed }
  }

  /** Older brokers delete nothing: then it says so, instead of claiming it. */
  async teardown(handle: WorkersHandle): Promise<Json> {
    const where = { agent_id: handle.agent_id, workers_base_url: handle.base_url }
    const isGone = await this.#broker.remove(handle.agent_id)
    this.#journal.delete(handle.runtime_id)
    if (isGone) return { teardown: 'deleted', ...where }
    return { teardown: 'manual', ...where, hint: `inspect with: ${handle.base_url}/agents/${handle.agent_id}` }
  }

  listOwned(): { runtimeId: string; handle: RuntimeHandle }[] {
    return this.#journal.entries().map(({ runtimeId, note }) => ({ runtimeId, handle: note }))
  }
}

async function promptOf(prompts: RuntimePrompts, handle: WorkersHandle, call: PromptCall, signal: AbortSignal): Promise<PromptResult> {
  if (handle.protocol !== call.protocol) {
    throw new PylonError('runtime_unsupported', `This runtime speaks ${handle.protocol ?? 'no protocol'}, not ${call.protocol}.`)
  }
  return await prompts.prompt(handle, call, signal)
}

function gone({ agent_id, base_url }: WorkersHandle): PylonError {
  return new PylonError('runtime_gone', `The broker at ${base_url} has no agent ${agent_id} any more: provision a new one.`)
}
