/** Standing payouts: one rule a wallet, and every payout that was begun under one, each a durable row with its own key. */
import { PylonError } from '../../base/errors.ts'
import { canStep, PAYOUT_STEPS, type PayoutState } from '../../base/states.ts'
import { defineCommand, type Sql } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, table } from '../table.ts'
import { appendAudit } from './audit.ts'
import { walletOwner } from './fields.ts'

/** What an address answered when it was set: what answers otherwise is not paid. */
export interface AddressPin {
  /** Who was asked, and who gives invoices: host and port. */
  readonly host: string
  readonly callbackHost: string
  /** Whom it says it is the address of; null where it does not say. */
  readonly identifier: string | null
  /** The key of its zap receipts, in hex; null where it takes no zaps. */
  readonly nostrPubkey: string | null
  /** What it took at most, in sats: no part of who it is. */
  readonly mostSats: number
}

export type PayoutTarget =
  | { readonly type: 'address'; readonly name: string; readonly url: string; readonly pin: AddressPin }
  /** `lockTo`: a compressed key. */
  | { readonly type: 'token'; readonly name: string; readonly lockTo: string }

const failure = column.orNull(column.group({ code: column.text('error_code'), message: column.text('error_message') }))

const RULE = {
  owner: walletOwner,
  targetType: column.text<PayoutTarget['type']>(),
  /** The address as it was given, or the key that tokens are locked to. */
  target: column.text(),
  url: column.orNull(column.text()),
  pin: column.orNull(column.json<AddressPin>('pin_json')),
  lockTo: column.orNull(column.text()),
  aboveSats: column.amount(),
  keepSats: column.amount(),
  /** `stopped`: nothing is sent until the owner sets it again. */
  state: column.text<'on' | 'stopped'>(),
  /** More is to follow of a sweep that has begun. */
  sweeping: column.flag(),
  /** In a row. */
  failures: column.int(),
  failure,
  failedAt: column.orNull(column.int()),
  nextTryAt: column.orNull(column.int()),
  /** Which setting of the rule it is. */
  setAt: column.int(),
}
export type PayoutRule = RowOf<typeof RULE>
const rules = table('payout_rules', RULE)

const PAYOUT = {
  id: column.text(),
  owner: walletOwner,
  idempotencyKey: column.text(),
  ruleSetAt: column.int(),
  targetType: column.text<PayoutTarget['type']>(),
  target: column.text(),
  amountSats: column.amount(),
  /** The most that may leave. */
  limitSats: column.amount(),
  feeSats: column.orNull(column.amount()),
  state: column.text<PayoutState>(),
  /** Of a token: where it was written. */
  file: column.orNull(column.text()),
  failure,
  createdAt: column.int(),
  updatedAt: column.int(),
}
export type PayoutRow = RowOf<typeof PAYOUT>
const payouts = table('payouts', PAYOUT)

type Owner = PayoutRule['owner']

const audited = (at: number, owner: Owner, data: Readonly<Record<string, unknown>>) =>
  ({ at, kind: 'payout_changed', data: { wallet: owner, ...data } }) as const

/** The rule of a wallet from now on, whatever it had before. */
export const setPayoutRule = defineCommand(
  'set_payout_rule',
  (sql, p: { owner: Owner; target: PayoutTarget; aboveSats: bigint; keepSats: bigint; at: number }) => {
    const { owner, target, aboveSats, keepSats, at } = p
    const last = rules.get(sql, { owner })?.setAt ?? 0
    sql('DELETE FROM payout_rules WHERE owner_pubkey = ?').run(owner.pubkey)
    const isAddress = target.type === 'address'
    rules.insert(sql, {
      ...{ owner, targetType: target.type, target: target.name, aboveSats, keepSats },
      url: isAddress ? target.url : null,
      pin: isAddress ? target.pin : null,
      lockTo: isAddress ? null : target.lockTo,
      state: 'on',
      // Two settings in one millisecond are two.
      setAt: Math.max(at, last + 1),
    })
    appendAudit(sql, audited(at, owner, { to: 'set', target: target.name, above_sats: Number(aboveSats), keep_sats: Number(keepSats) }))
  },
)

/** @returns whether there was one */
export const dropPayoutRule = defineCommand('drop_payout_rule', (sql, p: { owner: Owner; at: number }): boolean => {
  const gone = sql('DELETE FROM payout_rules WHERE owner_pubkey = ?').run(p.owner.pubkey).changes > 0
  if (gone) appendAudit(sql, audited(p.at, p.owner, { to: 'off' }))
  return gone
})

