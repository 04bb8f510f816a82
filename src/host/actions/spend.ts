/** Actions that spend: claimed first, then one wallet operation named after the action, whose outcome may come later. */

import { accountOf, agentOwner } from '../../base/accounts.ts'
import { msats, msatsToSatsUp } from '../../base/amounts.ts'
import { isPylonError, messageOf, PylonError, toPylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { isBunkerSilent } from '../../nostr/keys/away.ts'
import { zapSplitsOf } from '../../nostr/nips/nip57.ts'
import { type ActionRow, claimAction, finishAction } from '../../store/agents/actions.ts'
import type { AgentRow } from '../../store/agents/agents.ts'
import { hasHeardFrom } from '../../store/agents/heard.ts'
import { actionKey, zapKey } from '../../store/keys.ts'
import { isApproved } from '../../store/money/approvals.ts'
import { swapFeesOf } from '../../store/money/swap-fees.ts'
import { getZapSend } from '../../store/money/zaps.ts'
import { decodeInvoice } from '../../wallet/lightning/bolt11.ts'
import { agentLimits, assertMaySpend, bindSpend, type Spend as PolicySpend } from '../../wallet/policy/spends.ts'
import type { PayResult, WalletEvent } from '../../wallet/types.ts'
import type { ZapResult } from '../../wallet/zaps/zaps.ts'
import { type HostDeps, ownerOf, relaysOf } from '../parts.ts'
import { type Action, parseAction, readZapTarget } from './action.ts'
import type { Publisher } from './publish.ts'

type Spend = Extract<Action, { type: 'zap' | 'pay_invoice' }>

export const isSpend = (type: string): boolean => type === 'zap' || type === 'pay_invoice'

/** Whether policy said no, by whatever rule. */
export const isRefusal = (error: unknown): boolean =>
  isPylonError(error, 'action_refused') || isPylonError(error, 'budget_exceeded') || isPylonError(error, 'spend_refused')

/** The key of the wallet's operation. */
export const walletKeyOf = (row: Pick<ActionRow, 'id' | 'type'>): string => (row.type === 'zap' ? zapKey : actionKey).of(row.id)

/** One planned action of one agent, and what it is done with. */
export interface ActionRun {
  readonly deps: HostDeps
  readonly publisher: Publisher
  readonly agent: AgentRow
  readonly row: ActionRow
}

/** Before anything is asked for it: who is zapped and with how much is known. @throws budget_exceeded, spend_refused */
export function assertMayZap(run: ActionRun, action: Extract<Spend, { type: 'zap' }>, counterparty: string | undefined): void {
  const { deps, agent, row } = run
  const move = { owner: ownerOf(agent), cause: { type: 'action', id: row.id }, rail: 'mint' } as const
  assertMaySpend(deps, bindSpend(deps, move, { ...spendOf(run), counterparty }), { amountSats: BigInt(action.sats) })
}

/** Takes up a spend and drives it as far as it goes now; also continues one that was taken up before. */
export async function runSpend(run: ActionRun, action: Spend, counterparty: string | undefined): Promise<void> {
  const { deps, row } = run
  if (row.state === 'planned' || row.state === 'approved') {
    await deps.store.write(
      claimAction({ id: row.id, counterparty: counterparty ?? null, eventId: null, digest: null, at: deps.clock.now() }),
    )
  }
  try {
    const result = action.type === 'zap' ? await zap(run, action, counterparty) : await pay(run, action)
    await settle(deps, row, action, result)
  } catch (error) {
    await settleFailure(run, action, error)
  }
}

async function zap(run: ActionRun, action: Extract<Spend, { type: 'zap' }>, counterparty: string | undefined): Promise<ZapResult> {
  const { deps, publisher, agent, row } = run
  const { eventId, pubkey } = readZapTarget(action.to)
  const recipient = counterparty ?? pubkey ?? (await publisher.find(agent, eventId ?? '')).pubkey
  return deps.sendZap({
    from: ownerOf(agent),
    recipient,
    ...given({ eventId }),
    amountSats: BigInt(action.sats),
    comment: action.comment,
    relays: relaysOf(deps, agent),
    actionId: row.id,
    spend: { ...spendOf(run), counterparty: recipient },
    ...given({ splits: eventId === undefined ? undefined : async () => zapSplitsOf(await publisher.find(agent, eventId)) }),
    refuses: (pubkey) => whyNoShare(run, pubkey),
  })
}

/** An event that the agent may zap can name anybody to share it: whom it may not zap gets no share. */
function whyNoShare({ deps, agent, row }: ActionRun, pubkey: string): string | undefined {
  const { store, keyring } = deps
  const isAcquainted = keyring.owns(pubkey) || agent.allow.includes(pubkey) || hasHeardFrom(store, agent.pubkey, pubkey)
  if (agent.autonomy !== 'bounded' || isAcquainted || isApproved(store, row.id)) return undefined
  return 'the agent is bounded and this key neither contacted it, nor is of this home, nor on its allow list'
}

/** What the books say of a spend that was taken up; undefined where nothing was spent. */
export function outcomeOf(deps: HostDeps, row: Pick<ActionRow, 'id' | 'type' | 'agentPubkey'>) {
  const owner = { kind: 'agent', pubkey: row.agentPubkey } as const
  const key = walletKeyOf(row)
  return row.type === 'zap' && deps.zapOutcome !== undefined ? deps.zapOutcome(owner, key) : deps.wallets.of(owner).payment(key)
}

/** Whose limits bind it. */
const spendOf = ({ deps, agent, row }: ActionRun): PolicySpend => ({
  subject: agent.pubkey,
  tickId: row.tickId,
  limits: agentLimits(agent, deps.config()),
})

async function pay(run: ActionRun, action: Extract<Spend, { type: 'pay_invoice' }>): Promise<PayResult> {
  const { deps, agent, row } = run
  const { request } = decodeInvoice(action.invoice)
  return deps.wallets.of(ownerOf(agent)).pay(
    {
      idempotencyKey: walletKeyOf(row),
      cause: { type: 'action', id: row.id },
      request,
      debitAccount: accountOf(agentOwner(agent.pubkey), 'expense', 'invoice'),
    },
    spendOf(run),
  )
}

/** What it gives somebody else, fees not counted; 0 where it spends nothing. @throws invoice_invalid */
export function amountOf(action: Action): bigint {
  if (action.type === 'zap') return BigInt(action.sats)
  return action.type === 'pay_invoice' ? msatsToSatsUp(msats(decodeInvoice(action.invoice).amountMsats ?? 0n)) : 0n
}

/** What it took: whole sats, with all fees; where nothing was paid, what swaps for it cost all the same. */
function costOf(deps: HostDeps, row: ActionRow, paid?: { action: Spend; feeSats: bigint; amountSats?: bigint | undefined }): bigint {
  if (paid === undefined) return swapFeesOf(deps.store, agentOwner(row.agentPubkey), walletKeyOf(row))
  const { action, feeSats, amountSats = amountOf(action) } = paid
  return (amountSats + feeSats) * 1000n
}

async function settle(deps: HostDeps, row: ActionRow, action: Spend, result: ZapResult): Promise<void> {
  const at = deps.clock.now()
  if (result.state === 'unknown') {
    await deps.store.write(finishAction({ id: row.id, state: 'unknown', reason: 'the outcome of the payment is not known yet', at }))
    return
  }
  const costMsats = costOf(deps, row, { action, feeSats: result.feeSats, amountSats: result.amountSats })
  const reason = shareNote(result) ?? noteOf(deps, row)
  await deps.store.write(finishAction({ id: row.id, state: 'done', reason, costMsats, at }))
}

function shareNote({ parts = [] }: ZapResult): string | undefined {
  const failed = parts.filter(({ state }) => state === 'failed')
  if (parts.length === 0) return undefined
  const [first] = failed
  const why = first === undefined ? '' : `; ${failed.length} could not be paid: ${first.reason ?? 'no reason given'}`
  return `shared by ${parts.length} keys, as the event says${why}`.slice(0, 500)
}

/** What is worth knowing of a zap that was paid. */
const noteOf = (deps: HostDeps, row: ActionRow): string | null => getZapSend(deps.store, walletKeyOf(row))?.note ?? null

/** The wallet's books decide what an error means: only what it surely did not spend has failed. */
async function settleFailure({ deps, row }: ActionRun, action: Spend, error: unknown): Promise<void> {
  if (isPylonError(error, 'shutting_down')) throw error
  // Not even signed: it goes on when the bunker does.
  if (isBunkerSilent(error)) throw error
  const known = outcomeOf(deps, row)
  if (known !== undefined && known.state !== 'failed') return settle(deps, row, action, known)
  const failure = toPylonError(error)
  const state = isRefusal(failure) ? 'refused' : 'failed'
  const reason = messageOf(failure).slice(0, 500)
  await deps.store.write(finishAction({ id: row.id, state, reason, costMsats: costOf(deps, row), at: deps.clock.now() }))
}

/** What the wallet says later about a payment whose outcome was open. */
export async function onPaymentEvent(deps: HostDeps, row: ActionRow, event: WalletEvent): Promise<void> {
  // One share of several: what they came to together counts, once it is known.
  if (event.idempotencyKey !== walletKeyOf(row)) return await onShareEvent(deps, row)
  const at = deps.clock.now()
  if (event.type === 'payment_failed') {
    await deps.store.write(finishAction({ id: row.id, state: 'failed', reason: event.reason, costMsats: costOf(deps, row), at }))
  }
  if (event.type !== 'payment_settled') return
  const action = parseAction(row.params)
  if (action.type !== 'zap' && action.type !== 'pay_invoice') throw new PylonError('internal', `The action ${row.id} is no spend.`)
  const costMsats = costOf(deps, row, { action, feeSats: event.feeSats })
  await deps.store.write(finishAction({ id: row.id, state: 'done', reason: noteOf(deps, row), costMsats, at }))
}

/** What was left unknown is settled; while the zap itself is under way, who sends it does. @throws conflict then, so that the event comes again */
async function onShareEvent(deps: HostDeps, row: ActionRow): Promise<void> {
  if (row.state === 'claimed') throw new PylonError('conflict', `The zap ${row.id} is under way still.`)
  if (row.state !== 'unknown') return
  const action = parseAction(row.params)
  const outcome = outcomeOf(deps, row)
  if (action.type !== 'zap' || outcome === undefined || outcome.state === 'unknown') return
  if (outcome.state === 'paid') return await settle(deps, row, action, outcome)
  const costMsats = costOf(deps, row)
  await deps.store.write(finishAction({ id: row.id, state: 'failed', reason: outcome.reason, costMsats, at: deps.clock.now() }))
}
