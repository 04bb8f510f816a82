/** What the local adapter keeps on disk about a runtime, and where: the folder is the truth, a handle only names it. */
import { join } from 'node:path'
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import { parseJson } from '../../base/json.ts'
import type { ProvisionInput } from '../adapter.ts'
import { PROTOCOLS } from '../contract/prompt.ts'
import { decodeRuntimeSpec, type RuntimeSpec } from '../contract/spec.ts'

export const RUNTIME_ID = /^local-[0-9a-f]{16}$/

const processIdentity = z.strictObject({ pid: z.int(), start_time: z.string().nullable(), boot_id: z.string().nullable() })

const record = z.strictObject({
  version: z.literal(1),
  runtime_id: z.string().regex(RUNTIME_ID),
  owner_pubkey: z.string(),
  spec: z.unknown(),
  protocol: z.enum(PROTOCOLS).nullable(),
  timeout_secs: z.int().nullable(),
  network: z.enum(['none', 'host']),
  isolated: z.boolean(),
  env: z.record(z.string(), z.string()),
  session: z
    .strictObject({ token: z.string(), relays: z.array(z.string()), door_socket: z.string().nullable() })
    .nullable()
    .default(null),
  ticket_key: z.string(),
  /** In the environment of every process of this runtime. */
  mark: z.string(),
  /** The outermost process; null before its first start is known. */
  process: processIdentity.nullable(),
  /** Of its control group, which holds all its processes together; none where none could be made. */
  group_dirs: z.array(z.string()).default([]),
  /** Why the host ended it, where it did. */
  ended: z.string().nullable(),
})

export interface LocalRecord extends Omit<z.output<typeof record>, 'spec'> {
  spec: RuntimeSpec
}

export interface LocalLayout {
  readonly dir: string
  readonly record: string
  /** The guest's paths.state_dir. */
  readonly state: string
  /** The guest's working directory, /workspace. */
  readonly work: string
  /** Read-only for the guest: its script. */
  readonly boot: string
}

export function layoutOf(root: string, runtimeId: string): LocalLayout {
  if (!RUNTIME_ID.test(runtimeId))
    throw new PylonError('runtime_gone', `${JSON.stringify(runtimeId)} is no runtime of the local substrate.`)
  const dir = join(root, runtimeId)
  return { dir, record: join(dir, 'runtime.json'), state: join(dir, 'state'), work: join(dir, 'work'), boot: join(dir, 'boot') }
}

const handleShape = z.strictObject({ runtime_id: z.string(), volumes: z.array(z.string()) })

/** Volumes are named too, so that those which were kept can be removed when the runtime is long gone. */
export type LocalHandle = Readonly<z.output<typeof handleShape>>

/** @throws runtime_gone for what is no handle of this adapter */
export function handleOf(handle: unknown): LocalHandle {
  const parsed = handleShape.safeParse(handle)
  if (!parsed.success) throw new PylonError('runtime_gone', 'The handle is none of the local substrate.')
  return parsed.data
}

/** @throws runtime_failed when the record is damaged */
export function readRecord(layout: LocalLayout): LocalRecord | undefined {
  const text = readFileIfAny(layout.record)
  if (text === undefined) return undefined
  const parsed = record.safeParse(parseJson(text))
  if (!parsed.success) throw new PylonError('runtime_failed', `${layout.record} is damaged; remove the folder to give the runtime up.`)
  return { ...parsed.data, spec: decodeRuntimeSpec(parsed.data.spec) }
}

export function writeRecord(layout: LocalLayout, value: LocalRecord): void {
  writeFileAtomic(layout.record, JSON.stringify(value))
}

/** Whether a second provision asks for the same thing. */
export function isSameRequest(known: LocalRecord, input: ProvisionInput): boolean {
  return (
    known.owner_pubkey === input.ownerPubkey &&
    known.protocol === input.protocol &&
    JSON.stringify(known.spec) === JSON.stringify(input.spec)
  )
}
