/** Config and devices of an instance, from the plan: pure. Nothing secret is ever in here: whoever may see the project reads it. */
import { PylonError } from '../../base/errors.ts'
import { isUnder, normalPath } from '../contract/paths.ts'
import type { MountPlan, RuntimePlan } from '../plan.ts'
import type { Devices } from './instances.ts'
import { type IncusHandle, LABEL_HANDLE, LABEL_NODE, LABEL_OWNER, LABEL_RUNTIME, volumeName } from './names.ts'
import type { IncusSettings } from './settings.ts'

export interface Resources {
  readonly vcpus: number
  readonly memoryMib: number
  readonly rootDiskGib: number
}

export function resourcesOf(plan: Pick<RuntimePlan, 'resources'>, { defaults }: Pick<IncusSettings, 'defaults'>): Resources {
  return {
    vcpus: plan.resources.vcpu_count ?? defaults.vcpus,
    memoryMib: plan.resources.memory_mib ?? defaults.memoryMib,
    rootDiskGib: plan.resources.root_disk_gib ?? defaults.rootDiskGib,
  }
}

export function configOf(plan: RuntimePlan, handle: IncusHandle, ownerPubkey: string, settings: IncusSettings): Record<string, string> {
  const { vcpus, memoryMib } = resourcesOf(plan, settings)
  return {
    'limits.cpu': String(vcpus),
    'limits.memory': `${memoryMib}MiB`,
    // Autostart would bring up what no record names any more.
    'boot.autostart': 'false',
    ...(handle.type === 'container'
      ? {
          'limits.processes': String(settings.defaults.processes),
          'security.privileged': 'false',
          'security.nesting': 'false',
          'security.guestapi': 'false',
          'security.idmap.isolated': 'true',
        }
      : { 'security.secureboot': 'false' }),
    [LABEL_NODE]: settings.nodeId,
    [LABEL_RUNTIME]: handle.runtime_id,
    [LABEL_OWNER]: ownerPubkey,
    [LABEL_HANDLE]: JSON.stringify(handle),
  }
}

export function devicesOf(plan: RuntimePlan, handle: IncusHandle, settings: IncusSettings): Devices {
  const { rootDiskGib } = resourcesOf(plan, settings)
  const isVm = handle.type === 'virtual-machine'
  const devices: Record<string, Readonly<Record<string, string>>> = {
    root: { type: 'disk', path: '/', pool: handle.pool, size: `${rootDiskGib}GiB` },
  }
  if (handle.guest === 'full') {
    const { hostDir } = settings.guest
    devices['pylon'] = { type: 'disk', source: hostDir, path: hostDir, readonly: 'true', ...(isVm ? { 'io.bus': 'virtiofs' } : {}) }
  }
  for (const mount of plan.mounts) devices[mount.device_name] = deviceOf(mount, handle, isVm)
  if (settings.network !== undefined) {
    const address: Record<string, string> = handle.address === undefined ? {} : { 'ipv4.address': handle.address }
    devices['eth0'] = { type: 'nic', network: settings.network, name: 'eth0', 'security.port_isolation': 'true', ...address }
  }
  for (const { host, guest } of handle.ports) {
    devices[`port-${guest}`] = { type: 'proxy', listen: `tcp:127.0.0.1:${host}`, connect: `tcp:127.0.0.1:${guest}`, bind: 'host' }
  }
  return devices
}

function deviceOf(mount: MountPlan, handle: IncusHandle, isVm: boolean): Readonly<Record<string, string>> {
  const how: Record<string, string> = {
    path: mount.guest_path,
    ...(mount.read_only ? { readonly: 'true' } : {}),
    ...(isVm && mount.io_bus !== undefined ? { 'io.bus': mount.io_bus } : {}),
  }
  if (mount.source.startsWith('/')) return { type: 'disk', source: mount.source, ...how }
  return { type: 'disk', pool: handle.pool, source: volumeName(handle.instance, mount.device_name), ...how }
}

/** The volumes that the mounts need; only a persistent one may be kept. */
export function volumesOf(plan: RuntimePlan, instance: string): { name: string; persistent: boolean }[] {
  return plan.mounts
    .filter((mount) => !mount.source.startsWith('/'))
    .map((mount) => ({ name: volumeName(instance, mount.device_name), persistent: mount.kind === 'persistent_volume' }))
}

/**
 * A source is a logical name, which becomes a volume of this runtime alone, or a host path that the owner allows.
 * @throws spec_mount_refused
 */
export function checkMounts(plan: RuntimePlan, settings: IncusSettings): void {
  for (const mount of plan.mounts) {
    if (!mount.source.startsWith('/')) continue
    const allowed = settings.allowedHostPaths ?? []
    const isInside = allowed.some((root) => normalPath(mount.source) === normalPath(root) || isUnder(mount.source, root))
    if (mount.kind === 'read_only_snapshot' && isInside) continue
    const why =
      mount.kind === 'read_only_snapshot' ? 'is not below a path that the owner allows' : 'may be a host path only for a read_only_snapshot'
    throw new PylonError('spec_mount_refused', `The source ${mount.source} of the mount at ${mount.guest_path} ${why}.`, {
      details: { source: mount.source },
    })
  }
}
