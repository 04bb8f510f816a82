/** `pylon agent` against a sandbox node: an agent from its spawning to its end, and the same agent imported again. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { agentsRoutes } from '../../src/control/contract/agents.ts'
import { Rig } from '../support/rig.ts'

interface Agent {
  readonly name: string
  readonly npub: string
  readonly state: string
  readonly balance_sats: number
  readonly tick_count: number
  readonly lud06: string | null
  readonly heartbeat_s: number
  readonly budget: { per_tx_sats: number }
  readonly brain: { type: string }
}

interface Log {
  readonly ticks: readonly {
    number: number
    state: string
    trigger: string
    actions: readonly { type: string; state: string; kind: number | null; event_id: string | null; cost_msats: number }[]
  }[]
}

const RULES = `version = 1
[[rules]]
on = "tick"
do = [{ type = "post", text = "tick {{tick.number}} of {{agent.name}}" }, { type = "remember", text = "I posted at tick {{tick.number}}" }]
`

/** One node for both tests. */
let rig: Rig
beforeAll(async () => {
  rig = new Rig()
  await rig.ok('start', '--sandbox')
})
afterAll(() => rig[Symbol.asyncDispose]())

test('an agent is spawned, ticks, is changed, paid, paused, exported and ended', async () => {
  await rig.ok('wallet', 'fund', '1000')
  const script = join(rig.dir, 'rules.toml')
  writeFileSync(script, RULES)
  const show = async () => (await rig.ok('agent', 'show', 'ada', '--json')).json<Agent>()
  const log = async () => (await rig.ok('agent', 'log', 'ada', '--json')).json<Log>()

  const spawned = (await rig.ok('agent', 'spawn', '--name', 'ada', '--script', script, '--heartbeat', '3600', '--json')).json<Agent>()
  expect(spawned).toMatchObject({ network: 'sandbox', name: 'ada', brain: { type: 'script' }, heartbeat_s: 3600, balance_sats: 0 })
  expect(spawned.npub).toMatch(/^npub1/)
  const twice = await rig.run(['agent', 'spawn', '--name', 'ada', '--json'])
  expect(JSON.parse(twice.stderr)).toMatchObject({ error: { code: 'agent_exists' } })

  const agent = () => rig.call(agentsRoutes.getAgent, { name: 'ada' })
  await expect.poll(async () => (await agent()).tick_count, { timeout: 20_000 }).toBe(1)
  await expect.poll(async () => (await agent()).lud06, { timeout: 20_000 }).toMatch(/^lnurl1/)
  expect(await show()).toMatchObject({ tick_count: 1, lud06: expect.stringMatching(/^lnurl1/) })
  expect((await rig.ok('agent', 'tick', 'ada', '--json')).json()).toMatchObject({ number: 2, trigger: 'manual' })
  await expect
    .poll(async () => (await log()).ticks.flatMap((tick) => tick.actions).filter((action) => action.type === 'post'), { timeout: 20_000 })
    .toMatchObject([
      { state: 'published', kind: 1, event_id: expect.stringMatching(/^[0-9a-f]{64}$/) },
      { state: 'published', kind: 1, event_id: expect.stringMatching(/^[0-9a-f]{64}$/) },
    ])
  const memory = (await rig.ok('agent', 'memory', 'ada', '--json')).json<{ memories: { content: string }[] }>()
  expect(memory.memories.map(({ content }) => content)).toEqual(['I posted at tick 2', 'I posted at tick 1'])

  const funded = (await rig.ok('agent', 'fund', 'ada', '200', '--idempotency-key', 'f1', '--json')).json()
  expect(funded).toMatchObject({ name: 'ada', amount_sats: 200 })
  expect((await rig.ok('agent', 'fund', 'ada', '200', '--idempotency-key', 'f1', '--json')).json()).toEqual(funded)
  expect((await show()).balance_sats).toBe(200)
  const zap = ['wallet', 'zap', 'ada', '5', '--by', 'nutzap', '--idempotency-key', 'z1', '--json'] as const
  expect((await rig.ok(...zap)).json()).toMatchObject({ state: 'paid', amount_sats: 5 })
  expect((await rig.ok(...zap)).json()).toMatchObject({ state: 'paid', amount_sats: 5 })
  await expect.poll(async () => (await show()).balance_sats, { timeout: 20_000 }).toBe(205)
  expect((await rig.ok('wallet', 'balance', '--wallet', 'ada', '--json')).json()).toMatchObject({ balance_sats: 205 })

  expect((await rig.ok('agent', 'set', 'ada', '--per-tx', '5', '--about', 'small spender', '--json')).json()).toMatchObject({
    about: 'small spender',
    heartbeat_s: 3600,
    brain: { type: 'script' },
    budget: { per_tx_sats: 5, per_day_sats: 10_000 },
  })
  expect((await rig.ok('agent', 'goals', 'ada', 'be read', 'be paid', '--json')).json()).toMatchObject({
    goals: [
      { description: 'be read', status: 'active' },
      { description: 'be paid', status: 'active' },
    ],
  })
  expect((await rig.ok('agent', 'pause', 'ada', '--json')).json()).toMatchObject({ state: 'paused' })
  expect((await rig.ok('agent', 'start', 'ada', '--json')).json()).toMatchObject({ state: 'active' })
  expect((await rig.ok('agent', 'list')).stdout).toContain('ada')
  expect((await rig.ok('status', '--json')).json()).toMatchObject({ host: { state: 'ok', agents: [{ name: 'ada', balance_sats: 205 }] } })

  const bundle = (await rig.ok('agent', 'export', 'ada')).stdout
  expect(JSON.parse(bundle)).toMatchObject({ name: 'ada', npub: spawned.npub, nsec: expect.stringMatching(/^nsec1/) })
  const gone = (await rig.ok('agent', 'delete', 'ada', '--yes', '--json')).json<{ swept_sats: number }>()
  expect(gone.swept_sats).toBeGreaterThan(180)
  expect(JSON.parse((await rig.run(['agent', 'show', 'ada', '--json'])).stderr)).toMatchObject({ error: { code: 'agent_not_found' } })
  expect((await rig.ok('agent', 'list', '--json')).json()).toMatchObject({ agents: [] })

  // Elsewhere the export is the same agent again; there its list is also read while the node is stopped.
  await using other = new Rig()
  await other.ok('start', '--sandbox')
  const imported = await other.run(['agent', 'spawn', '--import', '--json'], { input: bundle })
  expect(imported.json<Agent>()).toMatchObject({ name: 'ada', npub: spawned.npub, about: 'small spender', budget: { per_tx_sats: 5 } })
  await other.ok('stop')
  expect((await other.ok('agent', 'list', '--json')).json()).toMatchObject({ network: 'sandbox', agents: [{ npub: spawned.npub }] })
  expect((await other.ok('agent', 'log', 'ada', '--json')).json<Log>().ticks.length).toBeGreaterThan(0)
})

test('a wrong description of an agent says what is wrong', async () => {
  const script = join(rig.dir, 'wrong.toml')
  writeFileSync(script, 'version = 1\n[[rules]]\non = "tick"\ndo = [{ type = "post" }]\n')
  const fails = async (code: string, ...args: string[]) => {
    const run = await rig.run(['agent', 'spawn', '--json', ...args])
    expect(run.stdout).toBe('')
    expect(JSON.parse(run.stderr)).toMatchObject({ error: { code } })
  }
  await fails('script_invalid', '--script', script)
  await fails('agent_name_invalid', '--name', 'Not A Name')
  await fails('relay_invalid', '--relay', 'http://not.a.relay')
  await fails('pubkey_invalid', '--allow', 'npub1nonsense')
  const key = await rig.run(['agent', 'spawn', '--import', '--json'], { input: 'nsec1nonsense' })
  expect(JSON.parse(key.stderr)).toMatchObject({ error: { code: 'identity_invalid' } })
  expect(key.stderr).not.toContain('nsec1nonsense')
})
