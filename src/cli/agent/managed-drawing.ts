/** How an agent that runs in a runtime looks in a terminal. */
import type { Output } from '../../control/client.ts'
import type { managedRoutes } from '../../control/contract/managed.ts'
import { fieldsOf, joined, textOf } from '../runtime/runtime-call.ts'
import { clockTime, drawFields, relativeTime, shortId } from '../terminal/table.ts'

type Managed = Output<typeof managedRoutes.getManaged>

/** @param runtime as its node describes it now, or the reason why that is not known; undefined where there is none */
export function drawManaged(agent: Managed, runtime: Readonly<Record<string, unknown>> | undefined, nowMs: number): string {
  const where = agent.own_node === false ? `${agent.provider} of ${agent.server}` : agent.provider
  const rows: [string, string][] = [
    ['Agent', agent.name],
    ['Kind', `${where}, speaks ${agent.protocol}`],
    ['npub', agent.npub ?? 'not known yet'],
    ['Phase', agent.reason === null ? agent.phase : `${agent.phase} (${agent.reason})`],
    ['Phases', agent.steps.map(({ phase, after_ms }) => `${phase} ${(after_ms / 1000).toFixed(1)} s`).join('\n')],
    ['Runtime', joined(', class ', agent.runtime_id ?? '-', agent.runtime_class ?? '')],
    ['Session', agent.group_id === null ? 'none yet' : shortId(agent.group_id)],
    ['Relays', agent.relays.join('\n')],
    ['Made', `${clockTime(agent.created_at)} UTC`],
  ]
  if (runtime !== undefined) rows.push(...runtimeRows(runtime, nowMs))
  rows.push(['Next', nextOf(agent)])
  return drawFields(rows)
}

function runtimeRows(runtime: Readonly<Record<string, unknown>>, nowMs: number): [string, string][] {
  const reason = textOf(runtime['reason'])
  if (reason !== '') return [['Now', `its node does not say: ${reason}`]]
  const metadata = fieldsOf(runtime['metadata'])
  const rows: [string, string][] = [['Now', joined(': ', textOf(metadata['state']), textOf(metadata['state_reason']))]]
  const lease = fieldsOf(metadata['lease'])
  if (textOf(lease['ends_at']) !== '') rows.push(['Lease', `${textOf(lease['state'])}, until ${textOf(lease['ends_at'])}`])
  rows.push(['Backup', drawBackup(fieldsOf(metadata['backup']), nowMs)])
  rows.push(['Launch', drawTicket(fieldsOf(metadata['launch_ticket']))])
  return rows
}

/** What opens the screen of an agent that has one. */
function drawTicket(ticket: Readonly<Record<string, unknown>>): string {
  const url = textOf(ticket['url'])
  return url === '' ? 'no ticket: its machine has no screen to open' : `${url} (ticket until ${textOf(ticket['expires_at'])})`
}

function drawBackup(backup: Readonly<Record<string, unknown>>, nowMs: number): string {
  const freshness = textOf(backup['freshness'])
  if (freshness === '') return 'this substrate makes none'
  const at = textOf(backup['latest_successful_backup_at'])
  const name = textOf(backup['latest_recovery_point_name'])
  const target = textOf(backup['backup_target'])
  return joined(', ', freshness, at === '' ? 'none yet' : `${name} ${relativeTime(at, nowMs)}`, target)
}

function nextOf({ name, phase, cleanup }: Managed): string {
  if (phase === 'ready') return `pylon agent attach ${name}`
  if (phase === 'failed') return cleanup === 'kept' ? `look at it, then: pylon agent delete ${name}` : `pylon agent delete ${name}`
  return `it goes on by itself: pylon agent show ${name}`
}
