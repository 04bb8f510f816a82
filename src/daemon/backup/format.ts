/**
 * What a backup holds: inside the encryption a tar of the manifest and the files that it names with their digests. Unpacked
 * by hand it is the folder that earlier versions wrote (format 1, without digests), and `restore` reads that too.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { z } from 'zod'

export const MANIFEST = 'pylon-backup.json'
export const MAX_MANIFEST_BYTES = 65_536

/** By what they are, in the order in which they are written. */
export const BACKUP_FILES = { identity: 'identity.json', config: 'config.toml', database: 'pylon.db' } as const

const part = z.object({
  name: z.enum([BACKUP_FILES.identity, BACKUP_FILES.config, BACKUP_FILES.database]),
  bytes: z.int().min(0),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
})

const common = { version: z.string(), network: z.enum(['sandbox', 'live']), created_at: z.string() }

export const manifestSchema = z.discriminatedUnion('format', [
  z.object({ format: z.literal(1), ...common }),
  z.object({ format: z.literal(2), ...common, parts: z.array(part).max(3) }),
])

export type Manifest = z.infer<typeof manifestSchema>
export type WholeManifest = Extract<Manifest, { format: 2 }>
export type BackupPart = z.infer<typeof part>

/** SHA-256 in hex, read a little at a time. */
export async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
  return hash.digest('hex')
}
