/** A brain that speaks ACP with its hands: it acts by its own tools within its tick, and reaches nothing else of the node. */
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { agentsRoutes } from '../../src/control/contract/agents.ts'
import { findBubblewrap } from '../../src/runtime/local/bubblewrap.ts'
import { Rig } from '../support/rig.ts'

const CHILD = join(import.meta.dirname, '..', 'support', 'acp-brain-child.mjs')

test('a brain acts by its tools within its tick, once and within its budget, and its lines are done besides', async () => {
  const rig = new Rig()
  onTestFinished(async () => rig[Symbol.asyncDispose]())
  await rig.ok('start', '--sandbox')
  await rig.ok('wallet', 'fund', '1000')
  const bea = await rig.call(agentsRoutes.spawnAgent, {
    name: 'bea',
    brain: { type: 'script', rules: '[[rules]]\non = "tick"\ndo = [{ type = "nothing" }]' },
    heartbeat_s: 86_400,
  })
  await expect.poll(async () => (await rig.call(agentsRoutes.getAgent, { name: 'bea' })).lud06, { timeout: 20_000 }).toMatch(/^lnurl1/)
  const zap = ['zap', { to: bea.npub, sats: 21, idempotency_key: 'z' }]
  const plan = {
    tools: [
      ['tools/list', {}],
      ['post', { text: 'By my own hand.' }],
      zap,
      zap,
      ['zap', { to: bea.npub, sats: 40 }],
      ['list_messages', {}],
    ],
    // What a program of the same user can reach: of the home, nothing where there is a fence.
    run: `ls -A '${rig.home.dir}' | wc -l; echo "$PYLON_HOME"`,
    answer: 'POST: And by my word.',
  }
  const brain = { type: 'acp' as const, command: [process.execPath, CHILD, JSON.stringify(plan)] }
  const settings = { heartbeat_s: 86_400, autonomy: 'autonomous' as const, budget: { per_tx_sats: 30, per_tick_sats: 50 } }
  const spawn = await rig.run(['agent', 'spawn', '--name', 'ada', '--brain', 'acp', '--command', 'true', '--heartbeat', '86400', '--json'])
  expect(spawn.json()).toMatchObject({ brain: { type: 'acp', command: 'true', hands: true } })
  await expect.poll(async () => (await rig.call(agentsRoutes.getLog, { name: 'ada' })).ticks[0]?.state, { timeout: 20_000 }).toBe('failed')
  await rig.call(agentsRoutes.setAgent, { name: 'ada', brain, ...settings })
  await rig.call(agentsRoutes.fundAgent, { name: 'ada', amount_sats: 200 })
  const tick = await rig.call(agentsRoutes.tickAgent, { name: 'ada' })
  expect(tick).toMatchObject({ state: 'done', error: null })
  const report = JSON.parse(/^report (.*)$/m.exec(tick.thought ?? '')?.[1] ?? 'null') as { told: string[]; run: string; servers: string[] }
  expect(report.servers).toEqual(['pylon'])
  const [listed = '', posted = '', zapped, again, refused, heard] = report.told
  expect(listed.split(',')).toEqual(expect.arrayContaining(['get_status', 'post', 'zap']))
  expect(listed).not.toContain('buy_job')
  expect(posted).toMatch(/^(Published|It is on its way)/)
  expect(zapped).toMatch(/^Done by/)
  expect(again).toBe(zapped)
  expect(refused).toContain('action_refused: Policy refuses it: 40 sats are over the budget of 30 sats a transaction')
  expect(heard).toContain('0 messages')
  expect(tick.actions.map(({ type, state }) => `${type} ${state === 'claimed' ? 'published' : state}`)).toEqual([
    'post published',
    'zap done',
    'zap refused',
    'post published',
  ])
  const isFenced = (await findBubblewrap(undefined)).path !== null
  expect(report.run).toMatch(isFenced ? /^0\n\n$/ : /^[1-9]\d*\n\n$/)
  await expect.poll(async () => (await rig.call(agentsRoutes.getAgent, { name: 'bea' })).balance_sats, { timeout: 20_000 }).toBe(21n)
  const withoutHands = { ...brain, hands: false }
  await rig.call(agentsRoutes.setAgent, { name: 'ada', brain: withoutHands })
  const next = await rig.call(agentsRoutes.tickAgent, { name: 'ada' })
  expect(next.thought).toContain('"servers":[]')
}, 120_000)
