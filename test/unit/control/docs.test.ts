/** The generated documents are what the source says. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'

test('docs/control-api.md and docs/errors.md are up to date (npm run docs)', () => {
  const script = join(import.meta.dirname, '..', '..', '..', 'scripts', 'generate-docs.mjs')
  const { status, stderr } = spawnSync(process.execPath, [script, '--check'], { encoding: 'utf8', env: { PATH: process.env['PATH'] } })
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
})
