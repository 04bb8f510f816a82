/** Short temporary folders (socket paths are limited to 107 bytes), removed when the test ends. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

export const tempDir = (): string => removedLater(mkdtempSync(join(tmpdir(), 'py-')))

/** One on a disk whatever `TMPDIR` says: what a guest writes there does not count as its memory. */
export const diskDir = (): string => removedLater(mkdtempSync('/var/tmp/py-'))

function removedLater(dir: string): string {
  onTestFinished(() => rmSync(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 }))
  return dir
}
