/** What all wallets of a home hold together, by the ledger: also readable while the node is stopped. */
import type { WalletOwner } from '../../base/accounts.ts'
import { type Msats, msats, msatsToSatsDown, type Sats, sats } from '../../base/amounts.ts'
import type { Store } from '../store.ts'
import { column, Selection } from '../table.ts'
import type { SetAside } from './keysets.ts'
import { heldByMint } from './ledger.ts'
import { listMints } from './mints.ts'
import { atRiskSats } from './operations.ts'
import { betweenMintsSats } from './purse-moves.ts'
import { paidUnissuedSats } from './quotes.ts'

export interface HeldValue {
  readonly balanceSats: Sats
  /** In operations that are not over, and paid for quotes that their mints have not issued. */
  readonly atRiskSats: Sats
  /** Those on the list, and those off it that still hold something. */
  readonly mints: readonly {
    readonly url: string
    readonly balanceSats: Sats
    readonly state: 'ok' | 'down'
    readonly reason: string | null
    readonly setAside: readonly SetAside[]
  }[]
}

export function heldValue(store: Store): HeldValue {
  const byMint = heldByMint(store)
  const total = [...byMint.values()].reduce((sum, value) => sum + value, 0n)
  const listed = listMints(store)
  const others = [...byMint.keys()].filter((url) => (byMint.get(url) ?? 0n) > 0n && !listed.some((mint) => mint.url === url))
  const inSats = (url: string) => msatsToSatsDown(msats(byMint.get(url) ?? 0n))
  return {
    balanceSats: msatsToSatsDown(msats(total)),
    atRiskSats: sats(atRiskSats(store) + paidUnissuedSats(store) + betweenMintsSats(store)),
    mints: [
      ...listed.map((mint) => ({
        url: mint.url,
        balanceSats: inSats(mint.url),
        state: mint.state,
        reason: mint.reason,
        setAside: mint.setAside,
      })),
      ...others.map((url) => ({ url, balanceSats: inSats(url), state: 'ok' as const, reason: 'not on the list any more', setAside: [] })),
    ],
  }
}

const refunds = new Selection({ count: column.int(), total: column.amount<Msats>() })

function refundsWith(store: Store, sends: '= 0' | '> 0'): { readonly count: number; readonly totalSats: Sats } {
  const found = refunds.get(
    store.sql,
    `SELECT count(*) AS count, coalesce(sum(msats), 0) AS total FROM (
       SELECT paid_msats AS msats FROM jobs WHERE status = 'refunding' AND refund_sends ${sends}
       UNION ALL SELECT refund_msats FROM leases WHERE state = 'refunding' AND refund_sends ${sends})`,
  )
  return { count: found?.count ?? 0, totalSats: msatsToSatsDown(found?.total ?? msats(0)) }
}

/** Refunds of jobs and leases whose token could not be made yet: how many, and what they come to. */
export const unsentRefunds = (store: Store) => refundsWith(store, '= 0')

/** Refunds whose token is out and was not spent yet: they are sent again until it is. */
export const sentRefunds = (store: Store) => refundsWith(store, '> 0')

const owners = new Selection({ pubkey: column.text(), kind: column.text<WalletOwner['kind']>() })

/** Every key of this home that ever had a wallet. */
export const walletOwners = (store: Store): WalletOwner[] => owners.all(store.sql, 'SELECT pubkey, kind FROM wallet_owners ORDER BY pubkey')
