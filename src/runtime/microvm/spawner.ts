/** One vm-spawner over HTTP, in both versions of its API: its VMs, what it has free, its backups. */
import { z } from 'zod'
import type { Dialer } from '../../base/dialer.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { BackupState, Capacity, Readiness, Snapshot } from '../adapter.ts'
import { createRemote, isSuccess, type Remote, type RemoteAnswer } from '../remote-http.ts'

const DELETE_MS = 30_000
const RECOVER_MS = 60_000
const GET_MS = 10_000

// Version 1 also returns an SSH key in clear: it is neither read nor kept.
const vmShape = z
  .looseObject({
    id: z.string().regex(/^[A-Za-z0-9._-]{1,128}$/),
    ip: z.string().max(64).optional(),
    status: z.enum(['running', 'starting', 'failed']).default('running'),
    startup_probe_satisfied: z.boolean().optional(),
    guest_service_ready: z.boolean().optional(),
    guest_ready: z.boolean().optional(),
  })
  .refine(({ id }) => !id.includes('..') && id !== '.', 'id is no name')

const capacityShape = z.looseObject({
  total_cpus: z.number(),
  used_cpus: z.number(),
  total_memory_mb: z.number(),
  used_memory_mb: z.number(),
  max_vms: z.int(),
  available_vms: z.int(),
})

const backupShape = z.looseObject({
  backup_unit_kind: z.enum(['durable_home', 'persistent_state_volume']),
  backup_target: z.string(),
  recovery_point_kind: z.enum(['metadata_record', 'volume_snapshot']),
  freshness: z.enum(['healthy', 'stale', 'missing', 'unavailable']),
  latest_recovery_point_name: z.string().nullish(),
  latest_successful_backup_at: z.string().nullish(),
})

type Vm = z.output<typeof vmShape>

/** One vm-spawner. */
export class Spawner {
  readonly url: string
  readonly #http: Remote
  #first: boolean | undefined

  constructor(url: string, dialer: Dialer) {
    this.url = url
    const nextStep = `Ensure vm-spawner is reachable: curl ${url}/healthz`
    this.#http = createRemote({ dialer, baseUrl: url, name: `vm-spawner at ${url}`, nextStep })
  }

  /** Only version 1 answers /capacity. */
  async isFirstVersion(): Promise<boolean> {
    this.#first ??= (await this.#http.send({ method: 'GET', path: '/capacity', timeoutMs: GET_MS })).status === 200
    return this.#first
  }

  /** What is wrong, or undefined. */
  async health(): Promise<string | undefined> {
    try {
      await this.#http.ask('answer', { method: 'GET', path: '/healthz', timeoutMs: GET_MS })
      return undefined
    } catch (error) {
      return messageOf(error)
    }
  }

  /** Undefined where the spawner does not tell. */
  async capacity(): Promise<Capacity | undefined> {
    const answer = await this.#http.send({ method: 'GET', path: '/capacity', timeoutMs: GET_MS })
    const parsed = capacityShape.safeParse(answer.json)
    if (answer.status !== 200 || !parsed.success) return undefined
    const { total_cpus, used_cpus, total_memory_mb, used_memory_mb, max_vms, available_vms } = parsed.data
    return {
      instances: max_vms,
      vcpus: total_cpus,
      memoryMib: total_memory_mb,
      free: {
        instances: available_vms,
        vcpus: Math.max(0, total_cpus - used_cpus),
        memoryMib: Math.max(0, total_memory_mb - used_memory_mb),
      },
    }
  }

  async create(body: Json, timeoutMs: number, signal: AbortSignal): Promise<Vm> {
    const call = { method: 'POST', path: '/vms', body, timeoutMs, signal } as const
    let answer: RemoteAnswer
    try {
      answer = await this.#http.ask('create microvm', call)
    } catch (error) {
      if (!(error instanceof PylonError) || error.details['timeout'] !== true) throw error
      const what = `failed to create microvm via vm-spawner at ${this.url}: ${error.message} A VM may have been made all the same: its own ttl ends it; look at ${this.url}/vms.`
      throw new PylonError(error.code, what, { details: error.details, cause: error })
    }
    return this.#vm(answer)
  }

