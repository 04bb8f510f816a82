/** docs/configuration.md names every key of the configuration with its default, and no other. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'

/** Dotted keys with their defaults as TOML writes them; an empty table or list is a value. */
function leaves(value: object, prefix = ''): [string, string][] {
  return Object.entries(value).flatMap(([name, inner]: [string, unknown]): [string, string][] => {
    const key = prefix === '' ? name : `${prefix}.${name}`
    const isTable = typeof inner === 'object' && inner !== null && !Array.isArray(inner) && Object.keys(inner).length > 0
    return isTable ? leaves(inner as object, key) : [[key, JSON.stringify(inner)]]
  })
}

test('documents every key with its default', () => {
  const text = readFileSync(new URL('../../../docs/configuration.md', import.meta.url), 'utf8')
  const rows = [...text.matchAll(/^\| `([a-z0-9_.]+)` \| `([^`]+)` \|/gm)].map((match) => [match[1], match[2]])
  expect(Object.fromEntries(rows)).toEqual(Object.fromEntries(leaves(DEFAULT_CONFIG)))
})
