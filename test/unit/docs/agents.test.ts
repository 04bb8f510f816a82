/** The rules file of docs/agents.md is one that an agent takes, and its tables name every action and field. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { ACTION_FIELDS } from '../../../src/host/actions/action.ts'
import { parseScript } from '../../../src/host/brains/script.ts'

const text = readFileSync(new URL('../../../docs/agents.md', import.meta.url), 'utf8')

test('the example is a valid rules file', () => {
  const [, example = ''] = /```toml\n([\s\S]*?)```/.exec(text) ?? []
  expect(parseScript(example).rules).toHaveLength(3)
})

test('every action is listed with its fields', () => {
  for (const [type, fields] of Object.entries(ACTION_FIELDS)) {
    const row = text.split('\n').find((line) => line.startsWith(`| \`${type}\` |`))
    expect(row, type).toBeDefined()
    for (const field of fields) expect(row, type).toContain(`\`${field}\``)
  }
})
