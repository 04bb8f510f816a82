/** Holds all processes of one runtime together: a control group of version 1 or 2 for each, where this process may make them. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import type { AdapterProbe } from '../adapter.ts'

export interface GroupLimits {
  readonly memoryMib: number
  readonly processes: number
  /** Undefined: as a group its processes still get no more than any one other when there is not enough. */
  readonly vcpus: number | undefined
}

/** Where groups are made: in one folder for all controllers (version 2), or in one for each (version 1). */
export type GroupHome =
  | { readonly version: 2; readonly dir: string }
  | { readonly version: 1; readonly pids: string; readonly memory: string; readonly cpu: string | undefined }

/** What a guest program itself takes beside the command that it runs. */
const GUEST_MIB = 128
const CPU_PERIOD_US = 100_000
const REMOVE_ATTEMPTS = 20
const REMOVE_PAUSE_MS = 50

/** Undefined where this process may make none. @param proc for tests */
export function findGroupHome(proc = '/proc/self'): GroupHome | undefined {
  try {
    const mounts = readFileSync(join(proc, 'mountinfo'), 'utf8').split('\n').flatMap(parseMount)
    const own = readFileSync(join(proc, 'cgroup'), 'utf8').split('\n').flatMap(parseMembership)
    return unified(mounts, own) ?? split(mounts, own)
  } catch {
    // No /proc, or one of another kind.
    return undefined
  }
}

interface Mount {
  readonly root: string
  readonly point: string
  readonly type: string
  readonly options: readonly string[]
}

interface Membership {
  /** Empty in version 2. */
  readonly controllers: readonly string[]
  readonly path: string
}

function parseMount(line: string): Mount[] {
  const [before = '', after = ''] = line.split(' - ')
  const [, , , root = '', point = ''] = before.split(' ')
  const [type = '', , options = ''] = after.split(' ')
  return type === 'cgroup' || type === 'cgroup2' ? [{ root, point, type, options: options.split(',') }] : []
}

function parseMembership(line: string): Membership[] {
  const match = /^\d+:([^:]*):(\/.*)$/.exec(line)
  return match === null ? [] : [{ controllers: (match[1] ?? '').split(',').filter((name) => name !== ''), path: match[2] ?? '/' }]
}

/** A group's folder, below where its hierarchy is mounted. */
function folderOf({ root, point }: Mount, path: string): string {
  const below = root !== '/' && path.startsWith(root) ? path.slice(root.length) : path
  return join(point, below)
}

/** The nearest group above this process that hands both controllers down, and in which one may be made. */
function unified(mounts: readonly Mount[], own: readonly Membership[]): GroupHome | undefined {
  const mount = mounts.find(({ type }) => type === 'cgroup2')
  const path = own.find(({ controllers }) => controllers.length === 0)?.path
  if (mount === undefined || path === undefined) return undefined
  for (let dir = folderOf(mount, path); dir.startsWith(mount.point); dir = dirname(dir)) {
    const handed = readFileSync(join(dir, 'cgroup.subtree_control'), 'utf8').trim().split(' ')
    if (handed.includes('memory') && handed.includes('pids') && mayMakeIn(dir)) return { version: 2, dir }
  }
  return undefined
}

function split(mounts: readonly Mount[], own: readonly Membership[]): GroupHome | undefined {
  const folder = (controller: string) => {
    const mount = mounts.find(({ type, options }) => type === 'cgroup' && options.includes(controller))
    const path = own.find(({ controllers }) => controllers.includes(controller))?.path
    const dir = mount === undefined || path === undefined ? undefined : folderOf(mount, path)
    return dir !== undefined && mayMakeIn(dir) ? dir : undefined
  }
  const [pids, memory] = [folder('pids'), folder('memory')]
  return pids === undefined || memory === undefined ? undefined : { version: 1, pids, memory, cpu: folder('cpu') }
}

