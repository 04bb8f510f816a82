/** The small POSIX shell guest that ships with the program. */
import { existsSync, readFileSync } from 'node:fs'
import { assetPath } from '../base/assets.ts'

/** Its text: beside the bundle, or in the source tree. A caller writes it where the runtime can read it. */
export function guestScript(): string {
  const beside = assetPath('guest.sh')
  return readFileSync(existsSync(beside) ? beside : assetPath('src/guest/guest.sh'), 'utf8')
}
