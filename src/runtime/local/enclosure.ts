/** The command line around a guest: resource limits by the shell, isolation by bubblewrap where there is any. Pure. */
import { DOOR_DIR, LAUNCH_FILE } from '../contract/paths.ts'
import type { RuntimeSpec } from '../contract/spec.ts'
import type { LocalLayout } from './record.ts'

/** Where the guest's working directory lies when it is isolated. */
export const WORKSPACE = '/workspace'
const BOOT = '/run/pylon-boot'
/** Inside, by a user who owns nothing else. */
const INNER_UID = 1000

/** Of a runtime whose spec names none. */
export const DEFAULT_RESOURCES = { vcpus: 1, memoryMib: 1024, diskGib: 2 } as const
export const MAX_PROCESSES = 512
const MAX_OPEN_FILES = 1024

export interface Binding {
  readonly hostPath: string
  readonly guestPath: string
  readonly readOnly: boolean
}

export interface Enclosed {
  readonly layout: LocalLayout
  readonly spec: RuntimeSpec
  readonly bindings: readonly Binding[]
  readonly network: 'none' | 'host'
  /** A folder of the host with the socket of the door to relays. */
  readonly doorDir: string | undefined
  /** The program that is the guest, with what it needs to read. */
  readonly guest: GuestProgram
  readonly cpuSeconds: number | null
  /** Whether a control group holds its processes together. */
  readonly isGrouped: boolean
}

export interface GuestProgram {
  readonly command: string
  /** Up to and with `guest`. */
  readonly args: readonly string[]
  /** Absolute paths that the program must be able to read: itself, its bundle. Never the home. */
  readonly readOnlyPaths: readonly string[]
}

/** What the system of the host lends to a guest, where it has it. Of /etc only what names no secret. */
const SYSTEM_PATHS = ['/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32', '/opt/pylon', '/nix/store'] as const
const ETC_PATHS = [
  'alternatives',
  'ld.so.cache',
  'ld.so.conf',
  'ld.so.conf.d',
  'ssl/certs',
  'ca-certificates',
  'pki',
  'localtime',
  'mime.types',
  'protocols',
  'services',
] as const
const NETWORK_ETC = ['resolv.conf', 'hosts', 'nsswitch.conf'] as const

/** argv for bubblewrap, followed by the command that it runs inside. @param options more of its own, before ours */
export function bubblewrapArgs(enclosed: Enclosed, inner: readonly string[], options: readonly string[] = []): string[] {
  const { layout, network } = enclosed
  const memory = String((memoryMibOf(enclosed.spec) / 4) * 1024 ** 2)
  const tryRead = (path: string) => ['--ro-bind-try', path, path]
  const etc = network === 'host' ? [...ETC_PATHS, ...NETWORK_ETC] : ETC_PATHS
  return [
    ...options,
    '--unshare-user',
    '--unshare-pid',
    '--unshare-ipc',
    '--unshare-uts',
    '--unshare-cgroup-try',
    ...(network === 'none' ? ['--unshare-net'] : []),
    ...['--uid', String(INNER_UID), '--gid', String(INNER_UID), '--hostname', 'runtime'],
    '--new-session',
    ...['--cap-drop', 'ALL'],
    ...SYSTEM_PATHS.flatMap(tryRead),
    ...etc.flatMap((name) => tryRead(`/etc/${name}`)),
    ...['--ro-bind', `${layout.boot}/passwd`, '/etc/passwd', '--ro-bind', `${layout.boot}/group`, '/etc/group'],
    ...['--proc', '/proc', '--dev', '/dev'],
    // What lies in memory is bounded by it, and nothing else of the kind can be written to.
    ...['--size', memory, '--tmpfs', '/dev/shm', '--remount-ro', '/dev'],
    ...['--size', memory, '--tmpfs', '/tmp'],
    ...enclosed.guest.readOnlyPaths.flatMap((path) => ['--ro-bind', path, path]),
    ...['--ro-bind', layout.boot, BOOT],
    ...(enclosed.doorDir === undefined ? [] : ['--ro-bind', enclosed.doorDir, DOOR_DIR]),
    ...['--bind', layout.state, enclosed.spec.paths.state_dir],
    ...['--bind', layout.work, WORKSPACE],
    ...enclosed.bindings.flatMap((b) => [b.readOnly ? '--ro-bind' : '--bind', b.hostPath, b.guestPath]),
    ...['--remount-ro', '/'],
    ...['--setenv', 'HOME', WORKSPACE, '--setenv', 'TMPDIR', '/tmp', '--setenv', 'PYLON_ROOT', ''],
    ...['--chdir', WORKSPACE],
    '--',
    ...inner,
  ]
}