/** Tried, since permission bits say nothing of read-only mounts and of user namespaces. */
function mayMakeIn(dir: string): boolean {
  const trial = join(dir, `pylon-trial-${process.pid}`)
  try {
    mkdirSync(trial)
    rmdirSync(trial)
    return true
  } catch {
    return false
  }
}

/**
 * The folders of a runtime's group, made where they are not there; a process joins by writing 0 to cgroup.procs in each.
 * @throws runtime_failed
 */
export function makeGroup(home: GroupHome, runtimeId: string, limits: GroupLimits): string[] {
  const name = `pylon-${runtimeId}`
  const bytes = String((limits.memoryMib + GUEST_MIB) * 1024 ** 2)
  const quota = limits.vcpus === undefined ? undefined : limits.vcpus * CPU_PERIOD_US
  const make = (parent: string, files: Readonly<Record<string, string | undefined>>) => {
    const dir = join(parent, name)
    mkdirSync(dir, { recursive: true })
    for (const [file, value] of Object.entries(files)) {
      // Swap and CPU are not everywhere counted.
      const isOptional = /swap|memsw|^cpu/.test(file)
      if (value !== undefined && (!isOptional || existsSync(join(dir, file)))) writeFileSync(join(dir, file), value)
    }
    return dir
  }
  try {
    if (home.version === 2) {
      const cpu = quota === undefined ? undefined : `${quota} ${CPU_PERIOD_US}`
      return [make(home.dir, { 'pids.max': String(limits.processes), 'memory.max': bytes, 'memory.swap.max': '0', 'cpu.max': cpu })]
    }
    return [
      make(home.pids, { 'pids.max': String(limits.processes) }),
      make(home.memory, { 'memory.limit_in_bytes': bytes, 'memory.memsw.limit_in_bytes': bytes }),
      ...(home.cpu === undefined ? [] : [make(home.cpu, { 'cpu.cfs_quota_us': quota?.toString() })]),
    ]
  } catch (error) {
    throw new PylonError('runtime_failed', `The control group of ${runtimeId} cannot be made: ${messageOf(error)}`, { cause: error })
  }
}

/** Nothing in them forks from here on, and all of it ends where the kernel can do that at once. */
export function quellGroup(dirs: readonly string[]): void {
  for (const dir of dirs) {
    for (const [file, value] of [
      ['pids.max', '0'],
      ['cgroup.kill', '1'],
    ] as const) {
      try {
        if (existsSync(join(dir, file))) writeFileSync(join(dir, file), value)
      } catch {
        // A group that went meanwhile, or a kernel that lacks it: each process is killed all the same.
      }
    }
  }
}

/** Nothing may run in them any more; one that the system still holds is left to it. */
export async function removeGroup(dirs: readonly string[], clock: Clock): Promise<void> {
  for (const dir of dirs) {
    for (let attempt = 1; attempt <= REMOVE_ATTEMPTS && existsSync(dir); attempt++) {
      try {
        rmdirSync(dir)
      } catch {
        // What was killed just now is still being counted.
        await clock.sleep(REMOVE_PAUSE_MS)
      }
    }
  }
}

/** argv that joins the group, then becomes the command. */
export function joinGroup(dirs: readonly string[], argv: readonly string[]): string[] {
  if (dirs.length === 0) return [...argv]
  const script = 'while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"'
  return ['/bin/sh', '-c', script, 'group', ...dirs, '--', ...argv]
}

/** Where this process may make no control groups. The kernel counts the processes of all users but root. */
export function withoutGroups(): Pick<AdapterProbe, 'isolated' | 'reason' | 'nextStep'> {
  const nextStep = 'Run the node as a systemd user service (docs/operations.md), or use Incus (docs/incus.md).'
  return process.getuid?.() === 0
    ? { isolated: false, reason: 'this node runs as root and may make no control groups: nothing bounds how many processes fork', nextStep }
    : { isolated: true, reason: 'each process of a runtime is bounded, but not their memory together (no control groups)', nextStep }
}
