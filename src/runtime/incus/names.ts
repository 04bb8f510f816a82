/** Names and labels of what Pylon makes in Incus, and the handle that is kept of a runtime: all derived from its id. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { parseJson } from '../../base/json.ts'
import type { RuntimeHandle } from '../adapter.ts'
import { PROTOCOLS } from '../contract/prompt.ts'

export const LABEL_NODE = 'user.pylon.node'
export const LABEL_RUNTIME = 'user.pylon.runtime'
export const LABEL_OWNER = 'user.pylon.owner'
export const LABEL_HANDLE = 'user.pylon.handle'
/** On a persistent volume: what its mount and its runtime are called. */
export const LABEL_SOURCE = 'user.pylon.source'
export const LABEL_NAME = 'user.pylon.name'
/** On a persistent volume: what it may take with those snapshots that count (MiB), and what these took of it (bytes). */
export const LABEL_QUOTA = 'user.pylon.quota_mib'
export const LABEL_SNAPSHOTS = 'user.pylon.snapshot_bytes'
/** On a volume that outlives its runtime because somebody asked for it. */
export const LABEL_KEPT = 'user.pylon.kept'

/** Where the host puts what the guest starts with; only root of the guest reads it. */
export const GUEST_CONFIG_DIR = '/etc/pylon'

const handleShape = z.strictObject({
  v: z.literal(1),
  runtime_id: z.string(),
  instance: z.string(),
  type: z.enum(['container', 'virtual-machine']).default('container'),
  pool: z.string(),
  /** Cluster member; absent on a single machine. */
  target: z.string().optional(),
  volumes: z.array(z.strictObject({ name: z.string(), persistent: z.boolean() })),
  protocol: z.enum(PROTOCOLS).nullable().default(null),
  guest: z.enum(['full', 'shell']).default('shell'),
  has_session: z.boolean().default(false),
  state_dir: z.string().default(''),
  status_path: z.string().default(''),
  result_path: z.string().default(''),
  guest_log_path: z.string().default(''),
  address: z.string().optional(),
  /** Of the network that the address is in, with its prefix: `10.77.0.1/24`. */
  gateway: z.string().optional(),
  ports: z.array(z.strictObject({ host: z.int(), guest: z.int() })).default([]),
})

/** Where a guest finds the door to relays: in a folder that every image has. */
export const GUEST_DOOR = '/run/pylon-door.sock'

export type IncusHandle = Readonly<z.output<typeof handleShape>>

type HandleFields = { readonly [K in Exclude<keyof z.input<typeof handleShape>, 'v' | 'instance'>]?: IncusHandle[K] | undefined }

/** @throws spec_invalid for an id that cannot name an instance */
export function newHandle(fields: HandleFields & Pick<IncusHandle, 'runtime_id' | 'pool' | 'volumes'>): IncusHandle {
  return handleShape.parse({ v: 1, instance: instanceName(fields.runtime_id), ...given(fields) })
}

/** @throws internal for what this adapter did not make */
export function decodeHandle(handle: RuntimeHandle): IncusHandle {
  const parsed = handleShape.safeParse(handle)
  if (parsed.success) return parsed.data
  throw new PylonError(
    'internal',
    `The record of this runtime is not one of the Incus adapter (${parsed.error.issues[0]?.path.join('.')}).`,
  )
}

/** A handle from a label, or undefined: labels are only as good as who may write them. */
export function handleFromLabel(text: string | undefined): IncusHandle | undefined {
  return handleShape.safeParse(parseJson(text ?? '')).data
}

/** `incus-0123456789abcdef` is the instance `pylon-0123456789abcdef`. @throws spec_invalid for an id of another shape */
export function instanceName(runtimeId: string): string {
  const match = /^(?:[a-z]+-)?([a-z0-9][a-z0-9-]{0,39}[a-z0-9])$/.exec(runtimeId)
  if (match?.[1] === undefined) {
    throw new PylonError('spec_invalid', `The runtime id ${JSON.stringify(runtimeId)} cannot name an instance.`, {
      details: { field: 'identity.runtime_id' },
    })
  }
  return `pylon-${match[1]}`
}

/** The other way round, for an instance that says nothing else. */
export const runtimeIdOf = (instance: string): string => instance.replace(/^pylon-/, 'incus-')

/** The same for each runtime of this owner that mounts this source; two nodes on one Incus never meet in one. */
export function persistentVolumeName(nodeId: string, ownerPubkey: string, source: string): string {
  return `pylon-v-${createHash('sha256').update(`${nodeId}\n${ownerPubkey}\n${source}`).digest('hex').slice(0, 32)}`
}

/** Of one runtime alone. @param device the deterministic device name of the mount, such as `pk-persis-b09b5ac0` */
export function volumeName(instance: string, device: string): string {
  return `${instance}-${device.replace(/^pk-/, '')}`
}