  /** Undefined where there is no such VM. */
  async find(id: string, signal?: AbortSignal): Promise<Vm | undefined> {
    const call = { method: 'GET', path: `/vms/${encodeURIComponent(id)}`, timeoutMs: GET_MS, signal } as const
    const answer = await this.#http.send(call)
    if (isNoVm(answer)) return undefined
    if (answer.status !== 200) throw this.#http.refusal('get microvm', call, answer)
    return this.#vm(answer)
  }

  async readiness(id: string, signal: AbortSignal): Promise<Readiness> {
    let vm: Vm | undefined
    try {
      vm = await this.find(id, signal)
    } catch (error) {
      if (error instanceof PylonError && error.code === 'runtime_unreachable') return { state: 'unreachable', message: error.message }
      throw error
    }
    if (vm === undefined) throw gone(id, this.url)
    if (vm.status === 'failed') return { state: 'failed', message: 'the spawner says that the VM failed' }
    // Version 1 says nothing of the guest.
    const isReady = vm.status === 'running' && (vm.guest_ready ?? true)
    if (isReady) return { state: 'ready', message: vm.guest_ready === undefined ? 'the VM runs' : 'the guest is ready' }
    const probed = vm.startup_probe_satisfied ?? vm.guest_service_ready ?? false
    return { state: 'starting', message: probed ? 'the service answers, the guest is not ready yet' : 'the VM starts' }
  }

  async act(verb: 'recover' | 'restore', id: string, signal: AbortSignal): Promise<void> {
    const call = { method: 'POST', path: `/vms/${encodeURIComponent(id)}/${verb}`, timeoutMs: RECOVER_MS, signal } as const
    const answer = await this.#http.send(call)
    if (isNoVm(answer)) throw gone(id, this.url)
    if (answer.status !== 200) throw this.#http.refusal(`${verb} microvm`, call, answer)
  }

  async backup(id: string): Promise<BackupState> {
    const call = { method: 'GET', path: `/vms/${encodeURIComponent(id)}/backup-status`, timeoutMs: GET_MS } as const
    if (await this.isFirstVersion())
      throw new PylonError('runtime_unsupported', `The vm-spawner at ${this.url} is of a version without backups.`)
    const answer = await this.#http.send(call)
    if (isNoVm(answer)) throw gone(id, this.url)
    const parsed = backupShape.safeParse(answer.json)
    if (answer.status !== 200 || !parsed.success) throw this.#http.refusal('tell the backup status', call, answer)
    const { data } = parsed
    const at = Date.parse(data.latest_successful_backup_at ?? '')
    const latest: Snapshot[] = Number.isNaN(at) ? [] : [{ name: data.latest_recovery_point_name ?? 'latest', createdAt: at }]
    return {
      backupUnitKind: data.backup_unit_kind,
      backupTarget: data.backup_target,
      recoveryPointKind: data.recovery_point_kind,
      snapshots: data.freshness === 'unavailable' ? undefined : latest,
    }
  }

  async remove(id: string): Promise<void> {
    const call = { method: 'DELETE', path: `/vms/${encodeURIComponent(id)}`, timeoutMs: DELETE_MS } as const
    const answer = await this.#http.send(call)
    if (isSuccess(answer)) return
    if (!isNoVm(answer)) throw this.#http.refusal('delete microvm', call, answer)
  }

  #vm(answer: RemoteAnswer): Vm {
    const parsed = vmShape.safeParse(answer.json)
    if (parsed.success) return parsed.data
    throw new PylonError('runtime_failed', `The vm-spawner at ${this.url} answered with no VM: ${parsed.error.issues[0]?.message ?? ''}.`)
  }
}

/** Version 1 says it with 500 where it deletes or recovers. */
function isNoVm({ status, text }: RemoteAnswer): boolean {
  return status === 404 || (status === 500 && text.includes('vm not found'))
}

function gone(id: string, url: string): PylonError {
  return new PylonError('runtime_gone', `The VM ${id} of ${url} is no more: provision a new one.`)
}
