/** kill -9 between the steps of a tick, by a fault point each, on the real program: what the agent did, it did once. */
import { SimplePool, useWebSocketImplementation } from 'nostr-tools/pool'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import WebSocket from 'ws'
import { agentsRoutes } from '../../src/control/contract/agents.ts'
import { nodeRoutes } from '../../src/control/contract/node.ts'
import { walletRoutes } from '../../src/control/contract/wallet.ts'
import { Rig } from '../support/rig.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'

useWebSocketImplementation(WebSocket)

const WAIT = { timeout: 60_000, interval: 50 }
const ZAP_SATS = 7
const RULES = `version = 1
[[rules]]
on = "tick"
when = [{ field = "tick.number", op = "gt", value = 1 }]
do = [
  { type = "post", text = "Tick {{tick.number}} speaks." },
  { type = "zap", to = "NPUB", sats = ${ZAP_SATS} },
]
`

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

const flags = () => ['--sandbox', '--mode', 'host', '--relay', sandbox.relayUrl, '--mint', sandbox.mintUrl]
const ticksOf = async (rig: Rig) => (await rig.call(agentsRoutes.getLog, { name: 'ada' })).ticks
const agentOf = (rig: Rig, name: string) => rig.call(agentsRoutes.getAgent, { name })

/** Ada, who posts and zaps at her second tick, and Bob, whom she zaps; the node has ended. @returns Ada's key */
async function prepare(rig: Rig): Promise<string> {
  const { died } = await rig.launch(flags())
  const quiet = { type: 'script' as const, rules: 'version = 1\n[[rules]]\non = "first"\ndo = [{ type = "nothing" }]\n' }
  const bob = await rig.call(agentsRoutes.spawnAgent, { name: 'bob', heartbeat_s: 86_400, brain: quiet })
  const brain = { type: 'script' as const, rules: RULES.replace('NPUB', bob.npub) }
  const ada = await rig.call(agentsRoutes.spawnAgent, { name: 'ada', heartbeat_s: 86_400, brain, autonomy: 'autonomous' })
  await vi.waitUntil(async () => (await rig.call(nodeRoutes.status, {})).wallet.mints.length > 0, WAIT)
  await rig.call(walletRoutes.fundWallet, { wallet: 'node', amount_sats: 200 })
  await rig.call(agentsRoutes.fundAgent, { name: 'ada', amount_sats: 100 })
  await vi.waitUntil(async () => (await ticksOf(rig)).some((tick) => tick.number === 1 && tick.state === 'done'), WAIT)
  await vi.waitUntil(async () => (await agentOf(rig, 'bob')).lud06 !== null, WAIT)
  await rig.call(nodeRoutes.shutdown, {})
  await died
  return ada.pubkey
}

/** unit/host/ticks.test.ts dies in process around every step; these are the ones with something of the outside between. */
const FAULTS = ['before:plan_tick', 'after:claim_action', 'before:finish_action', 'after:finish_action']

describe.concurrent('a tick survives kill -9', { timeout: 180_000 }, () => {
  test.each(FAULTS)('%s', async (fault) => {
    await using rig = new Rig()
    const ada = await prepare(rig)
    const { died } = await rig.launch(flags(), fault)
    await expect(rig.call(agentsRoutes.tickAgent, { name: 'ada' })).rejects.toThrow(/broke|in the middle/)
    expect(await died).toBe('SIGKILL')

    await rig.launch(flags())
    await vi.waitUntil(async () => (await ticksOf(rig)).some((tick) => tick.number === 2 && tick.state === 'done'), WAIT)

    const pool = new SimplePool()
    const notes = await pool.querySync([sandbox.relayUrl], { kinds: [1], authors: [ada] })
    pool.destroy()
    expect(notes.map((note) => note.content)).toEqual(['Tick 2 speaks.'])
    const second = (await ticksOf(rig)).find((tick) => tick.number === 2)
    expect(second?.actions.map((action) => [action.type, action.state])).toEqual([
      ['post', 'published'],
      ['zap', 'done'],
    ])
    await vi.waitUntil(async () => (await agentOf(rig, 'bob')).balance_sats > 0n, WAIT)
    expect((await agentOf(rig, 'bob')).balance_sats).toBe(BigInt(ZAP_SATS))
    const { balance_sats: left } = await agentOf(rig, 'ada')
    expect(left).toBeGreaterThan(BigInt(100 - 2 * ZAP_SATS))
    expect(left).toBeLessThanOrEqual(BigInt(100 - ZAP_SATS))
  })
})
