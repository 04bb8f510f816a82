/** The files that a guest starts from, all below /etc/pylon and readable by its root alone: secrets travel here and nowhere else. */

import type { ProvisionInput } from '../adapter.ts'
import { GUEST_REQUEST_SCHEMA_VERSION } from '../contract/guest-request.ts'
import { type GuestLaunchInput, LAUNCH_SCHEMA_VERSION } from '../contract/launch.ts'
import { LAUNCH_FILE, PROMPT_SOCKET } from '../contract/paths.ts'
import { GUEST_CONFIG_DIR, GUEST_DOOR, type IncusHandle } from './names.ts'
import type { GuestSettings } from './settings.ts'

export interface LaunchFile {
  readonly path: string
  readonly mode: number
  readonly data: string
}

const DEFAULT_TIMEOUT_SECS = 3600
const at = (name: string) => `${GUEST_CONFIG_DIR}/${name}`

/** Where the host finds the ticket key of a full guest. */
export const LAUNCH_PATH = at(LAUNCH_FILE)

/** Runs the guest role inside, wherever the executable of this version lies. */
export const PROGRAM_PATH = at('program')

/** What init of the image waits for: a link to the script, made last. */
export const START_PATH = at('start')
export const BOOT_PATH = at('boot')

/** All of them must be there before `start` is linked to `boot`. */
export function launchFiles(
  input: ProvisionInput,
  handle: IncusHandle,
  guest: GuestSettings,
  { ticketKey, hasDoor }: { readonly ticketKey: string; readonly hasDoor: boolean },
): readonly LaunchFile[] {
  const start = { path: BOOT_PATH, mode: 0o700, data: startScript(handle, input) }
  if (handle.guest === 'full') {
    const launch: GuestLaunchInput = {
      schema_version: LAUNCH_SCHEMA_VERSION,
      spec: input.spec,
      protocol: input.protocol,
      ...(input.timeoutSecs === undefined ? {} : { timeout_secs: input.timeoutSecs }),
      ...sessionLaunch(input, hasDoor),
      ...(input.protocol === null ? {} : { prompt: { listen: { unix: PROMPT_SOCKET }, ticket_key: ticketKey } }),
      env: { ...input.env },
    }
    return [{ path: LAUNCH_PATH, mode: 0o600, data: JSON.stringify(launch) }, ...programFiles(guest), start]
  }
  const request = {
    schema_version: GUEST_REQUEST_SCHEMA_VERSION,
    command: input.spec.entry_command ?? '',
    timeout_secs: input.timeoutSecs ?? DEFAULT_TIMEOUT_SECS,
    run_as_root: true,
  }
  const env = Object.entries(input.env ?? {}).map(([name, value]) => `export ${name}=${quote(value)}\n`)
  return [
    { path: at('guest-request.json'), mode: 0o600, data: JSON.stringify(request) },
    ...(env.length === 0 ? [] : [{ path: at('env'), mode: 0o600, data: env.join('') }]),
    scriptFile(guest),
    start,
  ]
}

function sessionLaunch({ session, ownerPubkey }: ProvisionInput, hasDoor: boolean): Pick<GuestLaunchInput, 'session'> {
  if (session === undefined) return {}
  const { token, relays } = session
  return { session: { owner_pubkey: ownerPubkey, relays: [...relays], token, ...(hasDoor ? { door: { unix: GUEST_DOOR } } : {}) } }
}

const scriptFile = (guest: GuestSettings): LaunchFile => ({ path: at('guest.sh'), mode: 0o700, data: guest.shellScript })

/** What changes with the version of the node. */
export function programFiles(guest: GuestSettings): readonly LaunchFile[] {
  const program = `#!/bin/sh\nexec ${guest.command.map(quote).join(' ')} "$@"\n`
  return [scriptFile(guest), { path: PROGRAM_PATH, mode: 0o700, data: program }]
}

/** What init runs at every boot. A one-shot run that was begun is never begun again: its command may have had effects. */
function startScript(handle: IncusHandle, input: ProvisionInput): string {
  const { paths, policies } = input.spec
  const state = quote(paths.state_dir)
  const launchCopy = quote(`${paths.state_dir}/${LAUNCH_FILE}`)
  const run =
    handle.guest === 'full'
      ? [
          // The guest removes what it has read, and a boot needs it again.
          `(umask 077; cp ${LAUNCH_PATH} ${launchCopy})`,
          `exec sh ${at('guest.sh')} --supervise --state-dir ${state} -- sh ${PROGRAM_PATH} --spec ${launchCopy} >>${quote(`${paths.logs_dir}/start.log`)} 2>&1`,
        ]
      : [
          `cp ${at('guest-request.json')} ${quote(paths.guest_request_path)}`,
          `[ ! -e ${at('env')} ] || . ${at('env')}`,
          `exec sh ${at('guest.sh')} --request ${quote(paths.guest_request_path)} --state-dir ${state} --restart ${policies.restart_policy} >>${quote(`${paths.logs_dir}/start.log`)} 2>&1`,
        ]
  return [
    '#!/bin/sh',
    '# Written by Pylon at provision.',
    'umask 022',
    'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root',
    `export PYLON_RUNTIME_ID=${quote(handle.runtime_id)}`,
    'cd /root || cd /',
    ...networkUp(handle),
    `mkdir -p ${state} ${quote(paths.logs_dir)} ${quote(paths.artifacts_dir)}`,
    ...(input.protocol === null ? [onceOnly(paths.status_path, paths.result_path)] : []),
    ...run,
    '',
  ].join('\n')
}

/** The loopback, and the address that was chosen for it: images need no DHCP client. One that has set its nic up itself is left alone. */
function networkUp({ address, gateway }: IncusHandle): string[] {
  const ip = ['net() { ip "$@" 2>/dev/null || busybox ip "$@" 2>/dev/null; }', 'net link set lo up']
  const [router, prefix] = (gateway ?? '').split('/')
  if (address === undefined || router === undefined || prefix === undefined) return ip
  return [
    ...ip,
    "if ! net addr show dev eth0 | grep -q 'inet '; then",
    `  net addr add ${quote(`${address}/${prefix}`)} dev eth0`,
    '  net link set eth0 up',
    `  net route add default via ${quote(router)}`,
    `  [ -s /etc/resolv.conf ] || echo nameserver ${quote(router)} >/etc/resolv.conf`,
    'fi',
  ]
}

function onceOnly(statusPath: string, resultPath: string): string {
  const words = 'the instance was restarted before the run ended'
  return [
    `if ! mkdir ${at('begun')} 2>/dev/null; then`,
    `  [ -e ${quote(resultPath)} ] && exit 0`,
    '  now=$(date -u +%Y-%m-%dT%H:%M:%SZ) boot=$(cat /proc/sys/kernel/random/boot_id)',
    `  printf '{"schema_version":1,"status":"failed","finished_at":"%s","message":"${words}","details":{"failure_reason":"instance_restarted"}}\\n' "$now" >${quote(resultPath)}`,
    `  printf '{"schema_version":1,"state":"failed","updated_at":"%s","message":"${words}","boot_id":"%s"}\\n' "$now" "$boot" >${quote(statusPath)}`,
    '  exit 0',
    'fi',
  ].join('\n')
}

/** One word of a POSIX shell. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}
