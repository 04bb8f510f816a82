/** How agents, their ticks and actions look in a terminal. */
import { formatSats } from '../../base/amounts.ts'
import type { Output } from '../../control/client.ts'
import type { agentsRoutes } from '../../control/contract/agents.ts'
import { clockTime, drawFields, drawTable, relativeTime, right, sats, shorten, shortId, timeUntil } from '../terminal/table.ts'

type Agent = Output<typeof agentsRoutes.getAgent>
type Summary = Output<typeof agentsRoutes.listAgents>['agents'][number]
type Managed = Output<typeof agentsRoutes.listAgents>['managed'][number]
type Tick = Output<typeof agentsRoutes.tickAgent>
type Action = Tick['actions'][number]

const PARAM_CHARS = 90

export function drawAgents(agents: readonly Summary[], managed: readonly Managed[], nowMs: number): string {
  return drawTable(
    ['NAME', 'KIND', 'STATE', right('BALANCE'), right('TICKS'), 'LAST TICK', 'NEXT TICK', 'NPUB'],
    [
      ...agents.map((agent) => [
        agent.name,
        'hosted',
        agent.state,
        sats(agent.balance_sats),
        String(agent.tick_count),
        relativeTime(agent.last_tick_at, nowMs),
        agent.next_tick_at === null ? '-' : timeUntil(agent.next_tick_at, nowMs),
        agent.npub,
      ]),
      ...managed.map((agent) => [agent.name, `${agent.provider} ${agent.protocol}`, agent.phase, '-', '-', '-', '-', agent.npub ?? '-']),
    ],
  )
}

export function drawAgent(agent: Agent, nowMs: number): string {
  const { budget } = agent
  return drawFields([
    ['Agent', agent.name],
    ['About', agent.about || '-'],
    ['npub', agent.npub],
    ['State', agent.reason === undefined ? agent.state : `${agent.state} (${agent.reason})`],
    ['Balance', sats(agent.balance_sats)],
    ['Budget', drawBudget(budget)],
    ['Spent today', sats(budget.spent_today_sats)],
    ['Brain', drawBrain(agent.brain)],
    ['Autonomy', agent.allow.length === 0 ? agent.autonomy : `${agent.autonomy}, allows ${agent.allow.map(shortId).join(', ')}`],
    [
      'Ticks',
      `${agent.tick_count}, every ${agent.heartbeat_s} s; last ${relativeTime(agent.last_tick_at, nowMs)}, next ${nextTick(agent, nowMs)}`,
    ],
    ['DMs', agent.dm_scheme],
    ['Zaps to', agent.lud16 ?? agent.lud06 ?? 'no address yet'],
    ['Relays', agent.relays.length === 0 ? 'those of the node' : agent.relays.join('\n')],
    ['Spawned', `${clockTime(agent.created_at)} UTC`],
  ])
}

function drawBudget(budget: Agent['budget']): string {
  const parts = [
    `${sats(budget.per_tx_sats)} a payment`,
    `${sats(budget.per_tick_sats)} a tick`,
    ...(budget.per_hour_sats === null ? [] : [`${sats(budget.per_hour_sats)} an hour`]),
    `${sats(budget.per_day_sats)} a day`,
    ...(budget.per_counterparty_sats === null ? [] : [`${sats(budget.per_counterparty_sats)} a day to one`]),
    ...(budget.approve_above_sats === null ? [] : [`asks above ${sats(budget.approve_above_sats)}`]),
    ...(budget.rails.length === 0 ? [] : [`by ${budget.rails.join(' or ')}`]),
    ...(budget.deny.length === 0 ? [] : [`never to ${budget.deny.map(shortId).join(', ')}`]),
  ]
  return parts.join(', ')
}

function nextTick(agent: Agent, nowMs: number): string {
  return agent.next_tick_at === null ? 'by trigger only' : timeUntil(agent.next_tick_at, nowMs)
}

function drawBrain(brain: Agent['brain']): string {
  const { type, ...rest } = brain
  const details = Object.entries(rest)
    .filter(([name, value]) => name !== 'rules' && value !== '' && value !== undefined)
    .map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : String(value)}`)
  const rules = 'rules' in rest && rest['rules'] !== undefined ? ['rules of its own'] : []
  return [type, ...rules, ...details].join(', ')
}

/** Newest first, each tick with its actions below it. */
export function drawTicks(ticks: readonly Tick[]): string {
  return ticks.map(drawTick).join('\n\n')
}

export function drawTick(tick: Tick): string {
  const head = `#${tick.number}  ${clockTime(tick.started_at)} UTC  ${tick.trigger}  ${tick.state}  ${formatSats(tick.cost_msats)}`
  const lines = [
    ...(tick.thought === null || tick.thought === '' ? [] : [`thought: ${shorten(tick.thought, PARAM_CHARS)}`]),
    ...tick.actions.map(drawAction),
    ...(tick.error === null ? [] : [`error: ${shorten(tick.error, PARAM_CHARS)}`]),
  ]
  return [head, ...(lines.length === 0 ? ['nothing to do'] : lines).map((line) => `    ${line}`)].join('\n')
}

export function drawAction(action: Action): string {
  const parts = [`${action.type} ${action.state}`]
  if (action.event_id !== null)
    parts.push(action.kind === null ? `event ${shortId(action.event_id)}` : `kind ${action.kind} ${shortId(action.event_id)}`)
  if (action.cost_msats > 0n) parts.push(formatSats(action.cost_msats))
  if (action.reason !== null && action.state !== 'done') parts.push(shorten(action.reason, PARAM_CHARS))
  const words = textOf(action.params)
  return `${parts.join('  ')}${words === '' ? '' : `  "${shorten(words, 60)}"`}`
}

/** Newest first, each with what came with it. */
export function drawMessages(messages: Output<typeof agentsRoutes.getInbox>['messages']): string {
  const rows = messages.map((message) => [
    `${clockTime(message.heard_at)} UTC`,
    message.amount_msats === null ? message.type : `${message.type} ${formatSats(message.amount_msats)}`,
    message.from,
    shorten(message.text ?? '(kept no more)', PARAM_CHARS),
  ])
  return drawTable(['HEARD', 'WHAT', 'FROM', 'WORDS'], rows)
}

/** The words of an action, whatever its type calls them. */
function textOf(params: unknown): string {
  if (typeof params !== 'object' || params === null) return ''
  const fields = params as Record<string, unknown>
  const words = fields['text'] ?? fields['content'] ?? fields['description'] ?? fields['comment'] ?? fields['memo']
  return typeof words === 'string' ? words : ''
}
