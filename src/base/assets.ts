/** Files that ship with the program: beside the bundle, or at the top of the source tree where it runs unbundled. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))

/** The path of a shipped file or folder such as `migrations`. */
export function assetPath(name: string): string {
  const beside = join(here, name)
  return existsSync(beside) ? beside : join(here, '..', '..', name)
}
