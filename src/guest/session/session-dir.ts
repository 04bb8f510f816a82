/** Where an agent keeps its key, its conversation and its own files: on the first volume that outlives the runtime, where there is one. */
import { join } from 'node:path'
import type { GuestLaunch } from '../../runtime/contract/launch.ts'

const FOLDER = '.pylon-session'

export interface SessionDir {
  readonly dir: string
  /** The home of the agent process, which should find again what it wrote; undefined where nothing outlives the runtime. */
  readonly home: string | undefined
}

/** @param root where mounts lie, in front of their paths */
export function sessionDirOf({ spec, session }: GuestLaunch, root: string): SessionDir {
  if (session?.state_dir !== undefined) return { dir: session.state_dir, home: undefined }
  const volume = spec.mounts.find(({ kind, mode }) => kind === 'persistent_volume' && mode === 'read_write')
  if (volume === undefined) return { dir: join(spec.paths.state_dir, 'session'), home: undefined }
  const path = `${root}${volume.guest_path}`
  return { dir: join(path, FOLDER), home: join(path, 'home') }
}
