/** kill -9 of guest, node and client at seeded moments of one conversation, on the real program and the local substrate: it goes on, once and in order. */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { randomBelow, seededRandom } from '../../src/base/random.ts'
import { managedRoutes } from '../../src/control/contract/managed.ts'
import { guestsOf } from '../support/guests.ts'
import { killAll } from '../support/kill.ts'
import { Rig } from '../support/rig.ts'
import { shellAgent } from '../support/shell-agents.ts'

const KILLS = Number(process.env['PYLON_CONVERSATION_KILLS'] ?? 4)
const SEED = Number(process.env['PYLON_CONVERSATION_SEED'] ?? 1)
const WAIT = { timeout: 90_000, interval: 200 }
/** Says the words, and ends half a second later. */
const SLOW_AGENT = shellAgent('pi').replace('      message=', '      sleep 0.5\n      message=')
const VICTIMS = ['guest', 'node', 'client'] as const

async function heard(rig: Rig) {
  const all = []
  for (let after = 0; ; ) {
    const { messages } = await rig.call(managedRoutes.listen, { peer: 'bob', after, limit: 500, mode: 'raw' })
    const last = messages.at(-1)
    if (last === undefined) return all
    all.push(...messages)
    after = last.seq
  }
}

test(`a conversation survives ${KILLS} times kill -9`, { timeout: 120_000 + KILLS * 20_000 }, async () => {
  await using rig = new Rig()
  const random = seededRandom(SEED)
  let { died } = await rig.launch(['--sandbox'])
  await rig.ok('agent', 'new', '--provider', 'local', '--protocol', 'pi', '--command', SLOW_AGENT, '--name', 'bob', '--keep', '--json')
  // Else its guest outlives the node, as it is meant to.
  await using _ended = { [Symbol.asyncDispose]: async () => void (await rig.run(['agent', 'delete', 'bob', '--yes'])) }
  const say = async (text: string, key: string) => {
    await vi.waitFor(() => rig.call(managedRoutes.say, { peer: 'bob', text }, { idempotencyKey: key }), WAIT)
  }
  const counts = { guest: 0, node: 0, client: 0 }
  for (let round = 0; round < KILLS; round++) {
    const victim = VICTIMS[randomBelow(random, 3)] ?? 'node'
    const words = `say word-${round}`
    const client = victim === 'client' ? rig.spawn(['agent', 'chat', 'bob', words]) : undefined
    if (client === undefined) await say(words, `round-${round}`)
    await sleep(randomBelow(random, 1200))
    counts[victim]++
    if (victim === 'client') client?.kill('SIGKILL')
    if (victim === 'guest') killAll(guestsOf(rig))
    if (victim === 'node') {
      process.kill(Number(/"pid":(\d+)/.exec(readFileSync(rig.sandboxHome.pidFile, 'utf8'))?.[1]), 'SIGKILL')
      await died
      ;({ died } = await rig.launch(['--sandbox']))
    }
    await say(`say meanwhile-${round}`, `meanwhile-${round}`)
  }
  await vi.waitFor(async () => {
    const all = await heard(rig)
    expect(all.filter(({ is_end }) => is_end).length).toBe(all.filter(({ own }) => own).length)
  }, WAIT)
  const all = await heard(rig)
  const wordOf = (text: string) => /(?:word|meanwhile)-\d+/.exec(text)?.[0]
  const asked = all.filter(({ own }) => own).map(({ content }) => wordOf(content))
  const answered = all.filter(({ own, type }) => !own && type === 'assistant_text').map(({ content }) => wordOf(content))
  expect(all.filter(({ type }) => type === 'error').map(({ content }) => content)).toEqual([])
  expect(new Set(asked).size).toBe(asked.length)
  expect(answered).toEqual(asked)
  expect(asked.filter((word) => word?.startsWith('meanwhile'))).toHaveLength(KILLS)
  process.stdout.write(`${JSON.stringify(counts)} ${asked.length} prompts\n`)
})
