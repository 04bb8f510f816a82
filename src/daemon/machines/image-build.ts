/** Makes what Incus needs for runtimes of this node: project and profile, the guest program, the images. */

import type { RuntimesConfig } from '../../base/config-runtimes.ts'
import { given } from '../../base/given.ts'
import type { Scope } from '../../base/scope.ts'
import { IncusClient } from '../../runtime/incus/client.ts'
import { buildImage, type ImageKind } from '../../runtime/incus/image.ts'
import { importImage } from '../../runtime/incus/images.ts'
import { setUpIncus } from '../../runtime/incus/setup.ts'
import { installGuest } from './guest-install.ts'
import { guestDirOf, incusSettings } from './substrates.ts'

export interface BuiltImages {
  readonly images: readonly { readonly alias: string; readonly fingerprint: string }[]
  /** Where the guest program lies; null where no image needs it. */
  readonly guestDir: string | null
  /** What was made in Incus beside the images. */
  readonly created: readonly string[]
}

/** @throws runtime_unsupported (busybox-static or debootstrap are missing, or root), incus_*, home_unusable */
export async function buildIncusImages(
  config: RuntimesConfig,
  order: { readonly kinds: readonly ImageKind[]; readonly nodePubkey: string; readonly suite?: string; readonly mirror?: string },
  scope: Scope,
): Promise<BuiltImages> {
  const settings = incusSettings(config, order.nodePubkey)
  const own = scope.child('incus')
  const incus = new IncusClient({ endpoint: settings.endpoint, project: settings.project, scope: own })
  try {
    const { pool, profile, network } = settings
    const hostPaths = [
      '/opt/pylon',
      ...(config.incus.guest_dir === '' ? [] : [config.incus.guest_dir]),
      ...(settings.allowedHostPaths ?? []),
    ]
    const { created } = await setUpIncus(incus, { pool, profile, hostPaths, ...given({ network }) })
    // The guest program is not needed by runs in the small image, whose guest is a shell script.
    const guestDir = order.kinds.includes('debian') ? guestDirOf(config) : null
    if (guestDir !== null) await installGuest(guestDir)
    const images: { alias: string; fingerprint: string }[] = []
    for (const kind of order.kinds) {
      const tarball = await buildImage(kind, order)
      const alias = kind === 'debian' ? settings.images.managed : settings.images.oneShot
      images.push({ alias, fingerprint: await importImage(incus, alias, tarball) })
    }
    return { images, guestDir, created }
  } finally {
    await own.close()
  }
}
