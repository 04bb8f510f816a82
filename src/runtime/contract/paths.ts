/** Where a runtime keeps its contract files: the canonical names of the wire, and containment judged by path components. */

/** The root of the contract files inside a guest. */
export const STATE_DIR = '/run/pika-cloud'
/** The Unix socket, in the state directory, that a guest serves prompts on. */
export const PROMPT_SOCKET = 'prompt.sock'
/** The socket of the door to relays, in the folder DOOR_DIR of a guest. */
export const DOOR_SOCKET = 'relay.sock'
export const DOOR_DIR = '/run/pylon-door'
/** Welcomes that the host hands over beside the relays: a file each, in the folder of the door or in the state directory. */
export const WELCOMES_DIR = 'welcomes'
/** In the state directory: the names of those that the guest has dealt with, as a list. */
export const WELCOMES_DONE = 'welcomes-done.json'
/** What the host tells a full guest at start (GuestLaunch); holds the ticket key, so it is a private file. */
export const LAUNCH_FILE = 'launch.json'
/** In logs_dir, beside guest.log: what the entry command itself wrote. */
export const STDOUT_LOG = 'stdout.log'
export const STDERR_LOG = 'stderr.log'

export type RuntimePaths = Readonly<ReturnType<typeof pathsUnder>>

/** The canonical layout below a state directory. */
export function pathsUnder(stateDir: string) {
  return {
    state_dir: stateDir,
    events_path: `${stateDir}/events.jsonl`,
    status_path: `${stateDir}/status.json`,
    result_path: `${stateDir}/result.json`,
    guest_request_path: `${stateDir}/guest-request.json`,
    logs_dir: `${stateDir}/logs`,
    guest_log_path: `${stateDir}/logs/guest.log`,
    artifacts_dir: `${stateDir}/artifacts`,
  }
}

export const CANONICAL_PATHS: RuntimePaths = pathsUnder(STATE_DIR)

/** The components of a path: `/a//b/./c/` is a, b, c. Keeps `..`, which no caller accepts. */
export function componentsOf(path: string): readonly string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.')
}

/** One spelling for one place: `/a//b/` and `/a/./b` are `/a/b`. */
export function normalPath(path: string): string {
  return `/${componentsOf(path).join('/')}`
}

/** Why a path can't be used inside a guest, or undefined: the reasons are wire vocabulary. */
export function pathProblem(path: string): string | undefined {
  if (!path.startsWith('/')) return 'must be absolute'
  if (componentsOf(path).includes('..')) return 'must not contain parent traversal'
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused here.
  if (/[\u0000-\u001f\u007f]/.test(path)) return 'must not contain control characters'
  if (componentsOf(path).length === 0) return 'must not be the root'
  return undefined
}

/** Whether `path` lies strictly below `root`, judged by components: /run/pika-cloud-x is not below /run/pika-cloud. */
export function isUnder(path: string, root: string): boolean {
  const inner = componentsOf(path)
  const outer = componentsOf(root)
  if (inner.includes('..') || outer.includes('..')) return false
  return inner.length > outer.length && outer.every((part, i) => inner[i] === part)
}

/** `path` with its leading `from` replaced by `to`; unchanged where it is neither `from` nor below it. */
export function rebase(path: string, from: string, to: string): string {
  if (normalPath(path) === normalPath(from)) return to
  if (!isUnder(path, from)) return path
  return [to, ...componentsOf(path).slice(componentsOf(from).length)].join('/')
}
