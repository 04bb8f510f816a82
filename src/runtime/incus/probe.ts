/** Whether Incus is usable as it is configured, and what to do where it is not: doctor prints it. */
import { existsSync } from 'node:fs'
import { z } from 'zod'
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { AdapterProbe } from '../adapter.ts'
import { type IncusClient, orAbsent } from './client.ts'
import { findImage } from './images.ts'
import { parse } from './instances.ts'
import type { IncusSettings } from './settings.ts'
import { POOL_STEP } from './setup.ts'

const serverShape = z.looseObject({ auth: z.string().default('untrusted') })
const poolShape = z.looseObject({ driver: z.string() })
/** Pools whose driver holds sizes. */
const QUOTA_DRIVERS = ['btrfs', 'zfs', 'lvm', 'lvmcluster', 'ceph', 'cephfs', 'linstor', 'truenas']

export const POOL_WITH_SIZES = 'Make a pool that does, such as btrfs on a loop file: docs/incus.md.'

const BUILD = 'pylon runtime image build'

const networkOf = ({ network }: IncusSettings) => (network === undefined ? 'none' : 'bridge')

const unusable = (reason: string, nextStep: string): AdapterProbe => ({ usable: false, isolated: true, reason, nextStep })

/** Never throws. */
export async function probeIncus(incus: IncusClient, settings: IncusSettings): Promise<AdapterProbe> {
  try {
    const server = parse(serverShape, (await incus.call('GET', '/1.0')).metadata, '/1.0')
    if (server.auth !== 'trusted') {
      return unusable(
        `Incus at ${incus.name} does not trust our certificate.`,
        'Add it with: incus config trust add-certificate (docs/incus.md).',
      )
    }
    const project = await orAbsent(incus.call('GET', `/1.0/projects/${settings.project}`))
    if (project === undefined) return unusable(`Incus has no project ${settings.project}.`, BUILD)
    const profile = await orAbsent(incus.call('GET', `/1.0/profiles/${settings.profile}`))
    if (profile === undefined) return unusable(`The project ${settings.project} has no profile ${settings.profile}.`, BUILD)
    const pool = await lookAtPool(incus, settings.pool)
    if (pool === 'absent') return unusable(`Incus has no storage pool ${settings.pool}.`, POOL_STEP)
    const { managed, oneShot } = settings.images
    const [forAgents, forRuns] = await Promise.all([findImage(incus, managed), findImage(incus, oneShot)])
    if (forAgents === undefined && forRuns === undefined) return unusable(`Incus has no image ${managed} and no image ${oneShot}.`, BUILD)
    const usable = { usable: true, isolated: true, network: networkOf(settings) } as const
    const noAgents = forAgents === undefined ? `Incus has no image ${managed}` : missingGuest(settings)
    if (noAgents !== undefined) return { ...usable, lacks: 'agents', reason: `Only runs work: ${noAgents}.`, nextStep: BUILD }
    if (forRuns === undefined)
      return { ...usable, lacks: 'runs', reason: `Runs must name an image: Incus has no image ${oneShot}.`, nextStep: `${BUILD} busybox` }
    if (pool !== 'no_quota') return usable
    return {
      ...usable,
      isolated: false,
      reason: `The pool ${settings.pool} enforces no sizes, and one guest could fill the disk: nothing is sold from it.`,
      nextStep: POOL_WITH_SIZES,
    }
  } catch (error) {
    const next = isPylonError(error, 'incus_unreachable')
      ? 'Install and start Incus: docs/incus.md has the commands.'
      : 'docs/incus.md says what Pylon needs.'
    return unusable(messageOf(error), next)
  }
}

/** The guest program is not there after an update of this node; on another machine it can't be seen. */
function missingGuest({ endpoint, guest }: IncusSettings): string | undefined {
  const isMissing = 'socketPath' in endpoint && !existsSync(guest.hostDir)
  return isMissing ? `the guest program of this version is not in ${guest.hostDir}` : undefined
}

/** A pool that enforces no sizes lets one guest fill the disk of all. */
async function lookAtPool(incus: IncusClient, name: string): Promise<'quota' | 'no_quota' | 'absent' | 'unseen'> {
  try {
    const found = await orAbsent(incus.call('GET', `/1.0/storage-pools/${encodeURIComponent(name)}`))
    if (found === undefined) return 'absent'
    return QUOTA_DRIVERS.includes(parse(poolShape, found.metadata, name).driver) ? 'quota' : 'no_quota'
  } catch {
    // A restricted certificate may not see pools.
    return 'unseen'
  }
}
