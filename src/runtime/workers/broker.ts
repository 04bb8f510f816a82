/** The broker of workers runtimes over HTTP: its agents, made, looked at, welcomed and removed. */
import { z } from 'zod'
import type { Dialer } from '../../base/dialer.ts'
import { PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { Welcome } from '../adapter.ts'
import { createRemote, isSuccess, type Remote, type RemoteAnswer, tokenFromFile } from '../remote-http.ts'

const CALL_MS = 30_000
const HEALTH_MS = 10_000
const MAX_ID = 64

const recordShape = z.looseObject({
  id: z.string(),
  name: z.string().nullish(),
  status: z.enum(['booting', 'ready']),
  relay_urls: z.array(z.string()).default([]),
  bot_pubkey: z.string().nullish(),
  key_package_published_at_ms: z.number().nullish(),
})
export type AgentRecord = z.output<typeof recordShape>

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

export class Broker {
  readonly #http: Remote

  /** @param tokenFile undefined for a broker that is open */
  constructor(baseUrl: string, tokenFile: string | undefined, dialer: Dialer) {
    // The owner configured it.
    dialer.allow(baseUrl)
    this.#http = createRemote({
      dialer,
      baseUrl,
      name: `workers broker at ${baseUrl}`,
      nextStep: `Check runtimes.workers.base_url and the broker: curl ${baseUrl.replace(/\/+$/, '')}/health`,
      ...(tokenFile === undefined ? {} : { token: () => tokenFromFile(tokenFile, 'the broker (runtimes.workers.token_file)') }),
    })
  }

  get url(): string {
    return this.#http.baseUrl
  }

  /** @throws PylonError with what is wrong */
  async health(): Promise<void> {
    await this.#http.ask('answer', { method: 'GET', path: '/health', timeoutMs: HEALTH_MS })
  }

  /** The same id again is the same agent: the broker goes by it. */
  async create(body: Json, signal: AbortSignal): Promise<AgentRecord> {
    return this.#record(await this.#http.ask('create agent', { method: 'POST', path: '/agents', body, timeoutMs: CALL_MS, signal }))
  }

  /** Undefined where there is no such agent. */
  async find(id: string, signal?: AbortSignal): Promise<AgentRecord | undefined> {
    const call = { method: 'GET', path: pathOf(id), timeoutMs: CALL_MS, signal } as const
    const answer = await this.#http.send(call)
    if (answer.status === 404) return undefined
    if (answer.status !== 200) throw this.#http.refusal('get agent', call, answer)
    return this.#record(answer)
  }

  /** What the broker says of it, or undefined where there is no such agent. */
  async processWelcome(id: string, welcome: Welcome): Promise<Record<string, Json> | undefined> {
    const body = {
      group_id: welcome.groupId,
      ...(welcome.wrapperEventIdHex === undefined ? {} : { wrapper_event_id_hex: welcome.wrapperEventIdHex }),
      ...(welcome.welcomeEventJson === undefined ? {} : { welcome_event_json: welcome.welcomeEventJson }),
    }
    const call = { method: 'POST', path: `${pathOf(id)}/runtime/process-welcome`, body, timeoutMs: CALL_MS } as const
    const answer = await this.#http.send(call)
    if (answer.status === 404) return undefined
    const parsed = welcomeShape.safeParse(answer.json)
    if (!isSuccess(answer) || !parsed.success) throw this.#http.refusal('process the welcome', call, answer)
    const { group_id, created_group, processed_welcomes, mls_group_id_hex, nostr_group_id_hex } = parsed.data
    const all = { group_id, created_group, processed_welcomes, mls_group_id_hex, nostr_group_id_hex }
    return Object.fromEntries(Object.entries(all).filter((entry): entry is [string, Json] => entry[1] !== undefined))
  }

  /** Whether the agent is gone now: older brokers delete nothing. */
  async remove(id: string): Promise<boolean> {
    const call = { method: 'DELETE', path: pathOf(id), timeoutMs: CALL_MS } as const
    const answer = await this.#http.send(call)
    if (isSuccess(answer)) return true
    if (answer.status !== 404 && answer.status !== 405) throw this.#http.refusal('delete agent', call, answer)
    // No such agent, or no such verb.
    return (await this.find(id)) === undefined
  }

  #record(answer: RemoteAnswer): AgentRecord {
    const parsed = recordShape.safeParse(answer.json)
    if (parsed.success) return parsed.data
    const issue = parsed.error.issues[0]
    throw new PylonError(
      'runtime_failed',
      `The broker at ${this.url} answered with no agent record: ${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}.`,
    )
  }
}

const pathOf = (id: string) => `/agents/${encodeURIComponent(id)}`
