/** docs/nip90.md names every limit and every code that a customer can meet, as the code has them. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { REQUEST_LIMITS } from '../../../src/nostr/nips/nip90.ts'
import { MAX_TAGS } from '../../../src/provider/jobs/admission.ts'
import { TOLD_CODES } from '../../../src/provider/jobs/context.ts'

const text = readFileSync(new URL('../../../docs/nip90.md', import.meta.url), 'utf8')

/** The rows of the first table below a heading. */
function tableAfter(heading: string): string[][] {
  const [, ...lines] = text.slice(text.indexOf(heading)).split('\n')
  const begin = lines.findIndex((line) => line.startsWith('|'))
  const end = lines.findIndex((line, at) => at > begin && !line.startsWith('|'))
  return lines.slice(begin + 2, end).map((line) => line.split('|').map((cell) => cell.trim()))
}

test('every code', () => {
  expect(tableAfter('## Errors').map(([, code]) => code?.replaceAll('`', ''))).toEqual([...TOLD_CODES])
})

test('every limit of a request, and of the configuration', () => {
  const rows = tableAfter('### Limits')
  const own = rows.filter(([, what]) => !what?.includes('`provider.')).map(([, , most]) => Number(most))
  const { inputs, params, paramNameChars, paramValues, paramValueChars, outputChars, relays, providers, tokenChars, encryptedTags } =
    REQUEST_LIMITS
  expect(own).toEqual([
    MAX_TAGS,
    encryptedTags,
    inputs,
    params,
    paramNameChars,
    paramValues,
    paramValueChars,
    outputChars,
    relays,
    providers,
    tokenChars,
  ])
  const configured = rows.flatMap(([, what, most]) => {
    const key = /`provider\.(\w+)`/.exec(what ?? '')?.[1]
    return key === undefined ? [] : [[key, Number(most)] as const]
  })
  expect(configured.length).toBeGreaterThan(8)
  for (const [key, most] of configured) expect(DEFAULT_CONFIG.provider[key as keyof typeof DEFAULT_CONFIG.provider], key).toBe(most)
})
