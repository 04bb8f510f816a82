/**
 * The one place that every spend of every wallet passes: who is bound by it, what the judge says of it, and the holds that its
 * operation makes in the same commit. What no limit binds is exempt by name, so that nothing is by accident.
 */
import { type Account, accountOwner, parseAccount, type WalletOwner } from '../../base/accounts.ts'
import type { Clock } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { parsePubkey } from '../../nostr/nips/nip19.ts'
import type { AgentRow } from '../../store/agents/agents.ts'
import type { Command } from '../../store/commands.ts'
import { assertInWindows, holdSpend, type SpendHold } from '../../store/money/budgets.ts'
import type { Cause } from '../../store/money/ledger.ts'
import type { Store } from '../../store/store.ts'
import { judgeSpend, type Rail, type SpendLimits } from './judge.ts'

/** Whom a spend counts against. The limits of `owner`, `customer` and `payout` stand in the configuration. */
export interface Spend {
  /** A pubkey of an agent, `nwc:<id>` of a connection that others use, or a name of the above. */
  readonly subject: string
  readonly tickId?: string | undefined
  /** Who is paid: a key in hex, an address or a host. */
  readonly counterparty?: string | undefined
  /** By what else lists may mean it, as the host of an LNURL. */
  readonly names?: readonly string[] | undefined
  readonly limits?: SpendLimits | undefined
  /** Others that it must fit too: of a connection its agent. */
  readonly besides?: readonly Pick<Spend, 'subject' | 'limits'>[] | undefined
}

/**
 * Spends that no limit holds: `refund` gives a deposit back, `own` moves sats between wallets of this home or from coin to coin.
 * Whom the home never pays it does not pay so either.
 */
type Exempt = 'refund' | 'own'

interface Party {
  readonly subject: string
  readonly limits: SpendLimits
}

/** A spend with all that judges it; made once for a move, asked as often as its cost changes. */
export interface BoundSpend {
  readonly rail: Rail
  readonly owner: WalletOwner
  readonly spend: Omit<Spend, 'limits' | 'besides' | 'subject'>
  readonly parties: readonly Party[]
}

interface PolicyContext {
  readonly store: Store
  readonly clock: Clock
  readonly config: () => Config
}

/** What is paid and by which operation, as its wallet knows it. */
interface Move {
  readonly owner: WalletOwner
  readonly cause: Cause
  readonly rail: Rail
  /** What the value is for; absent for a transfer. */
  readonly debitAccount?: Account
}

/** @throws internal where nobody says whose limits bind */
export function bindSpend({ config }: Pick<PolicyContext, 'config'>, move: Move, given?: Spend): BoundSpend {
  const { owner, rail } = move
  const policy = homePolicy(config())
  const spend = given ?? impliedSpend(move)
  if (typeof spend === 'string') return { rail, owner, spend: {}, parties: [{ subject: spend, limits: { deny: policy.deny } }] }
  const { subject, limits, besides = [], ...rest } = spend
  const parties = [{ subject, limits }, ...besides].map((party) => ({
    subject: party.subject,
    limits: withHome(party.limits ?? limitsByName(policy, party.subject), policy),
  }))
  return { rail, owner, spend: rest, parties }
}

function impliedSpend({ owner, cause, rail, debitAccount }: Move): Spend | Exempt {
  if (rail === 'own') return 'own'
  if (debitAccount !== undefined && isDepositOf(owner, debitAccount)) return 'refund'
  if (cause.type === 'owner') return { subject: 'owner' }
  if (cause.type === 'purchase') return { subject: 'customer' }
  throw new PylonError('internal', `A spend for ${cause.type} ${cause.id} does not say whose limits bind it.`)
}

const EXEMPT: readonly string[] = ['refund', 'own'] satisfies Exempt[]

/** Whether a deposit of the same owner is given back. */
export function isDepositOf(owner: WalletOwner, account: Account): boolean {
  const parts = parseAccount(account)
  return parts.owner === accountOwner(owner) && parts.class === 'deposit'
}

interface Asked {
  readonly amountSats: bigint
  /** What swaps for it have cost, which the books have already. */
  readonly besidesSats?: bigint
}

