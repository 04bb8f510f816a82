import { expect, test } from 'vitest'
import { isPylonError } from '../../../src/base/errors.ts'
import { decodeRuntimeSpec } from '../../../src/runtime/contract/spec.ts'
import { buildRuntimePlan, deviceName } from '../../../src/runtime/plan.ts'

const identity = { runtime_id: 'incus-1', instance_name: 'i' }

test.each([
  ['read_only_snapshot', '/var/tmp/run/snapshot', '/workspace/snapshot', 'pk-snapsh-7bc0883f'],
  ['persistent_volume', 'customer-state', '/var/lib/pika', 'pk-persis-b09b5ac0'],
] as const)('holds the published vector of %s', (kind, source, guestPath, name) => {
  expect(deviceName(kind, source, guestPath)).toBe(name)
})

test('names the other kinds by their first six letters', () => {
  expect(deviceName('artifact_output', 'a', '/b')).toMatch(/^pk-artifa-[0-9a-f]{8}$/)
  expect(deviceName('cache', 'a', '/b')).toMatch(/^pk-cache-[0-9a-f]{8}$/)
})

test('plans each mount, read-only where its kind says so', () => {
  const plan = buildRuntimePlan(
    decodeRuntimeSpec({
      identity,
      mounts: [
        { kind: 'read_only_snapshot', source: '/snap', guest_path: '/a', mode: 'read_only' },
        { kind: 'cache', source: 'c', guest_path: '/b', mode: 'read_write' },
      ],
    }),
  )
  expect(plan.mounts).toMatchObject([{ read_only: true, io_bus: 'virtiofs' }, { read_only: false }])
  expect(plan.mounts[1]).not.toHaveProperty('io_bus')
})

test('refuses two mounts of one device name', () => {
  // Both sanitise to the same words.
  const mounts = ['/a.b', '/a_b'].map((guest_path) => ({ kind: 'cache', source: 'c', guest_path, mode: 'read_write' }) as const)
  expect(() => buildRuntimePlan(decodeRuntimeSpec({ identity, mounts }))).toThrow(
    expect.toSatisfy((error) => isPylonError(error, 'spec_duplicate_device')),
  )
})

test('validates what was built by hand', () => {
  const spec = decodeRuntimeSpec({ identity })
  expect(() => buildRuntimePlan({ ...spec, entry_command: ' ' })).toThrow('entry_command')
})
