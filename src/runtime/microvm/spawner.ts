/** One vm-spawner over HTTP, in both versions of its API: its VMs, what it has free, its backups. */
import { z } from 'zod'
import type { Dialer } from '../../base/dialer.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { BackupState, Capacity } from '../adapter.ts'
import { DONE, Remote } from '../remote/remote.ts'

/** Beyond it the VM may have been made all the same. */
const CREATE_MS = 60_000
const ACT_MS = 60_000
const LOOK_MS = 10_000

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
export type Vm = z.output<typeof vmShape>

const capacityShape = z
  .looseObject({
    total_cpus: z.number(),
    used_cpus: z.number(),
    total_memory_mb: z.number(),
    used_memory_mb: z.number(),
    max_vms: z.int(),
    available_vms: z.int(),
  })
  .transform((told): Capacity => {
    const [vcpus, memoryMib] = [told.total_cpus - told.used_cpus, told.total_memory_mb - told.used_memory_mb]
    const free = { instances: told.available_vms, vcpus: Math.max(0, vcpus), memoryMib: Math.max(0, memoryMib) }
    return { instances: told.max_vms, vcpus: told.total_cpus, memoryMib: told.total_memory_mb, free }
  })

const backupShape = z
  .looseObject({
    backup_unit_kind: z.enum(['durable_home', 'persistent_state_volume']),
    backup_target: z.string(),
    recovery_point_kind: z.enum(['metadata_record', 'volume_snapshot']),
    freshness: z.enum(['healthy', 'stale', 'missing', 'unavailable']),
    latest_recovery_point_name: z.string().nullish(),
    latest_successful_backup_at: z.string().nullish(),
  })
  .transform((told): BackupState => {
    const createdAt = Date.parse(told.latest_successful_backup_at ?? '')
    const latest = Number.isNaN(createdAt) ? [] : [{ name: told.latest_recovery_point_name ?? 'latest', createdAt }]
    return {
      backupUnitKind: told.backup_unit_kind,
      backupTarget: told.backup_target,
      recoveryPointKind: told.recovery_point_kind,
      snapshots: told.freshness === 'unavailable' ? undefined : latest,
    }
  })

/** One vm-spawner. */
export class Spawner {
  readonly url: string
  readonly #http: Remote
  #isFirst: boolean | undefined

  /** @param signal ends what is under way */
  constructor(url: string, dialer: Dialer, signal: AbortSignal) {
    this.url = url
    this.#http = new Remote({
      dialer,
      baseUrl: url,
      name: `vm-spawner at ${url}`,
      nextStep: `Ensure vm-spawner is reachable: curl ${url}/healthz`,
      // Version 1 says it with 500 where it deletes or recovers.
      isAbsent: ({ status, text }) => status === 404 || (status === 500 && text.includes('vm not found')),
      signal,
    })
  }

  /** Only version 1 answers /capacity. */
  async isFirstVersion(): Promise<boolean> {
    this.#isFirst ??= (await this.#http.send('GET /capacity', { timeoutMs: LOOK_MS })).status === 200
    return this.#isFirst
  }

  /** What is wrong, or undefined. */
  async health(): Promise<string | undefined> {
    return await this.#http.ask('answer', DONE, 'GET /healthz', { timeoutMs: LOOK_MS }).then(
      () => undefined,
      (error: unknown) => messageOf(error),
    )
  }

  /** Undefined where the spawner does not tell. */
  async capacity(): Promise<Capacity | undefined> {
    const { status, json } = await this.#http.send('GET /capacity', { timeoutMs: LOOK_MS })
    return status === 200 ? capacityShape.safeParse(json).data : undefined
  }

  async create(body: Json, signal: AbortSignal): Promise<Vm> {
    try {
      return await this.#http.ask('create microvm', vmShape, 'POST /vms', { body, timeoutMs: CREATE_MS, signal })
    } catch (error) {
      if (!isPylonError(error) || error.details['timeout'] !== true) throw error
      const words = `failed to create microvm via vm-spawner at ${this.url}: ${error.message} A VM may have been made all the same: its own ttl ends it; look at ${this.url}/vms.`
      throw new PylonError(error.code, words, { details: error.details, cause: error })
    }
  }

  /** Undefined where there is no such VM. */
  async find(id: string, signal?: AbortSignal): Promise<Vm | undefined> {
    return await this.#http.find('get microvm', vmShape, `GET ${pathOf(id)}`, { timeoutMs: LOOK_MS, signal })
  }

  /** Undefined where there is no such VM. */
  async act(verb: 'recover' | 'restore', id: string, signal: AbortSignal): Promise<true | undefined> {
    return await this.#http.find(`${verb} microvm`, DONE, `POST ${pathOf(id)}/${verb}`, { timeoutMs: ACT_MS, signal })
  }

  /** Undefined where there is no such VM. @throws runtime_unsupported */
  async backup(id: string): Promise<BackupState | undefined> {
    if (await this.isFirstVersion())
      throw new PylonError('runtime_unsupported', `The vm-spawner at ${this.url} is of a version without backups.`)
    return await this.#http.find('tell the backup status', backupShape, `GET ${pathOf(id)}/backup-status`, { timeoutMs: LOOK_MS })
  }

  /** Gone is fine. */
  async remove(id: string): Promise<void> {
    await this.#http.find('delete microvm', DONE, `DELETE ${pathOf(id)}`)
  }
}

const pathOf = (id: string) => `/vms/${encodeURIComponent(id)}` as const
