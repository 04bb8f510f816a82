/** Sats for what the customer buys: its own wallet pays, and what it lacks comes from the node's wallet. */
import { type Sats, sats } from '../base/amounts.ts'
import type { Config } from '../base/config.ts'
import { PylonError } from '../base/errors.ts'
import type { Nostr } from '../nostr/types.ts'
import type { Wallet, Wallets } from '../wallet/types.ts'

export interface FundingDeps {
  readonly nostr: Pick<Nostr, 'keyring'>
  readonly wallets: Wallets
  readonly config: () => Config
}

/** What jobs cost, and what of it came back. */
export const JOB_EXPENSE_ACCOUNT = 'customer/expense/job'
/** After the deadline of what it pays for, before a token that nobody took is ours again. */
export const RECLAIM_AFTER_MS = 10 * 60_000
/** What the mint may take for the proofs that a payment spends. */
const INPUT_FEE_ALLOWANCE_SATS = 3n
const MIN_FEE_ALLOWANCE_SATS = 10n

export function customerWallet({ wallets, nostr }: FundingDeps): Wallet {
  return wallets.of({ kind: 'customer', pubkey: nostr.keyring.customer().pubkey })
}

/**
 * Sees to it that the customer's wallet holds `neededSats`, by one internal transfer where it does not.
 * @param cause names the purchase: `purchase:<id>`, `rental:<id>`
 * @throws insufficient_funds
 */
export async function topUp(deps: FundingDeps, cause: string, neededSats: Sats, mintUrl?: string): Promise<void> {
  const { wallets, nostr } = deps
  const wallet = customerWallet(deps)
  const mints = wallet.balance().mints.filter((mint) => mintUrl === undefined || mint.url === mintUrl)
  const wanted = neededSats + INPUT_FEE_ALLOWANCE_SATS
  if (mints.some((mint) => mint.balanceSats >= wanted)) return
  const node = wallets.of({ kind: 'node', pubkey: nostr.keyring.node().pubkey })
  const free = new Map(node.balance().mints.map((mint) => [mint.url, mint.balanceSats - mint.owedSats]))
  const missingAt = (mint: (typeof mints)[number]) => wanted - mint.balanceSats
  // One payment spends at one mint: where the node has what is missing, and least is.
  const source = mints
    .filter((mint) => (free.get(mint.url) ?? 0n) > missingAt(mint))
    .sort((a, b) => (a.state === b.state ? Number(missingAt(a) - missingAt(b)) : a.state === 'ok' ? -1 : 1))[0]
  if (source !== undefined) {
    const missing = missingAt(source)
    const key = `${cause}:topup:${source.url}:${source.balanceSats}:${missing}`
    await wallets.transfer(node.owner, wallet.owner, sats(missing), key, source.url)
    return
  }
  const held = largest(mints.map((mint) => mint.balanceSats))
  if (held >= neededSats) return
  const available = largest(mints.map((mint) => free.get(mint.url) ?? 0n))
  throw new PylonError(
    'insufficient_funds',
    `This may cost ${neededSats} sats with fees; the customer wallet holds ${held} at one mint and the node wallet ${available} that customers are not owed. Fund it: pylon wallet fund ${wanted - held} in the sandbox, pylon wallet invoice ${wanted - held} elsewhere.`,
  )
}

const largest = (amounts: readonly bigint[]): bigint => [...amounts].sort((a, b) => Number(b - a))[0] ?? 0n

/** What a Lightning payment of this amount may cost on top. */
export function maxFeeOf({ config }: FundingDeps, amountSats: Sats): Sats {
  const basisPoints = BigInt(Math.ceil(config().wallet.max_fee_percent * 100))
  const share = (amountSats * basisPoints + 9_999n) / 10_000n
  return sats(share > MIN_FEE_ALLOWANCE_SATS ? share : MIN_FEE_ALLOWANCE_SATS)
}
