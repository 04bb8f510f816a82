/** Managed agents and what is said with them, as the control socket shows it; pure but for reads. */
import { rfc3339 } from '../../base/clock.ts'
import { asRecord } from '../../base/json.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { listManagedAgents, type ManagedAgentRow, type ManagedStep, stepsOfManagedAgent } from '../../store/buying/managed-agents.ts'
import type { Store } from '../../store/store.ts'
import type { Line, ShownMessage } from './chat.ts'
import { commandOf } from './managed-agent.ts'

/** @param ownPubkey of the node; undefined while it is stopped */
export function managedView(row: ManagedAgentRow, ownPubkey: string | undefined) {
  const { provider, protocol, relay_urls, runtime_class } = commandOf(row)
  const runtimeClass = asRecord(row.runtime)['runtime_class'] ?? runtime_class
  return {
    kind: 'managed' as const,
    name: row.name,
    npub: row.botPubkey === null ? null : npubOf(row.botPubkey),
    phase: row.phase,
    reason: row.cleanupReason ?? row.reason,
    provider,
    protocol,
    server: npubOf(row.server),
    own_node: ownPubkey === undefined ? null : row.server === ownPubkey,
    runtime_id: row.runtimeId,
    runtime_class: typeof runtimeClass === 'string' ? runtimeClass : null,
    group_id: row.groupId,
    cleanup: row.cleanup,
    relays: [...relay_urls],
    keep: row.keep,
    created_at: rfc3339(row.createdAt),
  }
}

/** One that failed with nothing left of it is listed this long; by its name it is found for longer. */
const LIST_FAILED_MS = 3600_000

export const managedViews = (store: Store, ownPubkey: string | undefined, nowMs: number) =>
  listManagedAgents(store)
    .filter((row) => !isOver(row) || row.updatedAt > nowMs - LIST_FAILED_MS)
    .map((row) => managedView(row, ownPubkey))

const isOver = ({ phase, cleanup }: ManagedAgentRow): boolean => phase === 'failed' && (cleanup === 'none' || cleanup === 'done')

export function managedDetail(store: Store, row: ManagedAgentRow, ownPubkey: string | undefined) {
  const seen = new Set<string>()
  const firsts = stepsOfManagedAgent(store, row.id).filter(({ phase }) => !seen.has(phase) && seen.add(phase) !== undefined)
  return {
    ...managedView(row, ownPubkey),
    steps: firsts.map((step) => stepView(step, row.createdAt)),
    runtime: descriptorOf(row),
  }
}

/** The node's own words, which were decoded when they came. */
export function descriptorOf({ runtime }: ManagedAgentRow) {
  return runtime === null ? null : (asRecord(runtime) as { runtime_id: string; provider: string; lifecycle_phase: string })
}

export function stepView({ id, phase, message, at }: ManagedStep, createdAt: number) {
  return { id, phase, message, at: rfc3339(at), after_ms: Math.max(0, at - createdAt) }
}

/** Which way it went. */
export const lineView = ({ via, id }: Line) => ({ via, group_id: via === 'session' ? id : null })

export function messageView({ message, type, shown, isEnd, answers }: ShownMessage) {
  return {
    id: message.id,
    seq: message.seq,
    from: npubOf(message.sender),
    own: message.isOwn,
    kind: message.kind,
    type,
    content: message.content,
    shown: shown.map((one) => ({ ...one })),
    is_end: isEnd,
    answers: answers === undefined ? null : [...answers],
    state: message.state,
    reason: message.reason,
    said_at: rfc3339(message.createdAt * 1000),
  }
}
