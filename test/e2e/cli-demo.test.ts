/** `pylon demo`: every step happens, the node stays, the second one is gone, and a second run finds its way too. */
import { readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { expect, test } from 'vitest'
import { Rig } from '../support/rig.ts'

interface Demo {
  readonly network: string
  readonly ok: boolean
  readonly steps: readonly { title: string; wire: readonly string[] }[]
}

const leftovers = () => readdirSync(tmpdir()).filter((name) => name.startsWith('pylon-demo-'))

test('the demo shows all that it promises', async () => {
  await using rig = new Rig()
  const before = leftovers()
  const run = await rig.run(['demo', '--json'], { timeoutMs: 100_000 })
  expect(run.stderr).toBe('')
  expect(run.code).toBe(0)
  const demo = run.json<Demo>()
  expect(demo).toMatchObject({ network: 'sandbox', ok: true })
  const titles = demo.steps.map((step) => step.title).join('\n')
  for (const words of [
    'invoice: completed',
    'token in the request: completed',
    'end to end: completed',
    'refunded',
    'Rented a machine',
    'Agent ada',
    'Agent bob',
  ]) {
    expect(titles).toContain(words)
  }
  const wire = demo.steps.flatMap((step) => step.wire).join('\n')
  for (const kind of [
    'kind 5001',
    'kind 6001',
    'kind 7000',
    'kind 31990',
    'kind 30910',
    'kind 24910',
    'kind 1 ',
    'kind 7 ',
    'kinds 1059/13/14',
    'kinds 9734/9735',
  ]) {
    expect(wire).toContain(kind)
  }
  expect(leftovers().filter((name) => !before.includes(name))).toEqual([])
  const status = (await rig.ok('status', '--json')).json<{ running: boolean; host: { agents: { name: string }[] } }>()
  expect(status).toMatchObject({ running: true, network: 'sandbox' })
  expect(status.host.agents.map(({ name }) => name).toSorted()).toEqual(['ada', 'bob'])
  // 21 + 21 + 5 sats; the refunded job earned nothing.
  expect((await rig.ok('earnings', '--json')).json()).toMatchObject({ by_source: { job: 47_000, lease: 10_000 }, jobs_completed: 3 })
})
