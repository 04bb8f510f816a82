import { expect, test } from 'vitest'
import { OutageWatch, sightOf } from '../../../../src/cli/agent/outage.ts'

const at = (state: string, reason = state, cause = '', updatedAt = reason) => ({ state, reason, cause, updatedAt })

async function told(...sights: (ReturnType<typeof at> | undefined)[]): Promise<string[]> {
  const words: string[] = []
  const left = [...sights]
  const watch = new OutageWatch(
    'helper',
    async () => left.shift(),
    (text) => words.push(text),
  )
  for (const _sight of sights) await watch.look()
  return words
}

test('an agent that went down is told of once, and so is its return', async () => {
  const away = at('unreachable', 'failed: exit 137', 'guest')
  expect(
    await told(at('ready'), away, away, at('provisioning'), at('ready', 'runtime recovered'), at('ready', 'runtime recovered')),
  ).toEqual(['helper has stopped; it is being started again', 'helper is back'])
  expect(await told(at('unreachable', 'timeout', 'network'), at('ready'))).toEqual([
    'helper cannot be reached; it is looked for again',
    'helper is back',
  ])
})

test('an outage between two looks is told afterwards; what only was written to its record is none', async () => {
  expect(await told(at('ready', 'runtime ready', '', '1'), at('ready', 'runtime recovered', '', '2'))).toEqual([
    'helper had stopped and was started again',
  ])
  expect(await told(at('ready', 'runtime ready', '', '1'), at('ready', 'runtime ready', '', '2'), undefined)).toEqual([])
})

test('one that is gone for good is waited for no longer', async () => {
  await expect(told(at('ready'), at('failed', 'the instance is gone'))).rejects.toMatchObject({
    code: 'conflict',
    message: expect.stringContaining('the instance is gone'),
  })
})

test('a descriptor is read as the node writes it', () => {
  const metadata = { state: 'unreachable', state_reason: 'failed: x', updated_at: 't', outage: { cause: 'guest', since: 's' } }
  expect(sightOf({ metadata })).toEqual({ state: 'unreachable', reason: 'failed: x', cause: 'guest', updatedAt: 't' })
})
