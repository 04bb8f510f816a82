/** Restores of wallets, one at a time for each wallet and mint; and the check that none spends from an old backup unasked. */
import type { WalletOwner } from '../../base/accounts.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { Command } from '../../store/commands.ts'
import { listProofs, oldestUnspentAt } from '../../store/money/proofs.ts'
import { getSetting, putSetting } from '../../store/settings.ts'
import type { WalletContext } from '../context.ts'
import { type Found, forgetSpent, restoreWallet } from './restore.ts'

/** Setting: ms since the epoch of the last restore of the database from a backup. */
export const RESTORED_AT_KEY = 'restored_at'
/** Setting: the restore after which this wallet asked this mint for all that it made since; or NOT_FOUND. */
const askedKey = (owner: WalletOwner, mintUrl: string): string => `restored_asked:${owner.pubkey}:${mintUrl}`

/** What was ours is spent and nothing here knows how: a request that was refused may have been done later all the same. */
const NOT_FOUND = -1
/** Such a search asks a mint some dozens of times. */
const SEARCHES_APART_MS = 600_000

/** Has this wallet ask this mint for all that its seed made there. */
export const searchAgain = (owner: WalletOwner, mintUrl: string, at: number): Command<void> =>
  putSetting({ key: askedKey(owner, mintUrl), value: NOT_FOUND, at })

export class Restores {
  readonly #context: WalletContext
  readonly #queue = new KeyedQueue()
  /** Wallets and mints whose coins were checked since the restore, where all that was made since could not be asked for yet. */
  readonly #checked = new Set<string>()
  readonly #searchedAt = new Map<string, number>()

  constructor(context: WalletContext) {
    this.#context = context
  }

  /** @throws mint_not_allowed, mint_unreachable, mint_rejected */
  restore(owner: WalletOwner, mintUrl: string): Promise<Found> {
    const { store, clock } = this.#context
    return this.#queue.run(askedKey(owner, mintUrl), async () => {
      const asked = getSetting<number>(store, RESTORED_AT_KEY) ?? 0
      const found = await restoreWallet(this.#context, owner, mintUrl)
      if (this.isDue(owner, mintUrl)) await store.write(putSetting({ key: askedKey(owner, mintUrl), value: asked, at: clock.now() }))
      return found
    })
  }

  /** Whether this wallet has not asked this mint since the database was put back from a backup, or since something was spent elsewhere. */
  isDue(owner: WalletOwner, mintUrl: string): boolean {
    const { store } = this.#context
    const restoredAt = getSetting<number>(store, RESTORED_AT_KEY)
    const asked = getSetting<number>(store, askedKey(owner, mintUrl))
    return asked === NOT_FOUND || (restoredAt !== undefined && asked !== restoredAt)
  }

  /** Asks for what was spent elsewhere; false where that waits for its time. @throws mint_unreachable, mint_rejected */
  async search(owner: WalletOwner, mintUrl: string): Promise<Found | false> {
    const { store, clock } = this.#context
    const key = askedKey(owner, mintUrl)
    const now = clock.now()
    if (getSetting<number>(store, key) !== NOT_FOUND || now < (this.#searchedAt.get(key) ?? 0) + SEARCHES_APART_MS) return false
    this.#searchedAt.set(key, now)
    return await this.restore(owner, mintUrl)
  }

  /** Before a spend: coins of a backup are held against their mint first. @throws mint_unreachable, mint_rejected */
  async ensureChecked(owner: WalletOwner, mintUrl: string): Promise<void> {
    const key = askedKey(owner, mintUrl)
    if (!this.isDue(owner, mintUrl) || this.#checked.has(key)) return
    await this.#queue.run(key, async () => {
      const { store } = this.#context
      const restoredAt = getSetting<number>(store, RESTORED_AT_KEY) ?? 0
      const { pubkey } = owner
      // What came in since the restore is younger than the backup: a wallet without old coins has nothing to ask about.
      if (this.isDue(owner, mintUrl) && (oldestUnspentAt(store, { pubkey, mintUrl }) ?? restoredAt) < restoredAt)
        await forgetSpent(this.#context, mintUrl, listProofs(store, { pubkey, mintUrl, state: 'unspent' }))
      this.#checked.add(key)
    })
  }
}
