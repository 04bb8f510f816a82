/** Handlers of the routes about standing payouts. */
import type { WalletOwner } from '../../base/accounts.ts'
import { sats } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import type { payoutRoutes } from '../../control/contract/payouts.ts'
import type { Handlers } from '../../control/route.ts'
import { findAgent } from '../../store/agents/agents.ts'
import { listPayoutRules, type PayoutRow, type PayoutRule, recentPayouts } from '../../store/money/payouts.ts'
import type { Store } from '../../store/store.ts'
import type { PayoutPlan } from '../../wallet/payouts/plan.ts'
import type { ReadServices, Services } from '../services.ts'
import { lockKey, ownerNamed } from './wallet.ts'

type Routes = typeof payoutRoutes

const SHOWN = 10

export function payoutsReadHandlers({ store }: Pick<ReadServices, 'store'>): Pick<Handlers<Routes>, 'listPayouts'> {
  return {
    listPayouts: ({ limit = 20 }) => ({
      rules: listPayoutRules(store).map((rule) => ruleView(store, rule)),
      payouts: recentPayouts(store, limit).map((row) => payoutView(store, row)),
    }),
  }
}

export function payoutsHandlers({ store, keyring, parts }: Services): Omit<Handlers<Routes>, 'listPayouts'> {
  const payouts = () => parts.payouts.get()
  const ownerOf = (name: string) => ownerNamed(keyring, store, name)
  return {
    getPayout: ({ wallet }) => {
      const owner = ownerOf(wallet)
      const rule = ruleView(store, payouts().rule(owner))
      const last = recentPayouts(store, SHOWN, owner.pubkey).map((row) => payoutView(store, row))
      return { rule, ...planView(payouts().plan(owner, 'above')), payouts: last }
    },
    setPayout: async ({ wallet, address, lock_to, above_sats, keep_sats }) => {
      if ((address === undefined) === (lock_to === undefined))
        throw new PylonError('invalid_request', 'Name an address, or the key that tokens are to be locked to.')
      const target = address === undefined ? { lockTo: lockKey(lock_to ?? '') } : { address }
      const limits = { aboveSats: BigInt(above_sats), keepSats: BigInt(keep_sats) }
      return ruleView(store, await payouts().set({ owner: ownerOf(wallet), target, ...limits }))
    },
    dropPayout: async ({ wallet }) => {
      await payouts().off(ownerOf(wallet))
      return { wallet }
    },
    payOutNow: async ({ wallet, dry_run }) => {
      const owner = ownerOf(wallet)
      if (dry_run === true) return { ...planView(payouts().plan(owner, 'now')), payouts: [] }
      const done = await payouts().now(owner)
      return { next: null, reason: done.reason, payouts: done.payouts.map((row) => payoutView(store, row)) }
    },
  }
}

const planView = (plan: PayoutPlan | string) =>
  typeof plan === 'string'
    ? { next: null, reason: plan }
    : { next: { mint_url: plan.mintUrl, amount_sats: sats(plan.amountSats), limit_sats: sats(plan.limitSats) }, reason: null }

const timeOrNull = (ms: number | null) => (ms === null ? null : rfc3339(ms))

function ruleView(store: Store, rule: PayoutRule) {
  const { owner, targetType, target, aboveSats, keepSats, state, failures, failure, failedAt, nextTryAt, setAt } = rule
  return {
    ...{ wallet: walletName(store, owner), target_type: targetType, target, state, failures, failure },
    ...{ above_sats: sats(aboveSats), keep_sats: sats(keepSats) },
    ...{ failed_at: timeOrNull(failedAt), next_try_at: timeOrNull(nextTryAt), set_at: rfc3339(setAt) },
  }
}

function payoutView(store: Store, row: PayoutRow) {
  const { id, owner, targetType, target, amountSats, limitSats, feeSats, state, file, failure, createdAt } = row
  return {
    ...{ id, wallet: walletName(store, owner), target_type: targetType, target, state, file, failure },
    ...{ amount_sats: sats(amountSats), limit_sats: sats(limitSats), fee_sats: feeSats === null ? null : sats(feeSats) },
    created_at: rfc3339(createdAt),
  }
}

/** As the commands name it. */
export function walletName(store: Store, owner: WalletOwner): string {
  return owner.kind === 'agent' ? (findAgent(store, owner.pubkey)?.name ?? owner.pubkey) : owner.kind
}
