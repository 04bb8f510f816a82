/** Config and devices of an instance, from the plan: pure. Nothing secret is ever in here: whoever may see the project reads it. */
import { PylonError } from '../../base/errors.ts'
import { MAX_SOCKET_PATH } from '../../base/unix-websocket-server.ts'
import { isUnder, normalPath } from '../contract/paths.ts'
import type { MountPlan, RuntimePlan } from '../plan.ts'
import type { Devices } from './instances.ts'
import {
  GUEST_DOOR,
  type IncusHandle,
  LABEL_HANDLE,
  LABEL_NODE,
  LABEL_OWNER,
  LABEL_RUNTIME,
  persistentVolumeName,
  volumeName,
} from './names.ts'
import type { IncusSettings } from './settings.ts'

export interface Resources {
  readonly vcpus: number
  readonly memoryMib: number
  /** Of the root; with its volumes it comes to what root_disk_gib says. */
  readonly rootMib: number
  /** Of each volume. */
  readonly volumeMib: number
}

export function resourcesOf(plan: Pick<RuntimePlan, 'resources' | 'mounts'>, { defaults }: Pick<IncusSettings, 'defaults'>): Resources {
  return {
    vcpus: plan.resources.vcpu_count ?? defaults.vcpus,
    memoryMib: plan.resources.memory_mib ?? defaults.memoryMib,
    ...shared((plan.resources.root_disk_gib ?? defaults.rootDiskGib) * 1024, plan.mounts.filter(isVolume).length),
  }
}

/** One quota: half of it is the root's, the volumes share the other. */
function shared(totalMib: number, volumes: number): Pick<Resources, 'rootMib' | 'volumeMib'> {
  const volumeMib = volumes === 0 ? 0 : Math.floor(totalMib / 2 / volumes)
  return { rootMib: totalMib - volumes * volumeMib, volumeMib }
}

const isVolume = ({ source }: MountPlan): boolean => !source.startsWith('/')

/**
 * A subvolume that a tenant makes inside a btrfs pool has no size whatever its parent has: the calls that make one are
 * refused (SUBVOL_CREATE, SNAP_CREATE and their second versions). Masked, since the kernel reads only half of the argument.
 */
const DENIED_CALLS = ['0x5000940e', '0x50009418', '0x50009401', '0x50009417']
  .map((call) => `ioctl errno 1 [1,${call},SCMP_CMP_MASKED_EQ,0xffffffff]`)
  .join('\n')

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
          'security.syscalls.deny': DENIED_CALLS,
        }
      : { 'security.secureboot': 'false' }),
    [LABEL_NODE]: settings.nodeId,
    [LABEL_RUNTIME]: handle.runtime_id,
    [LABEL_OWNER]: ownerPubkey,
    [LABEL_HANDLE]: JSON.stringify(handle),
  }
}

/** @param doorSocket of this host, where the guest reaches relays through it */
export function devicesOf(plan: RuntimePlan, handle: IncusHandle, settings: IncusSettings, doorSocket?: string): Devices {
  const { rootMib } = resourcesOf(plan, settings)
  const isVm = handle.type === 'virtual-machine'
  const devices: Record<string, Readonly<Record<string, string>>> = {
    root: { type: 'disk', path: '/', pool: handle.pool, size: `${rootMib}MiB` },
  }
  if (handle.guest === 'full') {
    const { hostDir } = settings.guest
    devices['pylon'] = { type: 'disk', source: hostDir, path: hostDir, readonly: 'true', ...(isVm ? { 'io.bus': 'virtiofs' } : {}) }
  }
  for (const [i, mount] of plan.mounts.entries()) devices[mount.device_name] = deviceOf(mount, volumeAt(plan, handle, i), handle.pool, isVm)
  if (settings.network !== undefined) {
    const address: Record<string, string> = handle.address === undefined ? {} : { 'ipv4.address': handle.address }
    devices['eth0'] = { type: 'nic', network: settings.network, name: 'eth0', 'security.port_isolation': 'true', ...address }
  }
  if (doorSocket !== undefined) devices['door'] = doorDevice(doorSocket)
  for (const { host, guest } of handle.ports) {
    devices[`port-${guest}`] = { type: 'proxy', listen: `tcp:127.0.0.1:${host}`, connect: `tcp:127.0.0.1:${guest}`, bind: 'host' }
  }
  return devices
}

/** Both ends by the least that may use them: root of the instance, and the user of this node. */
function doorDevice(socket: string): Readonly<Record<string, string>> {
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH) {
    throw new PylonError(
      'runtime_unsupported',
      `The socket ${socket} has a path too long for Incus: keep the home of this node in a shorter one.`,
    )
  }
  return {
    type: 'proxy',
    bind: 'instance',
    listen: `unix:${GUEST_DOOR}`,
    connect: `unix:${socket}`,
    mode: '0600',
    uid: '0',
    gid: '0',
    'security.uid': String(process.getuid?.() ?? 0),
    'security.gid': String(process.getgid?.() ?? 0),
  }
}

/** The volume of a mount: `volumesOf` left out those that are folders of the host. */
function volumeAt(plan: RuntimePlan, handle: IncusHandle, index: number): string {
  return handle.volumes[plan.mounts.slice(0, index).filter(isVolume).length]?.name ?? ''
}

function deviceOf(mount: MountPlan, volume: string, pool: string, isVm: boolean): Readonly<Record<string, string>> {
  const how: Record<string, string> = {
    path: mount.guest_path,
    ...(mount.read_only ? { readonly: 'true' } : {}),
    ...(isVm && mount.io_bus !== undefined ? { 'io.bus': mount.io_bus } : {}),
  }
  return isVolume(mount) ? { type: 'disk', pool, source: volume, ...how } : { type: 'disk', source: mount.source, ...how }
}

/**
 * The volumes that the mounts need. Only a persistent one may be kept, and is found again by its source.
 * @param former names of volumes that are there: one that an earlier version made for this runtime is used on
 */
export function volumesOf(
  plan: RuntimePlan,
  instance: string,
  whose: { readonly nodeId: string; readonly ownerPubkey: string },
  former: ReadonlySet<string>,
): { name: string; persistent: boolean; source: string }[] {
  return plan.mounts.filter(isVolume).map((mount) => {
    const own = volumeName(instance, mount.device_name)
    const persistent = mount.kind === 'persistent_volume'
    const name = persistent && !former.has(own) ? persistentVolumeName(whose.nodeId, whose.ownerPubkey, mount.source) : own
    return { name, persistent, source: mount.source }
  })
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
