/** Custom volumes and their snapshots: what a managed agent keeps when its instance goes. */
import { z } from 'zod'
import { isPylonError, PylonError } from '../../base/errors.ts'
import type { Snapshot } from '../adapter.ts'
import { type IncusClient, orAbsent } from './client.ts'
import { orEmpty, parse } from './instances.ts'
import { type IncusHandle, LABEL_QUOTA, LABEL_SNAPSHOTS } from './names.ts'

export interface Volume {
  readonly pool: string
  readonly name: string
  /** Cluster member that holds it. */
  readonly target?: string | undefined
}

/** One of a runtime's. */
export const volumeOf = ({ pool, target }: IncusHandle, name: string): Volume => ({ pool, name, target })

const base = (pool: string) => `/1.0/storage-pools/${encodeURIComponent(pool)}/volumes/custom`
const path = (volume: Volume) => `${base(volume.pool)}/${encodeURIComponent(volume.name)}`
const query = (volume: Volume) => ({ target: volume.target })

const snapshotShape = z.looseObject({ name: z.string(), created_at: z.string().default('') })
const volumeShape = z.looseObject({
  name: z.string(),
  config: orEmpty(z.record(z.string(), z.string()), {}),
  used_by: orEmpty(z.array(z.string()), []),
  location: z.string().default('none'),
})

export type VolumeState = Readonly<z.output<typeof volumeShape>>

/** There already is fine. `security.shifted` lets containers with id maps of their own share what is in it. */
export async function ensureVolume(
  incus: IncusClient,
  volume: Volume,
  config: Readonly<Record<string, string>>,
): Promise<'created' | 'found'> {
  const body = { name: volume.name, type: 'custom', content_type: 'filesystem', config: { 'security.shifted': 'true', ...config } }
  try {
    await incus.run('POST', base(volume.pool), { query: query(volume), body })
    return 'created'
  } catch (error) {
    if (isPylonError(error, 'incus_conflict') && (await getVolume(incus, volume)) !== undefined) return 'found'
    throw error
  }
}

async function getVolume(incus: IncusClient, volume: Volume): Promise<VolumeState | undefined> {
  const answer = await orAbsent(incus.call('GET', path(volume), { query: query(volume) }))
  return answer === undefined ? undefined : parse(volumeShape, answer.metadata, path(volume))
}

/** None where there is no such pool. */
export async function listVolumes(incus: IncusClient, pool: string): Promise<readonly VolumeState[]> {
  const answer = await orAbsent(incus.call('GET', base(pool), { query: { recursion: '1' } }))
  if (answer === undefined) return []
  // Snapshots are listed among them, as `volume/snapshot`.
  const found = parse(z.array(z.unknown()), answer.metadata, base(pool)).flatMap((one) => volumeShape.safeParse(one).data ?? [])
  return found.filter(({ name }) => !name.includes('/'))
}

/** Gone is fine. @throws incus_conflict while an instance uses it */
export async function deleteVolume(incus: IncusClient, volume: Volume): Promise<void> {
  await orAbsent(incus.run('DELETE', path(volume), { query: query(volume) }))
}

/** @throws incus_conflict when the name is taken */
export async function snapshotVolume(incus: IncusClient, volume: Volume, name: string): Promise<void> {
  await incus.run('POST', `${path(volume)}/snapshots`, { query: query(volume), body: { name }, waitMs: 600_000 })
}

/** Newest first. @throws incus_not_found without the volume */
export async function listVolumeSnapshots(incus: IncusClient, volume: Volume): Promise<readonly Snapshot[]> {
  const { metadata } = await incus.call('GET', `${path(volume)}/snapshots`, { query: { ...query(volume), recursion: '1' } })
  return parse(z.array(snapshotShape), metadata, `${path(volume)}/snapshots`)
    .map((found) => ({ name: found.name.split('/').at(-1) ?? found.name, createdAt: Date.parse(found.created_at) || 0 }))
    .sort((a, b) => b.createdAt - a.createdAt || (a.name < b.name ? 1 : -1))
}

/** Gone is fine. */
export async function deleteVolumeSnapshot(incus: IncusClient, volume: Volume, name: string): Promise<void> {
  await orAbsent(incus.run('DELETE', `${path(volume)}/snapshots/${encodeURIComponent(name)}`, { query: query(volume) }))
}

/** The instance that uses it must be stopped. Its configuration of then would come back too: size and labels stay those of now. */
export async function restoreVolume(incus: IncusClient, volume: Volume, snapshot: string): Promise<void> {
  const config = (await getVolume(incus, volume))?.config ?? {}
  await incus.run('PUT', path(volume), { query: query(volume), body: { restore: snapshot }, timeoutMs: 600_000 })
  const now = Object.entries(config).filter(([key]) => key === 'size' || key.startsWith('user.pylon.'))
  await labelVolume(incus, volume, Object.fromEntries(now))
}

/** What the live volume may take now: its quota without what its snapshots hold. */
export async function resizeVolume(incus: IncusClient, volume: Volume, quotaMib: number, snapshotBytes = 0): Promise<void> {
  const size = `${quotaMib - Math.ceil(snapshotBytes / 2 ** 20)}MiB`
  const config = { size, [LABEL_SNAPSHOTS]: String(snapshotBytes) }
  await incus.run('PATCH', path(volume), { query: query(volume), body: { config } })
}

/** Bytes that it takes and no snapshot holds. @throws runtime_failed where the pool does not tell */
async function ownBytes(incus: IncusClient, volume: Volume): Promise<number> {
  const { metadata } = await incus.call('GET', `${path(volume)}/state`, { query: query(volume) })
  const used = stateShape.safeParse(metadata).data?.usage?.used
  if (used !== undefined) return used
  throw new PylonError(
    'runtime_failed',
    `The pool ${volume.pool} does not tell what ${volume.name} takes, so no snapshot of it can be counted.`,
  )
}

const stateShape = z.looseObject({ usage: z.looseObject({ used: z.number() }).nullish() })

/**
 * A snapshot that counts: live volume and snapshots together take no more than the quota. What a snapshot holds beyond those
 * before it is what was the volume's own; the live part may hold all of that again, so snapshots get half of the quota.
 * @throws overloaded where there is no room; as snapshotVolume does
 */
export async function snapshotWithinQuota(incus: IncusClient, volume: Volume, name: string): Promise<void> {
  const config = (await getVolume(incus, volume))?.config ?? {}
  const quotaMib = Number(config[LABEL_QUOTA])
  // One of before quotas has none.
  if (!(quotaMib > 0)) return await snapshotVolume(incus, volume, name)
  const before = Number(config[LABEL_SNAPSHOTS] ?? '0') || 0
  const after = before + (await ownBytes(incus, volume))
  if (after * 2 > quotaMib * 2 ** 20) {
    throw new PylonError(
      'overloaded',
      `Snapshots may hold half of the ${quotaMib} MiB of the volume, and this one would bring them to ${Math.ceil(after / 2 ** 20)} MiB.`,
    )
  }
  await resizeVolume(incus, volume, quotaMib, after)
  try {
    await snapshotVolume(incus, volume, name)
  } catch (error) {
    await resizeVolume(incus, volume, quotaMib, before)
    throw error
  }
}

/** Adds to the labels; a volume that is gone has none. */
export async function labelVolume(incus: IncusClient, volume: Volume, config: Readonly<Record<string, string>>): Promise<void> {
  await orAbsent(incus.run('PATCH', path(volume), { query: query(volume), body: { config } }))
}
