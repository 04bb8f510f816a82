/** Files that ship with the program: beside the bundle, or at the top of the source tree where it runs unbundled. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { messageOf, PylonError } from './errors.ts'

const here = dirname(fileURLToPath(import.meta.url))

/** The path of a shipped file or folder such as `migrations`. */
export function assetPath(name: string): string {
  const beside = join(here, name)
  return existsSync(beside) ? beside : join(here, '..', '..', name)
}

/** Where the single executable unpacks its native code before it loads it: `<cache>/pkg/<sha256>/`. */
const UNPACKED = /^(.*)[\\/]pkg[\\/][0-9a-f]{64}(?:[\\/]|$)/

/** Clear words when that folder cannot be written; undefined for any other error. */
export function addonError(error: unknown): PylonError | undefined {
  const { path, dest } = error as { path?: unknown; dest?: unknown }
  const folder = [dest, path].map((one) => (typeof one === 'string' ? UNPACKED.exec(one)?.[1] : undefined)).find((one) => one !== undefined)
  if (folder === undefined) return undefined
  return new PylonError(
    'home_unusable',
    `Pylon cannot unpack its native code below ${folder} (${messageOf(error)}): set PKG_NATIVE_CACHE_PATH to a folder that you may write to.`,
    { cause: error },
  )
}
