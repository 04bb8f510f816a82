/** Runs one planned action: policy first, then the claim, then what it does. What goes wrong ends the action, not the tick. */
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { randomUuid } from '../../base/random.ts'
import { isBunkerSilent } from '../../nostr/keys/away.ts'
import { countSpokenTo, finishAction, getAction } from '../../store/agents/actions.ts'
import type { AgentRow } from '../../store/agents/agents.ts'
import { answersBefore } from '../../store/agents/exchanges.ts'
import { putGoal } from '../../store/agents/goals.ts'
import { hasHeardFrom } from '../../store/agents/heard.ts'
import { addMemory } from '../../store/agents/memories.ts'
import { all } from '../../store/commands.ts'
import { askApproval } from '../../store/money/approvals.ts'
import { spentSince } from '../../store/money/budgets.ts'
import type { Observation } from '../observation.ts'
import { judgeAction, MAX_TURNS } from '../policy.ts'
import { type Action, parseAction, readZapTarget } from './action.ts'
import { type ActionRun, amountOf, assertMayZap, isRefusal, isSpend, runSpend } from './spend.ts'

const HOUR_MS = 3_600_000

/** Whether an error is about this process, its disk or the bunker of its key, not about the action: the action is then taken up again later. */
const isOurs = (error: unknown): boolean =>
  isPylonError(error, 'shutting_down') ||
  isPylonError(error, 'disk_full') ||
  isPylonError(error, 'database_busy') ||
  isPylonError(error, 'locked') ||
  isBunkerSilent(error)

/** What policy looks at of all that the agent has observed. */
export interface ActionContext {
  /** errand: nobody's tick, asked for from outside. */
  readonly tick: { readonly trigger: Observation['tick']['trigger'] | 'errand' }
  readonly mentions: readonly Pick<Observation['mentions'][number], 'id'>[]
  readonly dms: readonly Pick<Observation['dms'][number], 'pubkey' | 'own_home' | 'text'>[]
  readonly zaps: readonly Pick<Observation['zaps'][number], 'event_id'>[]
}

/**
 * One that waits for its owner stays; one that was approved is judged once more, and done.
 * @throws only what is no fault of the action: shutting_down, disk_full, locked, bunker_unreachable
 */
export async function runAction(run: ActionRun, observation: ActionContext): Promise<void> {
  const { deps, row } = run
  const resumes = isSpend(row.type) && (row.state === 'claimed' || row.state === 'unknown')
  const isFresh = row.state === 'planned' || row.state === 'approved'
  if (!isFresh && !resumes) return
  try {
    const action = parseAction(row.params)
    // A spend that was taken up knows whom it concerns: it must not fail because a relay that could tell is down.
    const counterparty = row.state === 'planned' ? await counterpartyOf(run, action) : (row.counterparty ?? undefined)
    const asks = isFresh ? judge(run, action, counterparty, observation) : undefined
    if (asks !== undefined) return await wait(run, action, { counterparty, why: asks })
    await perform(run, action, counterparty)
  } catch (error) {
    if (isOurs(error)) throw error
    // Two runs of one tick cannot be; a conflict means that the claim was committed and its answer lost.
    if (isPylonError(error, 'conflict') && getAction(deps.store, row.id)?.state !== row.state) return
    const state = isRefusal(error) ? 'refused' : 'failed'
    await deps.store.write(finishAction({ id: row.id, state, reason: messageOf(error).slice(0, 500), at: deps.clock.now() }))
  }
}

async function counterpartyOf({ publisher, agent }: ActionRun, action: Action): Promise<string | undefined> {
  switch (action.type) {
    case 'dm':
    case 'request_payment':
      return action.to
    case 'reply':
    case 'react':
      return (await publisher.find(agent, action.to, action.relays)).pubkey
    case 'zap': {
      const { eventId, pubkey } = readZapTarget(action.to)
      // Whom a pointer calls the author is the word of who made the pointer.
      return eventId === undefined ? pubkey : (await publisher.find(agent, eventId)).pubkey
    }
    default:
      return undefined
  }
}

