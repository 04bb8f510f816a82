/** Moves the coins of every wallet out of keysets that sign no more, or soon will not: by itself, within a bound of cost. */
import type { WalletOwner } from '../../base/accounts.ts'
import { messageOf } from '../../base/errors.ts'
import { rotationKey } from '../../store/keys.ts'
import { walletOwners } from '../../store/money/held-value.ts'
import { type OldCoins, oldCoins } from '../../store/money/keysets.ts'
import { movingFees } from '../../store/money/operations.ts'
import { heldSats } from '../../store/money/proofs.ts'
import { newId, type WalletContext } from '../context.ts'
import { SOON_MS } from '../mint/keysets.ts'
import type { CashuWallet } from '../wallet.ts'

const DAY_MS = 86_400_000
/** After a move that did not work. */
const RETRY_MS = 600_000
/** Swaps of one wallet at one mint in a row. */
const MAX_ROUNDS = 20

export class CoinMoves {
  readonly #context: WalletContext
  readonly #walletOf: (owner: WalletOwner) => CashuWallet
  /** Wallets and mints whose move did not work, until when they are let alone. */
  readonly #waiting = new Map<string, number>()

  constructor(context: WalletContext, walletOf: (owner: WalletOwner) => CashuWallet) {
    this.#context = context
    this.#walletOf = walletOf
  }

  async move(): Promise<void> {
    const { scope, store, clock, logger } = this.#context
    const old = oldCoins(store, Math.floor((clock.now() + SOON_MS) / 1000))
    if (old.length === 0) return
    const mints = new Set(this.#context.mints.list().map((mint) => mint.url))
    for (const owner of walletOwners(store)) {
      const theirs = old.filter((coins) => coins.ownerPubkey === owner.pubkey)
      for (const mintUrl of new Set(theirs.map((coins) => coins.mintUrl))) {
        const place = `${owner.pubkey} ${mintUrl}`
        if (scope.isClosing || !mints.has(mintUrl) || (this.#waiting.get(place) ?? 0) > clock.now()) continue
        try {
          const here = theirs.filter((coins) => coins.mintUrl === mintUrl)
          const isDone = await this.#moveAt(owner, mintUrl, here)
          if (isDone) this.#waiting.delete(place)
          else this.#waiting.set(place, clock.now() + RETRY_MS)
        } catch (error) {
          this.#waiting.set(place, clock.now() + RETRY_MS)
          logger.warn({ owner: owner.kind, mint: mintUrl, reason: messageOf(error) }, 'coins of an old keyset could not be moved yet')
        }
      }
    }
  }

  /** @returns whether all was moved that may be */
  async #moveAt(owner: WalletOwner, mintUrl: string, old: readonly OldCoins[]): Promise<boolean> {
    const { scope, store, clock, logger } = this.#context
    const soon = Math.floor((clock.now() + SOON_MS) / 1000)
    const before = heldInOld(store, owner, mintUrl, soon)
    for (const endsSoon of [true, false]) {
      const keysets = old.filter((coins) => (coins.finalExpiry !== null && coins.finalExpiry <= soon) === endsSoon)
      if (keysets.length === 0) continue
      const ids = new Set(keysets.map((coins) => coins.keysetId))
      for (let round = 0; round < MAX_ROUNDS && !scope.isClosing; round++) {
        const spent = movingFees(store, { prefix: rotationKey.of(''), ownerPubkey: owner.pubkey, mintUrl, since: clock.now() - DAY_MS })
        const mayCost = 2n + heldSats(store, owner.pubkey, mintUrl) / 50n - spent
        if (!(await this.#walletOf(owner).moveCoins(mintUrl, ids, rotationKey.of(newId(this.#context)), { endsSoon, mayCost }))) break
      }
    }
    const moved = before - heldInOld(store, owner, mintUrl, soon)
    if (moved > 0n) logger.info({ owner: owner.kind, mint: mintUrl, sats: Number(moved) }, 'coins were moved to the active keyset')
    return moved > 0n
  }
}

function heldInOld(store: WalletContext['store'], owner: WalletOwner, mintUrl: string, soon: number): bigint {
  return oldCoins(store, soon)
    .filter((coins) => coins.ownerPubkey === owner.pubkey && coins.mintUrl === mintUrl)
    .reduce((sum, coins) => sum + coins.sats, 0n)
}
