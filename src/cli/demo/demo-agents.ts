/** The agents of the demo: two neighbours that post, read each other, react, write and zap. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { z } from 'zod'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { agentsRoutes } from '../../control/contract/agents.ts'
import { type Pylon, waitFor } from './demo-process.ts'

type Agent = z.output<typeof agentsRoutes.getAgent.response>
type Tick = z.output<typeof agentsRoutes.tickAgent.response>

export interface AgentEvent {
  readonly agent: string
  readonly type: string
  readonly kind: number | null
  readonly eventId: string | null
  readonly costMsats: bigint
  readonly words: string
}

/** Posts when told to tick, answers DMs, thanks for zaps, and greets a neighbour's note with a reaction, a DM and a zap. */
const rules = (zapSats: number) => `version = 1

[[rules]]
name = "say how it is"
on = "tick"
when = [{ field = "tick.trigger", op = "in", value = ["first", "manual"] }]
do = [{ type = "post", text = "{{agent.name}} here, tick {{tick.number}}: {{seen.notes}} new notes on {{seen.relays_up}} relay, {{balance_sats}} sats in hand." }]

[[rules]]
name = "greet the neighbour"
on = "note"
max = 1
when = [
  { field = "note.own_home", op = "eq", value = true },
  { field = "balance_sats", op = "gte", value = ${zapSats * 2} },
  { field = "tick.trigger", op = "eq", value = "manual" },
]
do = [
  { type = "react", to = "{{note.id}}", content = "+" },
  { type = "dm", to = "{{note.pubkey}}", text = "Neighbour, {{agent.name}} here: I liked your note and zap it with ${zapSats} sats." },
  { type = "zap", to = "{{note.note}}", sats = ${zapSats}, comment = "from {{agent.name}}" },
]

[[rules]]
name = "answer"
on = "dm"
max = 1
when = [{ field = "dm.text", op = "starts_with", value = "Neighbour" }]
do = [{ type = "dm", to = "{{dm.pubkey}}", text = "Thank you! This is {{agent.name}}, now with {{balance_sats}} sats." }]

[[rules]]
name = "answer in sessions"
on = "dm"
when = [{ field = "dm.scheme", op = "eq", value = "mls" }]
do = [{ type = "dm", to = "{{dm.pubkey}}", text = "{{agent.name}} here. I go by the rules of the demo, without a model, so I cannot talk of much: I hold {{balance_sats}} sats, this is my tick {{tick.number}}, and I have just read {{seen.notes}} new notes." }]

[[rules]]
name = "answer people"
on = "dm"
when = [
  { field = "dm.scheme", op = "ne", value = "mls" },
  { field = "dm.own_home", op = "eq", value = false },
  { field = "dm.text", op = "not_contains", value = "Neighbour" },
  { field = "dm.spoken_recently", op = "lt", value = 3 },
]
do = [{ type = "dm", to = "{{dm.pubkey}}", text = "{{agent.name}} here, your message arrived. I go by the rules of the demo, without a model, and hold {{balance_sats}} sats." }]

[[rules]]
name = "remember zaps"
on = "zap"
do = [{ type = "remember", text = "{{zap.sats}} sats from {{zap.npub}}" }]
`

/** Spawns the agent, or gives the one of that name the rules of the demo. */
export async function spawnNeighbour(pylon: Pylon, name: string, about: string, zapSats: number, dir: string): Promise<Agent> {
  const script = join(dir, `${name}.toml`)
  writeFileSync(script, rules(zapSats))
  const settings = ['--about', about, '--brain', 'script', '--script', script]
  try {
    return await pylon.answer(agentsRoutes.spawnAgent.response, ['agent', 'spawn', '--name', name, ...settings])
  } catch (error) {
    if (!isPylonError(error, 'agent_exists')) throw error
    return await pylon.answer(agentsRoutes.setAgent.response, ['agent', 'set', name, ...settings])
  }
}

/** Its first note is out and it has an address for zaps. */
export function awaitNeighbour(pylon: Pylon, name: string): Promise<Agent> {
  return waitFor(`${name} to tick and to get an address for zaps`, 20_000, async () => {
    const agent = await pylon.answer(agentsRoutes.getAgent.response, ['agent', 'show', name])
    return agent.tick_count > 0 && agent.lud06 !== null ? agent : undefined
  })
}

/** One posts, the other reads it, reacts, writes and zaps; the first answers. Returns what each published. */
export async function meet(pylon: Pylon, author: string, reader: string): Promise<AgentEvent[]> {
  const before = new Set((await ticks(pylon, author)).map((one) => one.id))
  const posted = await awaitActions(pylon, author, (await tick(pylon, author)).id, ['post'])
  const greeted = await waitFor(`${reader} to read ${author}'s note`, 25_000, async () => {
    const one = await tick(pylon, reader)
    return one.actions.some((action) => action.type === 'zap') ? one : undefined
  })
  const done = await awaitActions(pylon, reader, greeted.id, ['react', 'dm', 'zap'])
  const answer = await waitFor(`${author} to answer ${reader}`, 25_000, async () =>
    (await ticks(pylon, author)).find((one) => !before.has(one.id) && one.actions.some((action) => action.type === 'dm' && isDone(action))),
  )
  return [...eventsOf(author, posted), ...eventsOf(reader, done), ...eventsOf(author, answer)]
}

/** The tick once its actions of these types are published or paid. @throws demo_failed when one is refused or fails */
function awaitActions(pylon: Pylon, name: string, tickId: string, types: readonly string[]): Promise<Tick> {
  return waitFor(`${name} to ${types.join(', ')}`, 20_000, async () => {
    const one = (await ticks(pylon, name)).find(({ id }) => id === tickId)
    const wanted = one?.actions.filter((action) => types.includes(action.type)) ?? []
    const broken = wanted.find((action) => ['refused', 'failed'].includes(action.state))
    if (broken !== undefined || one?.state === 'failed') {
      throw new PylonError('demo_failed', `${name}'s ${broken?.type ?? 'tick'} failed: ${broken?.reason ?? one?.error ?? 'no reason'}`)
    }
    return types.every((type) => wanted.some((action) => action.type === type && isDone(action))) ? one : undefined
  })
}

function tick(pylon: Pylon, name: string): Promise<Tick> {
  return pylon.answer(agentsRoutes.tickAgent.response, ['agent', 'tick', name], [0, 1])
}

async function ticks(pylon: Pylon, name: string): Promise<Tick[]> {
  const log = await pylon.answer(agentsRoutes.getLog.response, ['agent', 'log', name, '--limit', '20'])
  return log.ticks
}

function isDone(action: Tick['actions'][number]): boolean {
  return action.state === 'done' || action.state === 'published'
}

function eventsOf(agent: string, one: Tick): AgentEvent[] {
  return one.actions
    .filter((action) => isDone(action) && action.type !== 'remember' && action.type !== 'nothing')
    .map((action) => ({
      agent,
      type: action.type,
      kind: action.kind,
      eventId: action.event_id,
      costMsats: action.cost_msats,
      words: wordsOf(action.params),
    }))
}

function wordsOf(params: unknown): string {
  const { text } = (typeof params === 'object' && params !== null ? params : {}) as { text?: unknown }
  return typeof text === 'string' ? text : ''
}