/** @returns why its owner is to be asked first; undefined where it may be done @throws action_refused, budget_exceeded, spend_refused */
function judge(run: ActionRun, action: Action, counterparty: string | undefined, observation: ActionContext): string | undefined {
  const { deps, agent, row } = run
  const { store, clock, keyring } = deps
  const { host } = deps.config()
  const isOwnHome = counterparty !== undefined && keyring.owns(counterparty)
  const verdict = judgeAction(action, {
    autonomy: agent.autonomy,
    isPaused: agent.state === 'paused' && observation.tick.trigger !== 'manual',
    self: agent.pubkey,
    index: row.index,
    actionsPerTick: host.actions_per_tick,
    counterparty,
    isOwnHome,
    answersBefore: isOwnHome ? answersBefore(store, row.tickId, MAX_TURNS) : 0,
    isListed: counterparty !== undefined && agent.allow.includes(counterparty),
    hasContacted: counterparty !== undefined && hasHeardFrom(store, agent.pubkey, counterparty),
    spokenRecently: counterparty === undefined ? 0 : countSpokenTo(store, agent.pubkey, counterparty, clock.now() - HOUR_MS),
    repliesPerHour: host.replies_per_hour,
    isForeignZapped: action.type === 'reply' && counterparty !== agent.pubkey && isOnlyZapped(action.to, observation),
    isAboveUnasked: isAboveUnasked(run, action),
    isApproved: row.state === 'approved',
    invoiceFromTrusted: action.type === 'pay_invoice' && isFromTrusted(agent, action.invoice, observation),
  })
  if (!verdict.allowed) throw new PylonError('action_refused', verdict.reason)
  if (action.type === 'zap') assertMayZap(run, action, counterparty)
  return verdict.asks
}

async function wait(
  { deps, agent, row }: ActionRun,
  action: Action,
  { counterparty, why }: { counterparty: string | undefined; why: string },
): Promise<void> {
  const askedAt = deps.clock.now()
  const expiresAt = askedAt + deps.config().host.approval_expiry_s * 1000
  const asked = { actionId: row.id, agentPubkey: agent.pubkey, type: action.type, params: action, counterparty: counterparty ?? null }
  await deps.store.write(askApproval({ ...asked, amountSats: amountOf(action), why, askedAt, expiresAt }))
  deps.onAsked?.()
}

/** Whether a spend, with what was spent in the last hour, passes what needs no word of the owner: parts of one count together. */
function isAboveUnasked({ deps, agent }: ActionRun, action: Action): boolean {
  const above = agent.budget.approve_above_sats ?? 0
  if (above === 0 || !isSpend(action.type)) return false
  return amountOf(action) + spentSince(deps.store, agent.pubkey, deps.clock.now() - HOUR_MS) > BigInt(above)
}

/** Whether a note came up by the request of a zap, whose sender may name any, and does not mention the agent. */
function isOnlyZapped(noteId: string, { zaps, mentions }: ActionContext): boolean {
  return zaps.some((zap) => zap.event_id === noteId) && !mentions.some((mention) => mention.id === noteId)
}

function isFromTrusted(agent: AgentRow, invoice: string, observation: ActionContext): boolean {
  const bare = invoice.replace(/^lightning:/i, '').toLowerCase()
  return observation.dms.some((dm) => (dm.own_home || agent.allow.includes(dm.pubkey)) && dm.text.toLowerCase().includes(bare))
}

async function perform(run: ActionRun, action: Action, counterparty: string | undefined): Promise<void> {
  const { deps, publisher, agent, row } = run
  const at = deps.clock.now()
  const done = finishAction({ id: row.id, state: 'done', reason: null, at })
  switch (action.type) {
    case 'post':
      return publisher.post(agent, row, action)
    case 'reply':
      return publisher.reply(agent, row, action)
    case 'react':
      return publisher.react(agent, row, action)
    case 'channel':
      return publisher.channel(agent, row, action)
    case 'dm':
      return publisher.dm(agent, row, action)
    case 'request_payment':
      return publisher.requestPayment(agent, row, action)
    case 'zap':
    case 'pay_invoice':
      return runSpend(run, action, counterparty)
    case 'set_goal': {
      const { type: _type, ...goal } = action
      await deps.store.write(all(putGoal({ agentPubkey: agent.pubkey, goal: { id: randomUuid(deps.scope.random), ...goal }, at }), done))
      return
    }
    case 'remember':
      await deps.store.write(all(addMemory({ agentPubkey: agent.pubkey, content: action.text, actionId: row.id, at }), done))
      return
    case 'nothing':
      await deps.store.write(done)
  }
}
