/** Makes what Pylon needs in Incus and is not there yet: its project, with restrictions that hold whatever Pylon does, and its profile. */
import { PylonError } from '../../base/errors.ts'
import { type IncusClient, orAbsent } from './client.ts'

/** What an owner does where the pool is not there. */
export const POOL_STEP =
  'make it with: incus storage create pylon btrfs size=50GiB, or name one that you have: pylon config set runtimes.incus.pool NAME'

export interface SetupOptions {
  readonly pool: string
  readonly profile: string
  /** Host paths that instances may mount read-only, such as /opt/pylon. */
  readonly hostPaths: readonly string[]
  /** A managed network, where instances are to have one. */
  readonly network?: string
}

/** The project as docs/incus.md describes it: unprivileged containers without nesting, low-level keys, host devices or foreign paths. */
function projectConfig(options: SetupOptions): Record<string, string> {
  return {
    'features.images': 'false',
    'features.profiles': 'true',
    'features.storage.volumes': 'true',
    'features.storage.buckets': 'false',
    'features.networks': 'false',
    'features.networks.zones': 'false',
    restricted: 'true',
    'restricted.containers.nesting': 'block',
    'restricted.containers.privilege': 'unprivileged',
    'restricted.containers.lowlevel': 'block',
    'restricted.containers.interception': 'block',
    'restricted.virtual-machines.lowlevel': 'block',
    'restricted.devices.disk': 'allow',
    ...(options.hostPaths.length === 0 ? {} : { 'restricted.devices.disk.paths': options.hostPaths.join(',') }),
    'restricted.devices.nic': options.network === undefined ? 'block' : 'managed',
    ...(options.network === undefined ? {} : { 'restricted.networks.access': options.network }),
    'restricted.devices.proxy': 'allow',
    'restricted.backups': 'block',
    'restricted.snapshots': 'allow',
    'restricted.cluster.target': 'allow',
    'limits.virtual-machines': '0',
  }
}

/**
 * What was made; what is there already stays as it is. Needs a client that may make projects (the Unix socket).
 * @throws incus_not_found where the pool is not there: whether it takes a partition or a file is the owner's to say
 */
export async function setUpIncus(incus: IncusClient, options: SetupOptions): Promise<{ readonly created: readonly string[] }> {
  const pool = await orAbsent(
    incus.call('GET', `/1.0/storage-pools/${encodeURIComponent(options.pool)}`, { query: { project: undefined } }),
  )
  if (pool === undefined) throw new PylonError('incus_not_found', `Incus has no storage pool ${options.pool}: ${POOL_STEP}`)
  const created: string[] = []
  const projectPath = `/1.0/projects/${encodeURIComponent(incus.project)}`
  if ((await orAbsent(incus.call('GET', projectPath, { query: { project: undefined } }))) === undefined) {
    const body = { name: incus.project, description: 'Runtimes of Pylon', config: projectConfig(options) }
    await incus.call('POST', '/1.0/projects', { query: { project: undefined }, body })
    created.push(`project ${incus.project}`)
  }
  const profilePath = `/1.0/profiles/${encodeURIComponent(options.profile)}`
  const profile = await orAbsent(incus.call('GET', profilePath))
  const devices = (profile?.metadata as { devices?: Record<string, unknown> } | undefined)?.devices ?? {}
  // A new project comes with an empty default profile.
  const body = {
    description: 'What every runtime of Pylon has',
    config: {},
    devices: { root: { type: 'disk', path: '/', pool: options.pool } },
  }
  if (profile === undefined) await incus.call('POST', '/1.0/profiles', { body: { name: options.profile, ...body } })
  else if (devices['root'] === undefined)
    await incus.call('PUT', profilePath, { body: { ...body, devices: { ...devices, ...body.devices } } })
  else return { created }
  created.push(`profile ${options.profile}`)
  return { created }
}
