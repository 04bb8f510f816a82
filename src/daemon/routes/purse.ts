/** Handlers of the routes about several mints as one purse. */
import { type Sats, sats } from '../../base/amounts.ts'
import { given } from '../../base/given.ts'
import type { purseRoutes } from '../../control/contract/purse.ts'
import type { Handlers } from '../../control/route.ts'
import type { PurseMove } from '../../store/money/purse-moves.ts'
import { ownerNamed, ownersMove, receiptOf, type WalletServices } from './wallet.ts'

/** Each throws why there is no wallet. */
export function purseHandlers(services: WalletServices): Handlers<typeof purseRoutes> {
  const { keyring, store, parts } = services
  const wallets = () => parts.wallets.get()
  const open = (name: string) => {
    const owner = ownerNamed(keyring, store, name)
    return { owner, ...wallets().pursesOf(owner) }
  }
  return {
    moveSats: async ({ wallet, amount_sats, from_url, to_url, max_fee_sats, dry_run }, call) => {
      const { owner, purse } = open(wallet)
      const order = {
        ...ownersMove({ owner }, call.idempotencyKey),
        ...{ fromUrl: from_url, toUrl: to_url, amountSats: BigInt(amount_sats) },
        ...given({ maxFeeSats: limitOf(max_fee_sats) }),
      }
      if (dry_run === true) {
        const { from, to, amountSats, feeSats } = await purse.quote(order)
        return { state: 'quoted', amount_sats: sats(amountSats), fee_sats: sats(feeSats), from_url: from, to_url: to, reason: null }
      }
      const move = await purse.move(order)
      const fee = sats(purse.costSats(order.idempotencyKey))
      return { ...stateOf(move), amount_sats: sats(move.amountSats), fee_sats: fee, from_url: move.fromUrl, to_url: move.toUrl }
    },
    receiveForeign: async ({ wallet, token, max_fee_sats, dry_run }, call) => {
      const { owner, foreign } = open(wallet)
      const request = { ...receiptOf({ owner }, call.idempotencyKey, token), ...given({ maxFeeSats: limitOf(max_fee_sats) }) }
      if (dry_run === true) {
        const { faceSats, feeSats, netSats, fromUrl, toUrl } = await foreign.quote(request)
        const amounts = { face_sats: sats(faceSats), fee_sats: sats(feeSats), net_sats: sats(netSats) }
        return { state: 'quoted', ...amounts, from_url: fromUrl, to_url: toUrl, reason: null }
      }
      const { last, faceSats, feeSats } = await foreign.receive(request)
      const amounts = { face_sats: sats(faceSats), fee_sats: sats(feeSats), net_sats: sats(last.amountSats) }
      return { ...stateOf(last), ...amounts, from_url: last.fromUrl, to_url: last.toUrl }
    },
    setMint: async ({ url, cap_sats }) => {
      await wallets().setMintCap(url, sats(cap_sats))
      return { url, cap_sats: sats(cap_sats) }
    },
  }
}

const limitOf = (value: number | undefined): Sats | undefined => (value === undefined ? undefined : sats(value))

function stateOf({ state, reason }: PurseMove): { state: 'arrived' | 'moving' | 'failed'; reason: string | null } {
  if (state === 'arrived') return { state, reason: null }
  return { state: state === 'failed' || state === 'lost' ? 'failed' : 'moving', reason }
}
