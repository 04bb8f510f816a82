/** Holds the free coins of every wallet against what their mints say (NUT-07); changes nothing. */
import type { WalletOwner } from '../../base/accounts.ts'
import type { Sats } from '../../base/amounts.ts'
import { sats } from '../../base/amounts.ts'
import { walletOwners } from '../../store/money/held-value.ts'
import { listProofs } from '../../store/money/proofs.ts'
import type { WalletContext } from '../context.ts'

/** Of one wallet at one mint, the largest first. */
const MAX_ASKED = 2000

export interface CoinAudit {
  readonly owner: WalletOwner
  readonly mintUrl: string
  readonly coins: number
  readonly asked: number
  /** Free in the books, spent at the mint. */
  readonly spent: number
  readonly spentSats: Sats
  /** Why the mint could not be asked. */
  readonly problem?: string
}

export async function auditCoins({ store, mints }: WalletContext): Promise<CoinAudit[]> {
  const places = walletOwners(store).flatMap((owner) => mints.list().map(({ url }) => ({ owner, mintUrl: url })))
  const audits = await Promise.all(
    places.map(async ({ owner, mintUrl }): Promise<CoinAudit[]> => {
      const free = () => listProofs(store, { pubkey: owner.pubkey, mintUrl, state: 'unspent' })
      const held = free()
      if (held.length === 0) return []
      const asked = held.slice(0, MAX_ASKED)
      const base = { owner, mintUrl, coins: held.length, asked: asked.length, spent: 0, spentSats: sats(0) }
      const reply = await mints.client(mintUrl).checkStates(asked.map((proof) => proof.y))
      if (reply.kind !== 'ok') return [{ ...base, problem: reply.kind === 'unknown' ? reply.reason : reply.detail }]
      // What a payment took meanwhile is spent by us.
      const still = new Set(free().map((proof) => proof.y))
      const spent = asked.filter((proof, i) => reply.value[i] === 'SPENT' && still.has(proof.y))
      return [{ ...base, spent: spent.length, spentSats: sats(spent.reduce((sum, proof) => sum + proof.amountSats, 0n)) }]
    }),
  )
  return audits.flat()
}