/** A sweep that has begun goes on until too little is left. */
export const setSweeping = defineCommand('set_sweeping', (sql, p: { owner: Owner; sweeping: boolean }) => {
  rules.patch(sql, { owner: p.owner }, { sweeping: p.sweeping })
})

type NewPayout = Pick<PayoutRow, 'id' | 'owner' | 'idempotencyKey' | 'targetType' | 'target' | 'amountSats' | 'limitSats'> & {
  readonly ruleSetAt: number
  readonly at: number
}

/** Claims it before anything is asked or spent. False where another of this wallet is under way, or the rule is not that any more. */
export const beginPayout = defineCommand('begin_payout', (sql, { at, ...p }: NewPayout): boolean => {
  const rule = rules.get(sql, { owner: p.owner })
  if (rule?.setAt !== p.ruleSetAt || rule.state !== 'on') return false
  if (!payouts.insert(sql, { ...p, state: 'begun', createdAt: at, updatedAt: at }, 'ON CONFLICT DO NOTHING')) return false
  rules.patch(sql, { owner: p.owner }, { sweeping: true })
  return true
})

/** How it ended, or that nobody can say yet; with what that means for its rule, where that is still the same. */
export type PayoutEnd =
  | { readonly to: 'paid'; readonly amountSats: bigint; readonly feeSats: bigint; readonly file: string | null }
  | { readonly to: 'unknown' }
  | {
      readonly to: 'failed'
      readonly code: string
      readonly message: string
      /** Null: not before the owner sets it again. */
      readonly tryAt: number | null
    }

/** @throws internal for a step that there is not */
export const endPayout = defineCommand(
  'end_payout',
  (sql, p: { id: string; end: PayoutEnd; at: number }) => {
    const { end, at } = p
    const row = payouts.get(sql, { id: p.id })
    if (row === undefined || !canStep(PAYOUT_STEPS, row.state, end.to))
      throw new PylonError('internal', `The payout ${p.id} is ${row?.state ?? 'missing'}, which cannot become ${end.to}.`)
    const failure = end.to === 'failed' ? { code: end.code, message: end.message } : null
    const paid = end.to === 'paid' ? { amountSats: end.amountSats, feeSats: end.feeSats, file: end.file } : {}
    payouts.patch(sql, { id: p.id }, { state: end.to, updatedAt: at, failure, ...paid })
    const rule = rules.get(sql, { owner: row.owner, setAt: row.ruleSetAt })
    if (rule !== undefined && end.to !== 'unknown') noteAtRule(sql, rule, end, at)
  },
  (p) => `end_payout:${p.end.to}`,
)

function noteAtRule(sql: Sql, rule: PayoutRule, end: Exclude<PayoutEnd, { to: 'unknown' }>, at: number): void {
  const { owner } = rule
  if (end.to === 'paid') return void rules.patch(sql, { owner }, { failures: 0, failure: null, failedAt: null, nextTryAt: null })
  const { code, message, tryAt } = end
  const isStop = tryAt === null
  const change = { state: isStop ? ('stopped' as const) : rule.state, nextTryAt: tryAt, sweeping: false }
  rules.patch(sql, { owner }, { ...change, failures: rule.failures + 1, failure: { code, message }, failedAt: rule.failedAt ?? at })
  if (isStop) appendAudit(sql, audited(at, owner, { to: 'stopped', target: rule.target, reason: code }))
}

export const getPayoutRule = (store: Store, owner: Owner): PayoutRule | undefined => rules.get(store.sql, { owner })

export const listPayoutRules = (store: Store): PayoutRule[] => rules.all(store.sql, 'ORDER BY set_at, owner_pubkey')

/** Rules whose payouts fail or are stopped: for status, doctor and alerts. */
export const troubledPayouts = (store: Store): (PayoutRule & { readonly failure: NonNullable<PayoutRule['failure']> })[] =>
  rules.all(store.sql, 'WHERE error_code IS NOT NULL ORDER BY failed_at').flatMap((rule) => {
    const { failure } = rule
    return failure === null ? [] : [{ ...rule, failure }]
  })

export const getPayout = (store: Store, id: string): PayoutRow | undefined => payouts.get(store.sql, { id })

export const openPayouts = (store: Store): PayoutRow[] => payouts.all(store.sql, "WHERE state IN ('begun', 'unknown') ORDER BY created_at")

/** The newest first; of one wallet or of all. */
export const recentPayouts = (store: Store, limit: number, ownerPubkey?: string): PayoutRow[] =>
  payouts.all(store.sql, 'WHERE @owner IS NULL OR owner_pubkey = @owner ORDER BY created_at DESC, rowid DESC LIMIT @limit', {
    owner: ownerPubkey ?? null,
    limit: BigInt(limit),
  })
