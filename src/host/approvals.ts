/** Approvals: what waits for the owner of an agent is kept, ended in time, and done once when the owner says so, whatever dies between. */
import { rfc3339 } from '../base/clock.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import type { Scope } from '../base/scope.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import { getAction } from '../store/agents/actions.ts'
import { getAgent } from '../store/agents/agents.ts'
import {
  type ApprovalRow,
  approvedActions,
  type Decision,
  decideApproval,
  expireApprovals,
  getApproval,
  pendingApprovals,
  recentApprovals,
} from '../store/money/approvals.ts'
import type { Store } from '../store/store.ts'
import type { HostDeps } from './parts.ts'
import type { Scheduler } from './scheduler.ts'
import type { Ticker } from './tick.ts'

const CHECK_MS = 10_000
/** How long whoever approves waits to hear what became of the action. */
const DONE_WAIT_MS = 10_000

export class Approvals {
  readonly #deps: HostDeps
  readonly #scheduler: Scheduler
  readonly #ticker: Ticker
  readonly #scope: Scope
  /** Actions that are under way. */
  readonly #running = new Set<string>()

  constructor(deps: HostDeps, scheduler: Scheduler, ticker: Ticker) {
    this.#deps = deps
    this.#scheduler = scheduler
    this.#ticker = ticker
    this.#scope = deps.scope.child('approvals', {
      onFailure: ({ path, error }) =>
        deps.logger.warn({ what: path, error: messageOf(error) }, 'an approved action waits; it is tried again'),
    })
  }

  /** Goes on with what was approved, and looks now and then what has run out. */
  start(): void {
    this.#resume()
    this.#scope.every('check', CHECK_MS, async () => {
      await this.#deps.store.write(expireApprovals({ at: this.#deps.clock.now() }))
      this.#resume()
    })
  }

  /**
   * Decides once: the same again is answered alike. What is approved is done now, after what its agent does.
   * @throws approval_not_found, approval_decided where it ended otherwise before
   */
  async decide(decision: Omit<Decision, 'at'>): Promise<ApprovalRow> {
    const { store, clock } = this.#deps
    const row = await store.write(decideApproval({ ...decision, at: clock.now() }))
    if (row.state !== decision.to) throw decidedBefore(row)
    if (row.state === 'approved')
      await this.#scope.patience(
        DONE_WAIT_MS,
        this.#scope.run(`approval ${row.id}`, () => this.#do(row.actionId)),
      )
    return row
  }

  #resume(): void {
    for (const id of approvedActions(this.#deps.store)) this.#scope.spawnOnce(`action ${id}`, () => this.#do(id))
  }

  async #do(actionId: string): Promise<void> {
    const { store } = this.#deps
    const action = getAction(store, actionId)
    if (action === undefined || this.#running.has(actionId)) return
    this.#running.add(actionId)
    try {
      await this.#scheduler.inTurn(action.agentPubkey, () => this.#ticker.runApproved(actionId))
    } finally {
      this.#running.delete(actionId)
    }
  }
}

function decidedBefore({ id, state, reason, decidedAt }: ApprovalRow): PylonError {
  const when = decidedAt === null ? '' : ` at ${rfc3339(decidedAt)}`
  return new PylonError('approval_decided', `Approval ${id} was ${state}${when}${reason === null ? '' : `: ${reason}`}.`, {
    details: { state },
  })
}

/** Those that wait, oldest first, or all, newest first. @param order.after of those that wait: with higher ids */
export function readApprovals(store: Store, order: { all?: boolean; limit?: number; after?: number }): ApprovalView[] {
  const { all = false, limit = 100, after = 0 } = order
  return (all ? recentApprovals(store, limit) : pendingApprovals(store, limit, after)).map((row) => viewApproval(store, row))
}

/** @throws approval_not_found */
export function readApproval(store: Store, id: number): ApprovalView & { readonly params: unknown } {
  const row = getApproval(store, id)
  if (row === undefined)
    throw new PylonError('approval_not_found', `There is no approval ${id}; pylon approvals list shows those that wait.`)
  return { ...viewApproval(store, row), params: row.params }
}

export type ApprovalView = ReturnType<typeof viewApproval>

function viewApproval(store: Store, row: ApprovalRow) {
  const action = getAction(store, row.actionId)
  return {
    id: row.id,
    agent: getAgent(store, row.agentPubkey)?.name ?? npubOf(row.agentPubkey),
    action: row.type,
    amount_sats: Number(row.amountSats),
    to: row.counterparty === null ? null : npubOf(row.counterparty),
    asked_at: rfc3339(row.askedAt),
    expires_at: rfc3339(row.expiresAt),
    why: row.why,
    summary: summaryOf(row),
    state: row.state,
    decided_by: row.decidedBy,
    decided_at: row.decidedAt === null ? null : rfc3339(row.decidedAt),
    reason: row.reason,
    action_state: action?.state ?? null,
    action_reason: action?.reason ?? null,
  }
}

const MAX_SUMMARY_CHARS = 200
/** What turns or hides what is read: an agent may have it from strangers. */
const UNSEEN = /[\p{Cc}\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]/gu

/** In one line: what would be said, or for what is paid. */
export function summaryOf({ params }: Pick<ApprovalRow, 'params'>): string {
  const { text, content, comment, invoice, memo } = params as Readonly<Record<string, unknown>>
  const words = [text, content, comment, memo, invoice].find((value) => typeof value === 'string' && value !== '') ?? ''
  const line = String(words).replace(/\s+/g, ' ').replace(UNSEEN, '\ufffd')
  return line.length > MAX_SUMMARY_CHARS ? `${line.slice(0, MAX_SUMMARY_CHARS - 1)}…` : line
}
