// Builds dist/: written beside and swapped in whole, so that a build next to a running test or node never shows half.
import { existsSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bundle } from './bundle.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const dist = join(root, 'dist')
const fresh = mkdtempSync(join(root, '.dist-'))
const old = `${fresh}.old`
try {
  await bundle(fresh)
  if (existsSync(dist)) renameSync(dist, old)
  renameSync(fresh, dist)
} catch (error) {
  // Another build that ran at the same time has swapped its own in between: that one is as fresh as this one.
  if (error.code !== 'ENOTEMPTY' && error.code !== 'ENOENT') {
    process.stderr.write(`build: ${error.message}\n`)
    process.exitCode = 1
  }
} finally {
  rmSync(old, { recursive: true, force: true })
  rmSync(fresh, { recursive: true, force: true })
}