/** That it may be made, as far as can be said now. @throws budget_exceeded, spend_refused */
export function assertMaySpend({ store, clock }: PolicyContext, bound: BoundSpend, asked: Asked): void {
  for (const hold of holdsOf(bound, { ...asked, operationId: '', at: clock.now() })) assertInWindows(store.sql, hold)
}

/** The holds of an operation, to stand in the commit that makes it. @throws spend_refused; the commit throws budget_exceeded */
export function holdsFor(bound: BoundSpend, operation: Asked & { readonly operationId: string; readonly at: number }): Command<unknown>[] {
  return holdsOf(bound, operation).map((hold) => holdSpend(hold))
}

function holdsOf(
  { rail, owner, spend, parties }: BoundSpend,
  { operationId, at, amountSats, besidesSats = 0n }: Asked & { readonly operationId: string; readonly at: number },
): SpendHold[] {
  const { tickId, counterparty, names } = spend
  return parties.flatMap(({ subject, limits }) => {
    const verdict = judgeSpend({ amountSats, rail, tickId, counterparty, names, at }, limits)
    if (!verdict.allowed)
      throw new PylonError('spend_refused', `The policy refuses this spend: ${verdict.reason}.`, { details: { rule: verdict.rule } })
    if (EXEMPT.includes(subject)) return []
    const { windows, pair } = verdict
    const held = {
      operationId,
      subject,
      ownerPubkey: owner.pubkey,
      tickId: tickId ?? null,
      counterparty: counterparty?.toLowerCase() ?? '',
    }
    return [{ ...held, rail, at, amountSats, besidesSats, windows, ...(pair === undefined ? {} : { pair }) }]
  })
}

/** [wallet.policy], with keys in hex; 0 stands for no limit there. */
interface HomePolicy extends SpendLimits {
  readonly deny: readonly string[]
  readonly pair: NonNullable<SpendLimits['pair']>
}

export function homePolicy({ wallet: { policy } }: Pick<Config, 'wallet'>): HomePolicy {
  return {
    ...limitsAbove0({
      perTxSats: policy.per_tx_sats,
      perHourSats: policy.per_hour_sats,
      perDaySats: policy.per_day_sats,
      perCounterpartySats: policy.per_counterparty_sats,
    }),
    rails: policy.rails,
    allow: policy.allow.map(nameInHex),
    deny: policy.deny.map(nameInHex),
    pair: { payments: policy.pair_payments, windowMs: policy.pair_window_s * 1000 },
  }
}

const limitsAbove0 = <K extends keyof SpendLimits>(limits: Readonly<Record<K, number | undefined>>): { readonly [P in K]?: bigint } =>
  Object.fromEntries(
    Object.entries<number | undefined>(limits).flatMap(([name, value]) =>
      value === undefined || value === 0 ? [] : [[name, BigInt(value)]],
    ),
  ) as { readonly [P in K]?: bigint }

/** What no agent and no connection decides is bound by the configuration alone. */
function limitsByName(policy: HomePolicy, subject: string): SpendLimits {
  const { pair: _pair, ...limits } = policy
  if (subject === 'owner' || subject === 'customer' || subject === 'payout') return limits
  throw new PylonError('internal', `A spend of ${subject} comes without its limits.`)
}

/** Whom the home never pays nobody of it pays. */
const withHome = (limits: SpendLimits, { deny }: HomePolicy): SpendLimits => ({ ...limits, deny: [...(limits.deny ?? []), ...deny] })

/** The limits of an agent, by its budget, and of the home for two that pay each other. */
export function agentLimits(agent: Pick<AgentRow, 'budget'>, config: Config): SpendLimits {
  const { budget } = agent
  return {
    perTxSats: BigInt(budget.per_tx_sats),
    perTickSats: BigInt(budget.per_tick_sats),
    perDaySats: BigInt(budget.per_day_sats),
    ...limitsAbove0({ perHourSats: budget.per_hour_sats, perCounterpartySats: budget.per_counterparty_sats }),
    rails: budget.rails ?? [],
    deny: budget.deny ?? [],
    pair: homePolicy(config).pair,
  }
}

/** As it is compared: a key in hex, an address or host in small letters. */
export function nameInHex(text: string): string {
  try {
    return parsePubkey(text)
  } catch (error) {
    if (isPylonError(error, 'pubkey_invalid')) return text.trim().toLowerCase()
    throw error
  }
}
