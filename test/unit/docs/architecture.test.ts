/** The page of the house names files that are there. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const root = new URL('../../../', import.meta.url)
const text = readFileSync(new URL('docs/architecture.md', root), 'utf8')
const src = readdirSync(new URL('src', root), { recursive: true, encoding: 'utf8' })
const named = [...new Set([...text.matchAll(/`([\w./-]+\.(?:ts|sql|grit))`/g)].map(([, path]) => path as string))]

test('it names many', () => expect(named.length).toBeGreaterThan(60))

test.each(named)('%s is there', (path) => {
  const isThere = existsSync(new URL(path, root)) || src.some((file) => file === path || file.endsWith(`/${path}`))
  expect(isThere).toBe(true)
})
