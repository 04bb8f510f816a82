/** Images by alias: looked up, imported from one tar file, removed. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { type IncusClient, orAbsent } from './client.ts'
import { parse } from './instances.ts'

const aliasShape = z.looseObject({ target: z.string() })
const imageShape = z.looseObject({
  fingerprint: z.string(),
  properties: z.record(z.string(), z.string()).default({}),
})

export type Image = Readonly<z.output<typeof imageShape>>

/** The image behind an alias; undefined where there is none. */
export async function findImage(incus: IncusClient, alias: string): Promise<Image | undefined> {
  const path = `/1.0/images/aliases/${encodeURIComponent(alias)}`
  const found = await orAbsent(incus.call('GET', path))
  if (found === undefined) return undefined
  const { target } = parse(aliasShape, found.metadata, path)
  const image = await orAbsent(incus.call('GET', `/1.0/images/${target}`))
  return image === undefined ? undefined : parse(imageShape, image.metadata, `/1.0/images/${target}`)
}

/** Imports a unified tarball and moves the alias to it; the image that had the alias before goes. Returns the fingerprint. */
export async function importImage(incus: IncusClient, alias: string, tarball: Uint8Array): Promise<string> {
  const before = await findImage(incus, alias)
  const op = await importTarball(incus, tarball)
  const fingerprint = op ?? before?.fingerprint
  if (fingerprint === undefined) throw new PylonError('incus_failed', `The image ${alias} was imported and Incus did not say which it is.`)
  const path = `/1.0/images/aliases/${encodeURIComponent(alias)}`
  if (before === undefined) await incus.run('POST', '/1.0/images/aliases', { body: { name: alias, target: fingerprint } })
  else if (before.fingerprint !== fingerprint) {
    await incus.run('PUT', path, { body: { target: fingerprint } })
    await orAbsent(incus.run('DELETE', `/1.0/images/${before.fingerprint}`))
  }
  return fingerprint
}

/** The fingerprint; undefined when the very same image is there already. */
async function importTarball(incus: IncusClient, tarball: Uint8Array): Promise<string | undefined> {
  try {
    const op = await incus.run('POST', '/1.0/images', { bytes: tarball, timeoutMs: 600_000, waitMs: 600_000 })
    const fingerprint = op?.metadata?.['fingerprint']
    return typeof fingerprint === 'string' ? fingerprint : undefined
  } catch (error) {
    const known = /fingerprint/i.test(String((error as Error).message)) && (error as PylonError).code === 'incus_conflict'
    if (known) return undefined
    throw error
  }
}
