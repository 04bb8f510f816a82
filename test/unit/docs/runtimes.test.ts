/** docs/runtimes.md describes every field of a class with its default, and the pages about machines name no key that is not there. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { runtimesConfig } from '../../../src/base/config-runtimes.ts'

const read = (page: string) => readFileSync(new URL(`../../../docs/${page}`, import.meta.url), 'utf8')

/** As far as it is looked into here. */
const classSchema = z.object({
  properties: z.object({
    classes: z.object({
      items: z.object({ properties: z.record(z.string(), z.object({ default: z.json().optional() })), required: z.array(z.string()) }),
    }),
  }),
})

test('documents every field of a class with its default', () => {
  const schema = classSchema.parse(z.toJSONSchema(runtimesConfig, { io: 'input' }))
  const { properties, required } = schema.properties.classes.items
  const fields = Object.entries(properties).map(([name, field]) => {
    const byDefault = field.default === undefined ? (required.includes(name) ? 'required' : 'none') : `\`${JSON.stringify(field.default)}\``
    return [name, byDefault]
  })
  const [, section = ''] = read('runtimes.md').split('## Sell one')
  const rows = [...section.matchAll(/^\| `([a-z_]+)` \| ([^|]+) \|/gm)].map((match) => [match[1], match[2]?.trim()])
  expect(Object.fromEntries(rows)).toEqual(Object.fromEntries(fields))
})

test.each(['runtimes.md', 'control-plane.md', 'incus.md', 'security.md', 'operations.md'])('%s names only keys that there are', (page) => {
  const unknown = [...read(page).matchAll(/\bruntimes((?:\.[a-z_]+)+)\b/g)]
    .map((match) => match[1] ?? '')
    .filter((path) => path !== '.md' && valueAt(path.slice(1).split('.')) === undefined)
  expect(unknown).toEqual([])
})

function valueAt(path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (value, name) => (typeof value === 'object' && value !== null && name in value ? Reflect.get(value, name) : undefined),
    DEFAULT_CONFIG.runtimes,
  )
}
