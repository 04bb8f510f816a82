/** From a spec to the devices of an instance: pure, with names that the same mount always gets. */
import { PylonError } from '../base/errors.ts'
import { type RuntimeMount, type RuntimeSpec, validateRuntimeSpec } from './contract/spec.ts'

export interface MountPlan extends Omit<RuntimeMount, 'mode'> {
  readonly device_name: string
  readonly read_only: boolean
  /** Set for read-only mounts of a virtual machine. */
  readonly io_bus?: 'virtiofs'
}

export interface RuntimePlan extends Omit<RuntimeSpec, 'mounts'> {
  readonly mounts: readonly MountPlan[]
}

const KIND_LABELS: Readonly<Record<RuntimeMount['kind'], string>> = {
  persistent_volume: 'persist',
  read_only_snapshot: 'snapshot',
  artifact_output: 'artifact',
  cache: 'cache',
}

/** @throws as validateRuntimeSpec does; spec_duplicate_device where two mounts come to one device name. */
export function buildRuntimePlan(spec: RuntimeSpec): RuntimePlan {
  validateRuntimeSpec(spec)
  const seen = new Set<string>()
  const mounts = spec.mounts.map(({ mode, ...mount }): MountPlan => {
    const device_name = deviceName(mount.kind, mount.source, mount.guest_path)
    const taken = `The mount at ${mount.guest_path} gets the device name of another; choose another guest path.`
    if (seen.has(device_name)) throw new PylonError('spec_duplicate_device', taken, { details: { device_name } })
    seen.add(device_name)
    // The kind binds, whatever the mode says.
    const read_only = mount.kind === 'read_only_snapshot' || mode === 'read_only'
    return { ...mount, device_name, read_only, ...(read_only ? { io_bus: 'virtiofs' } : {}) }
  })
  return { ...spec, mounts }
}

/** `pk-<first 6 of the kind's label>-<low 32 bits of FNV-1a-64>`, 8 hex digits: the wire's own rule. */
export function deviceName(kind: RuntimeMount['kind'], source: string, guestPath: string): string {
  const label = KIND_LABELS[kind]
  return `pk-${label.slice(0, 6)}-${fnv1a64Low(`${label}-${sanitize(source)}-${sanitize(guestPath)}`)}`
}

function sanitize(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9]/g, '-')
    .replace(/^-+|-+$/g, '')
}

function fnv1a64Low(text: string): string {
  let hash = 0xcbf29ce484222325n
  for (const byte of Buffer.from(text)) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn
  return (hash & 0xffffffffn).toString(16).padStart(8, '0')
}
