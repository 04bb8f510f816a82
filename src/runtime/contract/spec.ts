/** RuntimeSpec: what a runtime is to be, for a managed agent and a one-shot run alike; decoded strictly, validated by name. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { CANONICAL_PATHS, isUnder, normalPath, pathProblem, type RuntimePaths, rebase } from './paths.ts'

export const MOUNT_KINDS = ['persistent_volume', 'read_only_snapshot', 'artifact_output', 'cache'] as const
export const MOUNT_MODES = ['read_only', 'read_write'] as const
export const RESTART_POLICIES = ['never', 'on_failure', 'always'] as const
export const RETENTION_POLICIES = ['destroy_on_completion', 'keep_until_stopped', 'debug_keep'] as const
export const OUTPUT_MODES = ['none', 'failure_only', 'always'] as const

/** The label of a runtime that somebody pays for: all that it keeps counts in one quota, its snapshots too. */
export const LEASED_LABEL = 'leased'

/** No string of a spec is longer. */
const MAX_TEXT = 4096
const MAX_COMMAND = 65_536
const MAX_METADATA_BYTES = 65_536
const MAX_U32 = 2 ** 32 - 1

const text = z.string().max(MAX_TEXT)

function mapPaths<T>(paths: RuntimePaths, as: (path: string) => T): Record<keyof RuntimePaths, T> {
  return Object.fromEntries(Object.entries(paths).map(([name, path]) => [name, as(path)])) as Record<keyof RuntimePaths, T>
}

const mount = z.strictObject({
  kind: z.enum(MOUNT_KINDS),
  guest_path: text,
  /** A volume name, or a host path for a snapshot: each adapter says which it takes. */
  source: text,
  mode: z.enum(MOUNT_MODES),
  required: z.boolean().default(false),
})

const outputCollection = z.strictObject({
  mode: z.enum(OUTPUT_MODES).default('always'),
  include_logs: z.boolean().default(true),
  include_result: z.boolean().default(true),
  /** Below artifacts_dir: `*` and `?` within one name, `**` across; none means all of it. */
  artifact_globs: z.array(text).max(64).default([]),
})

const policies = z.strictObject({
  restart_policy: z.enum(RESTART_POLICIES),
  retention_policy: z.enum(RETENTION_POLICIES).default('destroy_on_completion'),
  output_collection: outputCollection.prefault({}),
})

const runtimeSpec = z.strictObject({
  identity: z.strictObject({ runtime_id: text, instance_name: text }),
  /** Written by the first versions of the wire; read and dropped. */
  provider: z.literal('incus').optional(),
  incus: z.strictObject({ project: text, profile: text, image_alias: text }).optional(),
  resources: z
    .strictObject({
      vcpu_count: z.int().min(1).max(255).optional(),
      memory_mib: z.int().min(1).max(MAX_U32).optional(),
      root_disk_gib: z.int().min(1).max(MAX_U32).optional(),
    })
    .prefault({}),
  mounts: z.array(mount).max(32).default([]),
  paths: z.strictObject(mapPaths(CANONICAL_PATHS, (path) => text.default(path))).prefault({}),
  policies: policies.prefault({ restart_policy: 'never' }),
  /** A shell command: the run of a one-shot runtime, the agent process of a managed one. */
  entry_command: z.string().max(MAX_COMMAND).optional(),
  labels: z.record(z.string().max(128), text).default({}),
  metadata: z.record(z.string().max(128), z.json()).default({}),
})

export type RuntimeMount = Readonly<z.output<typeof mount>>
export type RuntimePolicies = Readonly<z.output<typeof policies>>
export type RuntimeSpecInput = z.input<typeof runtimeSpec>

/** In wire names, all defaults filled in. */
export type RuntimeSpec = Readonly<Omit<z.output<typeof runtimeSpec>, 'provider'>>

/**
 * A spec from JSON, decoded strictly and validated.
 * @throws spec_invalid (shape; details.field), spec_empty_field, spec_invalid_path (details.reason),
 *   spec_duplicate_mount_guest_path, spec_read_only_mount, spec_invalid_glob
 */
export function decodeRuntimeSpec(value: unknown): RuntimeSpec {
  const parsed = runtimeSpec.safeParse(value)
  if (!parsed.success) throw shapeError('RuntimeSpec', 'spec_invalid', parsed.error)
  const { provider: _legacy, ...spec } = parsed.data
  validateRuntimeSpec(spec)
  return spec
}

