/** kill -9 between the steps of a tick, by a fault point each, on the real program: what the agent did, it did once. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { SimplePool, useWebSocketImplementation } from 'nostr-tools/pool'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import WebSocket from 'ws'
import { Rig } from '../support/rig.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'

useWebSocketImplementation(WebSocket)

const WAIT = { timeout: 60_000, interval: 500 }
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

interface Agent {
  readonly npub: string
  readonly pubkey: string
  readonly balance_sats: number
}

interface Tick {
  readonly number: number
  readonly state: string
  readonly actions: readonly { readonly type: string; readonly state: string }[]
}

const flags = () => ['--sandbox', '--mode', 'host', '--relay', sandbox.relayUrl, '--mint', sandbox.mintUrl]

/** Ada, who posts and zaps at her second tick, and Bob, whom she zaps. */
async function prepare(rig: Rig): Promise<{ ada: Agent; bob: Agent }> {
  await rig.ok('start', ...flags())
  const quiet = join(rig.dir, 'quiet.toml')
  writeFileSync(quiet, 'version = 1\n[[rules]]\non = "first"\ndo = [{ type = "nothing" }]\n')
  const bob = (await rig.ok('agent', 'spawn', '--name', 'bob', '--script', quiet, '--heartbeat', '86400', '--json')).json<Agent>()
  const rules = join(rig.dir, 'rules.toml')
  writeFileSync(rules, RULES.replace('NPUB', bob.npub))
  const ada = (
    await rig.ok('agent', 'spawn', '--name', 'ada', '--script', rules, '--heartbeat', '86400', '--autonomy', 'autonomous', '--json')
  ).json<Agent>()
  await rig.ok('wallet', 'fund', '200')
  await rig.ok('agent', 'fund', 'ada', '100')
  await vi.waitUntil(async () => (await ticksOf(rig)).some((tick) => tick.number === 1 && tick.state === 'done'), WAIT)
  await vi.waitUntil(async () => (await agentOf(rig, 'bob')).lud06 !== null, WAIT)
  await rig.ok('stop')
  return { ada, bob }
}

const ticksOf = async (rig: Rig) => (await rig.ok('agent', 'log', 'ada', '--json')).json<{ ticks: Tick[] }>().ticks
const agentOf = async (rig: Rig, name: string) => (await rig.ok('agent', 'show', name, '--json')).json<Agent & { lud06: string | null }>()

const STEPS = ['claim_tick', 'begin_thinking', 'plan_tick', 'claim_action', 'finish_action', 'finish_tick']
const FAULTS = STEPS.flatMap((step) => [`before:${step}`, `after:${step}`])

describe.concurrent('a tick survives kill -9', { timeout: 180_000 }, () => {
  test.each(FAULTS)('%s', async (fault) => {
    await using rig = new Rig()
    const { ada } = await prepare(rig)
    const child = rig.spawn(['daemon', ...flags()], { env: { PYLON_FAULT: fault } })
    const died = new Promise<NodeJS.Signals | null>((resolve) => child.once('close', (_code, signal) => resolve(signal)))
    await vi.waitUntil(async () => child.signalCode !== null || (await rig.run(['status', '--json'])).code === 0, WAIT)
    await rig.run(['agent', 'tick', 'ada', '--json'])
    expect(await died).toBe('SIGKILL')

    await rig.ok('start', ...flags())
    // A tick that was never claimed is the owner's to ask for again.
    if (!(await ticksOf(rig)).some((tick) => tick.number === 2)) await rig.ok('agent', 'tick', 'ada')
    await vi.waitUntil(async () => (await ticksOf(rig)).some((tick) => tick.number === 2 && tick.state === 'done'), WAIT)

    const pool = new SimplePool()
    const notes = await pool.querySync([sandbox.relayUrl], { kinds: [1], authors: [ada.pubkey] })
    pool.destroy()
    expect(notes.map((note) => note.content)).toEqual(['Tick 2 speaks.'])
    const second = (await ticksOf(rig)).find((tick) => tick.number === 2)
    expect(second?.actions.map((action) => [action.type, action.state])).toEqual([
      ['post', 'published'],
      ['zap', 'done'],
    ])
    await vi.waitUntil(async () => (await agentOf(rig, 'bob')).balance_sats > 0, WAIT)
    expect((await agentOf(rig, 'bob')).balance_sats).toBe(ZAP_SATS)
    const { balance_sats: left } = await agentOf(rig, 'ada')
    expect(left).toBeGreaterThan(100 - 2 * ZAP_SATS)
    expect(left).toBeLessThanOrEqual(100 - ZAP_SATS)
  })
})
