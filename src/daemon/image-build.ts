/** Makes what Incus needs for runtimes of this node: project and profile, the guest program, one of the two images. */
import type { RuntimesConfig } from '../base/config-runtimes.ts'
import { createIncusClient } from '../runtime/incus/client.ts'
import { buildImage, type ImageKind } from '../runtime/incus/image.ts'
import { importImage } from '../runtime/incus/images.ts'
import { setUpIncus } from '../runtime/incus/setup.ts'
import { installGuest } from './guest-install.ts'
import { guestDirOf, incusSettings } from './substrates.ts'

export interface BuiltImage {
  readonly alias: string
  readonly fingerprint: string
  /** Where the guest program lies; null where the image needs none. */
  readonly guestDir: string | null
  /** What was made in Incus beside the image. */
  readonly created: readonly string[]
}

/** @throws runtime_unsupported (busybox-static or debootstrap are missing, or root), incus_*, home_unusable */
export async function buildIncusImage(
  config: RuntimesConfig,
  order: { readonly kind: ImageKind; readonly nodePubkey: string; readonly suite?: string; readonly mirror?: string },
): Promise<BuiltImage> {
  const settings = incusSettings(config, order.nodePubkey)
  const incus = createIncusClient({ endpoint: settings.endpoint, project: settings.project })
  try {
    const { pool, profile, network } = settings
    const hostPaths = [
      '/opt/pylon',
      ...(config.incus.guest_dir === '' ? [] : [config.incus.guest_dir]),
      ...(settings.allowedHostPaths ?? []),
    ]
    const { created } = await setUpIncus(incus, { pool, profile, hostPaths, ...(network === undefined ? {} : { network }) })
    // The guest program is not needed by runs in the small image, whose guest is a shell script.
    const guestDir = order.kind === 'debian' ? guestDirOf(config) : null
    if (guestDir !== null) installGuest(guestDir)
    const tarball = await buildImage(order.kind, {
      ...(order.suite === undefined ? {} : { suite: order.suite }),
      ...(order.mirror === undefined ? {} : { mirror: order.mirror }),
    })
    const alias = order.kind === 'debian' ? settings.images.managed : settings.images.oneShot
    return { alias, fingerprint: await importImage(incus, alias, tarball), guestDir, created }
  } finally {
    incus.close()
  }
}
