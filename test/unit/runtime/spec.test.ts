import { describe, expect, test } from 'vitest'
import { isPylonError, PylonError } from '../../../src/base/errors.ts'
import { isUnder, pathsUnder, rebase } from '../../../src/runtime/contract/paths.ts'
import { decodeRuntimeSpec, type RuntimeSpecInput, withStateDir } from '../../../src/runtime/contract/spec.ts'

const identity = { runtime_id: 'incus-0123456789abcdef', instance_name: 'pylon-1' }
const mount = { kind: 'persistent_volume', guest_path: '/data', source: 'vol', mode: 'read_write' } as const

function refusal(value: unknown): PylonError {
  try {
    decodeRuntimeSpec(value)
  } catch (error) {
    if (error instanceof PylonError) return error
    throw error
  }
  throw new Error('was accepted')
}

describe('RuntimeSpec', () => {
  test('fills in the defaults of the wire', () => {
    expect(decodeRuntimeSpec({ identity })).toEqual({
      identity,
      resources: {},
      mounts: [],
      paths: pathsUnder('/run/pika-cloud'),
      policies: {
        restart_policy: 'never',
        retention_policy: 'destroy_on_completion',
        output_collection: { mode: 'always', include_logs: true, include_result: true, artifact_globs: [] },
      },
      labels: {},
      metadata: {},
    })
  })

  test('goes through JSON and back unchanged', () => {
    const spec = decodeRuntimeSpec({
      identity,
      incus: { project: 'p', profile: 'q', image_alias: 'r' },
      resources: { vcpu_count: 2, memory_mib: 512, root_disk_gib: 8 },
      mounts: [{ ...mount, required: true }],
      policies: { restart_policy: 'on_failure' },
      entry_command: 'run me',
      labels: { a: 'b' },
      metadata: { deep: { list: [1, null] } },
    })
    expect(decodeRuntimeSpec(JSON.parse(JSON.stringify(spec)))).toEqual(spec)
  })

  test('reads and drops the provider of the first wire', () => {
    expect(decodeRuntimeSpec({ identity, provider: 'incus' })).not.toHaveProperty('provider')
    expect(refusal({ identity, provider: 'fly' }).code).toBe('spec_invalid')
  })

  test.each([
    ['an unknown field', { identity, extra: 1 }, 'extra'],
    ['an unknown field inside', { identity, resources: { cpus: 1 } }, 'resources.cpus'],
    ['a missing part', {}, 'identity'],
    ['a policy without its restart', { identity, policies: {} }, 'policies.restart_policy'],
    ['a number out of range', { identity, resources: { vcpu_count: 256 } }, 'resources.vcpu_count'],
    ['an unknown enum value', { identity, mounts: [{ ...mount, kind: 'disk' }] }, 'mounts.0.kind'],
    ['text that is no object', 'spec', ''],
  ])('names the field of %s', (_what, value, field) => {
    const error = refusal(value)
    expect(error.code).toBe('spec_invalid')
    expect(error.details['field']).toBe(field)
  })

  test.each([
    ['identity.runtime_id', { identity: { ...identity, runtime_id: ' ' } }],
    ['identity.instance_name', { identity: { ...identity, instance_name: '' } }],
    ['incus.image_alias', { identity, incus: { project: 'p', profile: 'q', image_alias: '' } }],
    ['entry_command', { identity, entry_command: '\t' }],
    ['mounts.0.source', { identity, mounts: [{ ...mount, source: '' }] }],
  ])('refuses a blank %s', (field, value) => {
    expect(refusal(value)).toMatchObject({ code: 'spec_empty_field', details: { field } })
  })

  test.each([
    ['relative', { events_path: 'events.jsonl' }, 'must be absolute'],
    ['climbing', { events_path: '/run/pika-cloud/../x' }, 'must not contain parent traversal'],
    ['beside with the same prefix', { events_path: '/run/pika-cloud-x/events.jsonl' }, 'must stay under paths.state_dir'],
    ['the root itself', { artifacts_dir: '/run/pika-cloud/' }, 'must stay under paths.state_dir'],
    ['that of another', { events_path: '/run/pika-cloud//status.json' }, 'must differ from paths.events_path'],
    ['everything', { state_dir: '/' }, 'must not be the root'],
    ['with a newline', { events_path: '/run/pika-cloud/a\nb' }, 'must not contain control characters'],
  ])('refuses a path that is %s', (_what, paths, reason) => {
    expect(refusal({ identity, paths })).toMatchObject({ code: 'spec_invalid_path', details: { reason } })
  })

  test('takes a state directory elsewhere with all that lies below it', () => {
    expect(decodeRuntimeSpec({ identity, paths: pathsUnder('/srv/state') }).paths.logs_dir).toBe('/srv/state/logs')
    expect(refusal({ identity, paths: { state_dir: '/srv/state' } }).code).toBe('spec_invalid_path')
  })

  test.each(['data', '/data/../etc', '/', '/proc', '/sys/kernel', '/dev/sda'])('refuses the guest path %s', (guest_path) => {
    expect(refusal({ identity, mounts: [{ ...mount, guest_path }] }).code).toBe('spec_invalid_path')
  })

  test('refuses one guest path twice, however it is written', () => {
    const error = refusal({ identity, mounts: [mount, { ...mount, guest_path: '//data/./' }] })
    expect(error).toMatchObject({ code: 'spec_duplicate_mount_guest_path', details: { guest_path: '/data' } })
  })

  test('keeps a read-only snapshot read-only', () => {
    const snapshot = { ...mount, kind: 'read_only_snapshot' } as const
    expect(refusal({ identity, mounts: [snapshot] }).code).toBe('spec_read_only_mount')
    expect(decodeRuntimeSpec({ identity, mounts: [{ ...snapshot, mode: 'read_only' }] }).mounts).toHaveLength(1)
  })

  test.each(['/etc/*', '../*', 'a/../../b', ' '])('refuses the artifact pattern %j', (glob) => {
    const policies: RuntimeSpecInput['policies'] = { restart_policy: 'never', output_collection: { artifact_globs: [glob] } }
    expect(refusal({ identity, policies }).code).toBe('spec_invalid_glob')
  })

  test('limits what metadata may hold', () => {
    expect(refusal({ identity, metadata: { big: 'x'.repeat(70_000) } }).code).toBe('spec_invalid')
  })

  test('moves its contract paths and nothing else', () => {
    const moved = withStateDir(decodeRuntimeSpec({ identity, mounts: [mount] }), '/tmp/s')
    expect(moved.paths).toEqual(pathsUnder('/tmp/s'))
    expect(moved.mounts[0]?.guest_path).toBe('/data')
  })
})

describe('paths', () => {
  test('are compared by components', () => {
    expect(isUnder('/a/b', '/a')).toBe(true)
    expect(isUnder('/a//b/', '/a/')).toBe(true)
    expect(isUnder('/ab', '/a')).toBe(false)
    expect(isUnder('/a', '/a')).toBe(false)
    expect(isUnder('/a/../b', '/a')).toBe(false)
    expect(rebase('/a/b/c', '/a', '/x')).toBe('/x/b/c')
    expect(rebase('/ab', '/a', '/x')).toBe('/ab')
  })

  test('errors are ours', () => {
    expect(isPylonError(refusal({}))).toBe(true)
  })
})
