/** Custom volumes and their snapshots: what a managed agent keeps when its instance goes. */
import { z } from 'zod'
import { isPylonError } from '../../base/errors.ts'
import type { Snapshot } from '../adapter.ts'
import { type IncusClient, orAbsent } from './client.ts'
import { parse } from './instances.ts'

export interface Volume {
  readonly pool: string
  readonly name: string
  /** Cluster member that holds it. */
  readonly target?: string
}

const base = (pool: string) => `/1.0/storage-pools/${encodeURIComponent(pool)}/volumes/custom`
const path = (volume: Volume) => `${base(volume.pool)}/${encodeURIComponent(volume.name)}`
const query = (volume: Volume) => ({ target: volume.target })

const snapshotShape = z.looseObject({ name: z.string(), created_at: z.string().default('') })
const volumeShape = z.looseObject({
  name: z.string(),
  config: z.record(z.string(), z.string()).default({}),
  used_by: z.array(z.string()).default([]),
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

export async function getVolume(incus: IncusClient, volume: Volume): Promise<VolumeState | undefined> {
  const answer = await orAbsent(incus.call('GET', path(volume), { query: query(volume) }))
  return answer === undefined ? undefined : parse(volumeShape, answer.metadata, path(volume))
}

/** None where there is no such pool. */
export async function listVolumes(incus: IncusClient, pool: string): Promise<readonly VolumeState[]> {
  const answer = await orAbsent(incus.call('GET', base(pool), { query: { recursion: '1' } }))
  if (answer === undefined) return []
  // Snapshots are listed among them, as `volume/snapshot`.
  return parse(z.array(volumeShape), answer.metadata, base(pool)).filter(({ name }) => !name.includes('/'))
}

/** Gone is fine. @throws incus_conflict while an instance uses it */
export async function deleteVolume(incus: IncusClient, volume: Volume): Promise<'deleted' | 'absent'> {
  return (await orAbsent(incus.run('DELETE', path(volume), { query: query(volume) }).then(() => 'deleted' as const))) ?? 'absent'
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

/** The instance that uses it must be stopped. */
export async function restoreVolume(incus: IncusClient, volume: Volume, snapshot: string): Promise<void> {
  await incus.run('PUT', path(volume), { query: query(volume), body: { restore: snapshot }, timeoutMs: 600_000 })
}

/** Adds to the labels; a volume that is gone has none. */
export async function labelVolume(incus: IncusClient, volume: Volume, config: Readonly<Record<string, string>>): Promise<void> {
  await orAbsent(incus.run('PATCH', path(volume), { query: query(volume), body: { config } }))
}
