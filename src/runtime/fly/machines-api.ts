/** The Fly Machines API of one app: machines and volumes, listed, made and removed. */
import { z } from 'zod'
import { type Clock, systemClock } from '../../base/clock.ts'
import type { Dialer } from '../../base/dialer.ts'
import { PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import { createRemote, isSuccess, type Remote, type RemoteAnswer, tokenFromFile } from '../remote-http.ts'

const DEFAULT_API = 'https://api.machines.dev'
const CALL_MS = 30_000
/** The wait endpoint holds the answer back so long at most. */
const WAIT_SECS = 10
const MAX_LIST_BYTES = 16 * 1024 * 1024
/** A volume is let go of some time after its machine. */
const VOLUME_ATTEMPTS = 8
const VOLUME_PAUSE_MS = 1000
const GONE_STATES = new Set(['destroyed', 'destroying', 'pending_destroy', 'replaced'])

// Whatever else Fly says of them is not ours to depend on.
const volumeShape = z.looseObject({ id: z.string(), name: z.string().optional(), state: z.string().optional() })
const machineShape = z.looseObject({
  id: z.string(),
  name: z.string().optional(),
  state: z.string().optional(),
  config: z
    .looseObject({
      metadata: z.record(z.string(), z.string()).optional(),
      env: z.record(z.string(), z.string()).optional(),
      mounts: z.array(z.looseObject({ volume: z.string().optional() })).optional(),
    })
    .optional(),
  checks: z.array(z.looseObject({ name: z.string().optional(), status: z.string() })).optional(),
})
export type Machine = z.output<typeof machineShape>
export type Volume = z.output<typeof volumeShape>

export interface FlyApp {
  /** Default https://api.machines.dev */
  readonly apiBaseUrl?: string
  readonly appName: string
  /** Holds the API token. */
  readonly tokenFile: string
}

/** Whether Fly still counts it as one that is there. */
export function exists({ state }: { readonly state?: string | undefined }): boolean {
  return !GONE_STATES.has(state ?? '')
}

export class MachinesApi {
  readonly #http: Remote
  readonly #appName: string
  readonly #clock: Clock

  constructor(app: FlyApp, dialer: Dialer, clock: Clock = systemClock) {
    const apiBaseUrl = (app.apiBaseUrl ?? DEFAULT_API).replace(/\/+$/, '')
    // The owner configured it.
    dialer.allow(apiBaseUrl)
    this.#appName = app.appName
    this.#clock = clock
    this.#http = createRemote({
      dialer,
      baseUrl: `${apiBaseUrl}/v1/apps/${encodeURIComponent(app.appName)}`,
      name: 'Fly Machines API',
      nextStep: `Check runtimes.fly.api_base_url and the network: curl -i ${apiBaseUrl}/`,
      token: () => tokenFromFile(app.tokenFile, 'Fly (runtimes.fly.token_file)'),
    })
  }

  async machines(signal?: AbortSignal): Promise<Machine[]> {
    const call = { method: 'GET', path: '/machines', timeoutMs: CALL_MS, maxBytes: MAX_LIST_BYTES, signal } as const
    return read(z.array(machineShape), await this.#http.ask('list machines', call), 'a list of machines')
  }

  async volumes(signal?: AbortSignal): Promise<Volume[]> {
    const call = { method: 'GET', path: '/volumes', timeoutMs: CALL_MS, maxBytes: MAX_LIST_BYTES, signal } as const
    return read(z.array(volumeShape), await this.#http.ask('list volumes', call), 'a list of volumes')
  }

  async createVolume(body: Json, signal: AbortSignal): Promise<Volume> {
    const answer = await this.#http.ask('create volume', { method: 'POST', path: '/volumes', body, timeoutMs: CALL_MS, signal })
    return read(volumeShape, answer, 'a volume')
  }

  async createMachine(body: Json, signal: AbortSignal): Promise<Machine> {
    const answer = await this.#http.ask('create machine', { method: 'POST', path: '/machines', body, timeoutMs: CALL_MS, signal })
    return read(machineShape, answer, 'a machine')
  }

  /** @throws runtime_gone */
  async machine(id: string, signal: AbortSignal): Promise<Machine> {
    const call = { method: 'GET', path: `/machines/${encodeURIComponent(id)}`, timeoutMs: CALL_MS, signal } as const
    const answer = await this.#http.send(call)
    if (answer.status === 404) throw this.#gone(id)
    if (!isSuccess(answer)) throw this.#http.refusal('get machine', call, answer)
    const machine = read(machineShape, answer, 'a machine')
    if (!exists(machine)) throw this.#gone(id)
    return machine
  }

  /** Held back by Fly until the machine runs, at most so long: no polling of ours. */
  async waitStarted(id: string, signal: AbortSignal): Promise<void> {
    await this.#http.send({
      method: 'GET',
      path: `/machines/${encodeURIComponent(id)}/wait?state=started&timeout=${WAIT_SECS}`,
      timeoutMs: (WAIT_SECS + 10) * 1000,
      signal,
    })
  }

  async begin(verb: 'start' | 'restart', id: string, signal: AbortSignal): Promise<void> {
    const call = { method: 'POST', path: `/machines/${encodeURIComponent(id)}/${verb}`, timeoutMs: CALL_MS, signal } as const
    await this.#http.ask(`${verb} machine`, call)
  }

  /** Stopped first, so that its guest can end; force takes whatever is left. */
  async removeMachine(id: string): Promise<void> {
    const path = `/machines/${encodeURIComponent(id)}`
    await this.#http.send({ method: 'POST', path: `${path}/stop`, timeoutMs: CALL_MS })
    const call = { method: 'DELETE', path: `${path}?force=true`, timeoutMs: CALL_MS } as const
    const answer = await this.#http.send(call)
    if (answer.status !== 404 && !isSuccess(answer)) throw this.#http.refusal('delete machine', call, answer)
  }

  async removeVolume(id: string): Promise<void> {
    const call = { method: 'DELETE', path: `/volumes/${encodeURIComponent(id)}`, timeoutMs: CALL_MS } as const
    for (let attempt = 1; ; attempt++) {
      const answer = await this.#http.send(call)
      if (answer.status === 404 || isSuccess(answer)) return
      if (attempt === VOLUME_ATTEMPTS) throw this.#http.refusal('delete volume', call, answer)
      await this.#clock.sleep(VOLUME_PAUSE_MS)
    }
  }

  #gone(id: string): PylonError {
    return new PylonError('runtime_gone', `The machine ${id} of ${this.#appName} is no more: provision a new one.`)
  }
}

function read<T extends z.ZodType>(shape: T, answer: RemoteAnswer, what: string): z.output<T> {
  const parsed = shape.safeParse(answer.json)
  if (parsed.success) return parsed.data
  throw new PylonError('runtime_failed', `The Fly Machines API did not answer with ${what}: ${parsed.error.issues[0]?.message ?? ''}.`)
}