/** What runs inside: the parent that leaves a result if the guest can't, and the guest under the limits. */
export function guestCommand(enclosed: Enclosed, isolated: boolean): string[] {
  const { layout, guest } = enclosed
  const boot = isolated ? BOOT : layout.boot
  const state = isolated ? enclosed.spec.paths.state_dir : layout.state
  return [
    'sh',
    '-c',
    `${limits(enclosed, isolated)} exec "$@"`,
    'limits',
    ...['sh', `${boot}/guest.sh`, '--supervise', '--state-dir', state, '--'],
    ...[guest.command, ...guest.args, '--spec', `${boot}/${LAUNCH_FILE}`, '--state-dir', state],
  ]
}

/** A command beside the guest, in a sandbox of its own over the same files. */
export function execCommand(enclosed: Enclosed, isolated: boolean, command: string): string[] {
  return ['sh', '-c', `${limits(enclosed, isolated)} exec "$@"`, 'limits', 'sh', '-c', command]
}

/** Data that a JavaScript runtime maps and never touches. */
const UNTOUCHED_MIB = 1024

/**
 * Limits of each process: file size, CPU time, open files, no core, and data (anonymous memory) where no group counts what
 * is really in use. The number of processes is counted per user, so only a user namespace of its own makes it fair, and
 * the kernel does not count those of root. When memory runs out, the machine ends a guest before anything else.
 */
function limits(enclosed: Enclosed, isolated: boolean): string {
  const fileBlocks = Math.floor(sizeOf(enclosed.spec) / 512)
  const data = enclosed.isGrouped ? '' : `ulimit -d ${(memoryMibOf(enclosed.spec) + UNTOUCHED_MIB) * 1024};`
  const cpu = enclosed.cpuSeconds === null ? '' : `ulimit -t ${enclosed.cpuSeconds};`
  // dash calls the number of processes -p, the others -u.
  const processes = isolated ? `ulimit -u ${MAX_PROCESSES} 2>/dev/null || ulimit -p ${MAX_PROCESSES} 2>/dev/null;` : ''
  const victim = 'echo 1000 2>/dev/null >/proc/self/oom_score_adj;'
  return `${victim} ulimit -c 0; ${data} ulimit -f ${fileBlocks}; ulimit -n ${MAX_OPEN_FILES}; ${processes} ${cpu}`
}

/** What a spec asks for, or the default. */
export function memoryMibOf(spec: RuntimeSpec): number {
  return spec.resources.memory_mib ?? DEFAULT_RESOURCES.memoryMib
}

/** Bytes that a runtime may take on disk. */
export function sizeOf(spec: RuntimeSpec): number {
  return (spec.resources.root_disk_gib ?? DEFAULT_RESOURCES.diskGib) * 1024 ** 3
}

export const PASSWD = `root:x:0:0:root:/:/bin/sh\nrunner:x:${INNER_UID}:${INNER_UID}:runner:${WORKSPACE}:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n`
export const GROUP = `root:x:0:\nrunner:x:${INNER_UID}:\nnogroup:x:65534:\n`
