/** Short commands are quick: what a client command imports statically holds no part of the node. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const src = join(dirname(fileURLToPath(import.meta.url)), '../../../src')
/** Type-only imports vanish. */
const STATIC = /^(?:import|export) (?!type )(?:[^'"]*? from )?'(\.[^']+)'/gm

/** Files reachable by static imports, below src/. */
function reachable(entry: string, seen = new Set<string>()): Set<string> {
  if (seen.has(entry)) return seen
  seen.add(entry)
  for (const [, path] of readFileSync(entry, 'utf8').matchAll(STATIC)) if (path !== undefined) reachable(join(dirname(entry), path), seen)
  return seen
}

const commands = readdirSync(join(src, 'cli'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'))

test.each(commands)('cli/%s loads no database, no keys and no daemon', (name) => {
  const files = [...reachable(join(src, 'cli', name))].map((path) => relative(src, path))
  expect(files.filter((path) => !/^(?:cli|control|base)\//.test(path) && path !== 'daemon/launch/self-command.ts')).toEqual([])
})

test('the entry loads only what it needs for every role', () => {
  const files = [...reachable(join(src, 'main.ts'))].map((path) => relative(src, path))
  expect(files.filter((path) => !path.startsWith('base/') && path !== 'main.ts')).toEqual([])
})
