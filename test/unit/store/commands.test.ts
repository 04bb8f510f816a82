/** Every write of the store has a name of its own: what one module alone would not show. */
import { readdirSync } from 'node:fs'
import { expect, test } from 'vitest'

test('all modules of the store load together', async () => {
  const names = readdirSync(new URL('../../../src/store/', import.meta.url), { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  )
  expect(names.length).toBeGreaterThan(20)
  await Promise.all(names.map((name) => import(new URL(`../../../src/store/${name}`, import.meta.url).href)))
})