/** One line for the first problem that zod found, with its field: decoders of the contract share it. */
export function shapeError(
  what: string,
  code: 'spec_invalid' | 'guest_request_invalid' | 'invalid_request',
  error: z.ZodError,
): PylonError {
  const issue = error.issues[0]
  const keys = issue?.code === 'unrecognized_keys' ? issue.keys : []
  const field = [...(issue?.path ?? []), ...keys.slice(0, 1)].map(String).join('.')
  const message = keys.length > 0 ? `unknown field ${JSON.stringify(keys[0])}` : (issue?.message ?? 'is malformed')
  return new PylonError(code, `${what}${field === '' ? '' : `, field ${field}`}: ${message}.`, { details: { field } })
}

/** @throws as decodeRuntimeSpec does, for what the shape alone can't say. */
export function validateRuntimeSpec(spec: RuntimeSpec): void {
  notBlank('identity.runtime_id', spec.identity.runtime_id)
  notBlank('identity.instance_name', spec.identity.instance_name)
  if (spec.incus !== undefined) {
    notBlank('incus.project', spec.incus.project)
    notBlank('incus.profile', spec.incus.profile)
    notBlank('incus.image_alias', spec.incus.image_alias)
  }
  if (spec.entry_command !== undefined) {
    notBlank('entry_command', spec.entry_command)
    if (spec.entry_command.includes('\0'))
      throw new PylonError('spec_invalid', 'entry_command must not contain NUL.', { details: { field: 'entry_command' } })
  }
  validatePaths(spec.paths)
  validateMounts(spec.mounts)
  validateGlobs(spec.policies.output_collection.artifact_globs)
  if (Buffer.byteLength(JSON.stringify(spec.metadata)) > MAX_METADATA_BYTES) {
    throw new PylonError('spec_invalid', `metadata is over ${MAX_METADATA_BYTES} bytes.`, { details: { field: 'metadata' } })
  }
}

function notBlank(field: string, value: string): void {
  if (value.trim() === '') throw new PylonError('spec_empty_field', `${field} must not be empty.`, { details: { field } })
}

function invalidPath(field: string, path: string, reason: string): PylonError {
  return new PylonError('spec_invalid_path', `${field} ${JSON.stringify(path)} ${reason}.`, { details: { field, path, reason } })
}

function validatePaths(paths: RuntimePaths): void {
  const seen = new Map<string, string>()
  for (const [name, path] of Object.entries(paths)) {
    const field = `paths.${name}`
    notBlank(field, path)
    const problem = pathProblem(path)
    if (problem !== undefined) throw invalidPath(field, path, problem)
    if (name !== 'state_dir' && !isUnder(path, paths.state_dir)) throw invalidPath(field, path, 'must stay under paths.state_dir')
    const other = seen.get(normalPath(path))
    if (other !== undefined) throw invalidPath(field, path, `must differ from ${other}`)
    seen.set(normalPath(path), field)
  }
}

/** What the guest's system keeps for itself. */
const SYSTEM_PATHS = ['/proc', '/sys', '/dev']

function validateMounts(mounts: readonly RuntimeMount[]): void {
  const seen = new Set<string>()
  for (const [i, mount] of mounts.entries()) {
    const field = `mounts.${i}.guest_path`
    notBlank(`mounts.${i}.source`, mount.source)
    if (mount.source.includes('\0')) throw invalidPath(`mounts.${i}.source`, mount.source, 'must not contain control characters')
    const problem = pathProblem(mount.guest_path)
    if (problem !== undefined) throw invalidPath(field, mount.guest_path, problem)
    const path = normalPath(mount.guest_path)
    if (SYSTEM_PATHS.some((root) => path === root || isUnder(path, root)))
      throw invalidPath(field, mount.guest_path, 'must not cover a system path')
    if (seen.has(path)) {
      throw new PylonError('spec_duplicate_mount_guest_path', `Two mounts have the guest path ${path}.`, { details: { guest_path: path } })
    }
    seen.add(path)
    if (mount.kind === 'read_only_snapshot' && mount.mode !== 'read_only') {
      throw new PylonError('spec_read_only_mount', `The mount at ${path} is a read_only_snapshot and must have mode read_only.`, {
        details: { guest_path: path },
      })
    }
  }
}

function validateGlobs(globs: readonly string[]): void {
  for (const [i, glob] of globs.entries()) {
    const parts = glob.split('/')
    if (glob.trim() === '' || glob.includes('\0') || parts.includes('..') || glob.startsWith('/')) {
      throw new PylonError('spec_invalid_glob', `artifact_globs.${i} must be a relative pattern without parent traversal.`, {
        details: { field: `policies.output_collection.artifact_globs.${i}` },
      })
    }
  }
}

/** The same spec for a guest whose state directory lies elsewhere: its contract paths move along, mounts stay. */
export function withStateDir(spec: RuntimeSpec, stateDir: string): RuntimeSpec {
  return { ...spec, paths: mapPaths(spec.paths, (path) => rebase(path, spec.paths.state_dir, stateDir)) }
}
