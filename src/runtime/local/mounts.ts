/** From the mounts of a spec to folders of this host: volumes by name, snapshots only from places that the owner lists. */
import { existsSync, lstatSync, mkdirSync, realpathSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { PylonError } from '../../base/errors.ts'
import { isUnder, normalPath } from '../contract/paths.ts'
import type { RuntimeMount, RuntimeSpec } from '../contract/spec.ts'
import type { Binding } from './enclosure.ts'
import type { LocalVolumes } from './local-volumes.ts'
import type { LocalLayout } from './record.ts'

const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/

/** Folders that hold what artifact_output mounts receive: `<dir>/outputs/<source>`. */
export function outputsDir(layout: LocalLayout): string {
  return join(layout.dir, 'outputs')
}

/** Volume names of the mounts that outlive the runtime. */
export function volumesOf(spec: RuntimeSpec): string[] {
  return spec.mounts.filter((mount) => mount.kind === 'persistent_volume').map((mount) => mount.source)
}

/** Makes what has to be there. @throws spec_mount_refused */
export function bindMounts(
  spec: RuntimeSpec,
  owner: string,
  layout: LocalLayout,
  volumes: LocalVolumes,
  snapshotRoots: readonly string[],
): Binding[] {
  return spec.mounts.flatMap((mount) => {
    const hostPath = sourceOf(mount, owner, layout, volumes, snapshotRoots)
    if (hostPath === undefined) return []
    return [
      { hostPath, guestPath: normalPath(mount.guest_path), readOnly: mount.kind === 'read_only_snapshot' || mount.mode === 'read_only' },
    ]
  })
}

function sourceOf(
  mount: RuntimeMount,
  owner: string,
  layout: LocalLayout,
  volumes: LocalVolumes,
  snapshotRoots: readonly string[],
): string | undefined {
  switch (mount.kind) {
    case 'persistent_volume':
    case 'cache':
      return volumes.ensure(mount.source, owner)
    case 'artifact_output': {
      if (!NAME.test(mount.source)) throw refused(mount, 'is no name (1 to 63 of a-z, 0-9, dot, - and _)')
      const dir = join(outputsDir(layout), mount.source)
      mkdirSync(dir, { recursive: true, mode: 0o700 })
      return dir
    }
    case 'read_only_snapshot':
      return snapshotOf(mount, snapshotRoots)
  }
}

function snapshotOf(mount: RuntimeMount, roots: readonly string[]): string | undefined {
  if (!existsSync(mount.source)) {
    if (mount.required) throw refused(mount, 'does not exist')
    return undefined
  }
  const real = realpathSync(mount.source)
  const allowed = roots.filter((root) => existsSync(root)).map((root) => realpathSync(root))
  if (!allowed.some((root) => real === root || isUnder(real, root)))
    throw refused(mount, 'is in no folder that the owner lends to runtimes')
  return real
}

function refused(mount: RuntimeMount, why: string): PylonError {
  return new PylonError('spec_mount_refused', `The mount source ${JSON.stringify(mount.source)} for ${mount.guest_path} ${why}.`, {
    details: { guest_path: mount.guest_path },
  })
}

/**
 * Without a mount namespace a guest finds its mounts below $PYLON_ROOT, as links.
 * @returns that root @throws spec_mount_refused for what only a namespace can give: read-only, or one mount inside another
 */
export function linkMounts(layout: LocalLayout, bindings: readonly Binding[]): string {
  const root = join(layout.dir, 'root')
  mkdirSync(root, { recursive: true, mode: 0o700 })
  for (const { guestPath, hostPath, readOnly } of bindings) {
    const nested = bindings.some((other) => isUnder(guestPath, other.guestPath))
    if (readOnly || nested) {
      throw new PylonError(
        'spec_mount_refused',
        `The mount at ${guestPath} needs bubblewrap (${readOnly ? 'it is read-only' : 'it lies in another'}); install it.`,
      )
    }
    const link = join(root, guestPath)
    mkdirSync(dirname(link), { recursive: true, mode: 0o700 })
    if (lstatSync(link, { throwIfNoEntry: false }) === undefined) symlinkSync(hostPath, link)
  }
  return root
}
