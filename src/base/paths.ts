/** Where everything lives: one home, fixed names inside it. */
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { PylonError } from './errors.ts'

export interface Home {
  readonly dir: string
  readonly config: string
  readonly identity: string
  readonly database: string
  readonly pidFile: string
  readonly socket: string
  readonly lease: string
  readonly log: string
  readonly runtimes: string
  /** The home of the sandbox node that belongs to this one. */
  readonly sandbox: string
}

/** The longest path of a Unix socket, in bytes (sun_path less its NUL); Node truncates longer ones in silence. */
const MAX_SOCKET_PATH_BYTES = 107

export function homeAt(dir: string): Home {
  const root = resolve(dir)
  return {
    dir: root,
    config: join(root, 'config.toml'),
    identity: join(root, 'identity.json'),
    database: join(root, 'pylon.db'),
    pidFile: join(root, 'pylon.pid'),
    socket: join(root, 'control.sock'),
    lease: join(root, 'lease.db'),
    log: join(root, 'logs', 'pylon.log'),
    runtimes: join(root, 'runtimes'),
    sandbox: join(root, 'sandbox'),
  }
}

/** `$PYLON_HOME`, else `~/.pylon`. */
export function defaultHome(env: NodeJS.ProcessEnv): Home {
  return homeAt(env['PYLON_HOME'] || join(env['HOME'] || homedir(), '.pylon'))
}

export const isSocketPathUsable = (path: string): boolean => Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES

/** @throws home_unusable when the socket path would not fit. */
export function assertSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path)
  if (!isSocketPathUsable(path)) {
    throw new PylonError(
      'home_unusable',
      `The control socket path is ${bytes} bytes long and the system allows ${MAX_SOCKET_PATH_BYTES}: set PYLON_HOME to a shorter path (now ${path}).`,
    )
  }
}
