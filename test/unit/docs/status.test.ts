/** docs/status.md names every field of `pylon status --json`, and no field that is none. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { nodeRoutes } from '../../../src/control/contract/node.ts'

interface Shape {
  readonly type?: string
  readonly anyOf?: readonly Shape[]
  readonly items?: Shape
  readonly properties?: Readonly<Record<string, Shape>>
}

/** Dotted, `[]` behind a list; of what holds fields only the fields. */
function fieldsOf(shape: Shape, at = ''): string[] {
  const found = shape.anyOf?.find((one) => one.type !== 'null') ?? shape
  if (found.type === 'array' && found.items?.properties !== undefined) return fieldsOf(found.items, `${at}[]`)
  const fields = Object.entries(found.properties ?? {})
  return fields.length === 0 ? [at] : fields.flatMap(([name, inner]) => fieldsOf(inner, at === '' ? name : `${at}.${name}`))
}

test('every field of status --json stands in the documentation', () => {
  const text = readFileSync(new URL('../../../docs/status.md', import.meta.url), 'utf8')
  const named = [...text.matchAll(/^\| (.+?) \| /gm)].flatMap(([, cell]) => {
    const words = [...(cell ?? '').matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? '')
    const list = words.find((word) => word.endsWith('[]'))
    return words.filter((word) => word !== list).map((word) => (word.startsWith('.') ? `${list}${word}` : word))
  })
  const shape = z.toJSONSchema(nodeRoutes.status.response, { io: 'input', unrepresentable: 'any' }) as Shape
  expect(named.filter((name) => name !== 'sandbox' && name !== 'identity').sort()).toEqual(fieldsOf(shape).sort())
})
