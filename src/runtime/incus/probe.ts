/** Whether Incus is usable as it is configured, and what to do where it is not: doctor prints it. */
import { z } from 'zod'
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { AdapterProbe } from '../adapter.ts'
import { type IncusClient, orAbsent } from './client.ts'
import { findImage } from './images.ts'
import { parse } from './instances.ts'
import type { IncusSettings } from './settings.ts'

const serverShape = z.looseObject({ auth: z.string().default('untrusted') })
const deviceShape = z.looseObject({ devices: z.record(z.string(), z.record(z.string(), z.string())).default({}) })
const poolShape = z.looseObject({ driver: z.string() })
/** Pools whose driver holds sizes. */
const QUOTA_DRIVERS = ['btrfs', 'zfs', 'lvm', 'lvmcluster', 'ceph', 'cephfs', 'linstor', 'truenas']

const unusable = (reason: string, nextStep: string): AdapterProbe => ({ usable: false, isolated: true, reason, nextStep })

/** Never throws. */
export async function probeIncus(incus: IncusClient, settings: IncusSettings): Promise<AdapterProbe> {
  try {
    const server = parse(serverShape, (await incus.call('GET', '/1.0')).metadata, '/1.0')
    if (server.auth !== 'trusted') {
      return unusable(
        `Incus at ${incus.endpointName} does not trust our certificate.`,
        'Add it with: incus config trust add-certificate (docs/incus.md).',
      )
    }
    const project = await orAbsent(incus.call('GET', `/1.0/projects/${settings.project}`))
    if (project === undefined) return unusable(`Incus has no project ${settings.project}.`, 'Make it as docs/incus.md shows.')
    const profile = await orAbsent(incus.call('GET', `/1.0/profiles/${settings.profile}`))
    if (profile === undefined)
      return unusable(`The project ${settings.project} has no profile ${settings.profile}.`, 'Make it as docs/incus.md shows.')
    parse(deviceShape, profile.metadata, settings.profile)
    const missing: string[] = []
    for (const alias of new Set([settings.images.managed, settings.images.oneShot])) {
      if ((await findImage(incus, alias)) === undefined) missing.push(alias)
    }
    if (missing.length > 0)
      return unusable(`Incus has no image ${missing.join(' and no image ')}.`, 'Make it with: pylon runtime image build.')
    return await withQuotaWarning(incus, settings)
  } catch (error) {
    const next = isPylonError(error, 'incus_unreachable')
      ? 'Install and start Incus: docs/incus.md has the commands.'
      : 'docs/incus.md says what Pylon needs.'
    return unusable(messageOf(error), next)
  }
}

/** Usable either way: a pool that enforces no sizes lets one guest fill the disk of all. */
async function withQuotaWarning(incus: IncusClient, settings: IncusSettings): Promise<AdapterProbe> {
  const usable = { usable: true, isolated: true }
  try {
    const { driver } = parse(poolShape, (await incus.call('GET', `/1.0/storage-pools/${settings.pool}`)).metadata, settings.pool)
    if (QUOTA_DRIVERS.includes(driver)) return usable
    return {
      ...usable,
      reason: `The pool ${settings.pool} is of the driver ${driver}, which enforces no sizes: one guest can fill the disk.`,
      nextStep: 'Make a pool that does, such as btrfs on a loop file: docs/incus.md.',
    }
  } catch {
    // A restricted certificate may not see pools.
    return usable
  }
}
