/** What the route says that reads a wallet from relays (NIP-60). */
import type { WalletOwner } from '../../base/accounts.ts'
import { sats } from '../../base/amounts.ts'
import { given } from '../../base/given.ts'
import type { walletRoutes } from '../../control/contract/wallet.ts'
import type { Handlers } from '../../control/route.ts'
import { createSigner } from '../../nostr/keys/signer.ts'
import { npubOf, parseSecret } from '../../nostr/nips/nip19.ts'
import { relayUrl } from '../../nostr/relay/relay-url.ts'
import { findAgent } from '../../store/agents/agents.ts'
import { takeBack } from '../../wallet/nutzaps/taking-back.ts'
import { COIN_FATES, type CoinFate, type CoinsAtMint } from '../../wallet/purse/found-coins.ts'
import type { WalletServices } from './wallet.ts'

type Route = Handlers<typeof walletRoutes>['restoreFromRelays']
type Request = Parameters<Route>[0]

/** @throws identity_invalid, relay_invalid, price_too_high */
export async function restoreFromRelays(
  services: WalletServices,
  into: WalletOwner,
  request: Request,
): Promise<Awaited<ReturnType<Route>>> {
  const { store, clock, keyring, parts } = services
  const { nsec, dry_run: dryRun = false, move = services.config().wallet.foreign_mints === 'move', max_fee_sats } = request
  const signer = nsec === undefined ? keyring.localSigner(into.pubkey) : createSigner(parseSecret(nsec))
  const [wallets, nostr] = [parts.wallets.get(), parts.nostr.get()]
  const own = nsec === undefined ? (findAgent(store, into.pubkey)?.relays ?? []) : []
  const { relays, isComplete, wallet, mints } = await takeBack(
    { store, clock, keyring, nostr, wallets },
    {
      ...{ signer, into, dryRun, move, relays: [...(request.relays ?? []).map(relayUrl), ...own] },
      ...given({ maxFeeSats: max_fee_sats === undefined ? undefined : BigInt(max_fee_sats) }),
    },
  )
  const views = mints.map((at) => viewOf(at, dryRun))
  return {
    state: dryRun ? 'quoted' : 'taken',
    ...{ wallet: request.wallet, npub: npubOf(signer.pubkey), relays: [...relays], complete: isComplete },
    ...{ events: wallet.tokens.length, deleted_events: wallet.deleted, mints: views },
    received_sats: sats(views.reduce((sum, { received_sats }) => sum + received_sats, 0n)),
    fee_sats: sats(views.reduce((sum, { fee_sats }) => sum + fee_sats, 0n)),
    balance_sats: wallets.of(into).balance().balanceSats,
    problems: [...wallet.problems],
  }
}

function viewOf({ mintUrl, isListed, coins, fates, feeSats, receivedSats, reasons }: CoinsAtMint, isQuoted: boolean) {
  const sums = Object.fromEntries(COIN_FATES.map((fate) => [fate, 0n])) as Record<CoinFate, bigint>
  for (const { secret, amount } of coins) sums[fates.get(secret) ?? 'unknown'] += BigInt(amount)
  return {
    ...{ mint_url: mintUrl, listed: isListed, coins: coins.length },
    ...{ free_sats: sats(sums.free), taken_sats: sats(sums.taken), moving_sats: sats(sums.moving), held_sats: sats(sums.held) },
    ...{ spent_sats: sats(sums.spent), pending_sats: sats(sums.pending), locked_sats: sats(sums.locked) },
    ...{ left_sats: sats(sums.left), unknown_sats: sats(sums.unknown) },
    ...{ received_sats: sats(isQuoted ? sums.free - feeSats : receivedSats), fee_sats: sats(feeSats), reasons: [...reasons] },
  }
}
