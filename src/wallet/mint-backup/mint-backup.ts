/**
 * Keeps the list of this home's mints on its relays (NUT-27). What is there is read before it is written: another home of the same
 * words may have mints that this one does not know, and an empty list never takes the place of one that is there.
 */
import { type Clock, unixSeconds } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import type { Scope } from '../../base/scope.ts'
import type { LocalSigner, Nostr } from '../../nostr/types.ts'
import { all } from '../../store/commands.ts'
import { MINT_BACKUP_MESSAGE } from '../../store/keys.ts'
import { listedMints } from '../../store/money/mints.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import { getSetting, putSetting } from '../../store/settings.ts'
import type { Store } from '../../store/store.ts'
import { buildMintBackup, mintBackupFilter, newestMintBackup } from './event.ts'

export interface MintBackupDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly config: () => Config
  readonly nostr: Pick<Nostr, 'query' | 'nudgeOutbox' | 'relays'>
  readonly keyring: { mintBackup(): LocalSigner }
}

/** What was published last. */
interface Published {
  readonly listed: readonly string[]
  /** Of other homes of these words, never on our list. */
  readonly others: readonly string[]
  readonly relays: readonly string[]
  readonly createdAtS: number
}

const PUBLISHED_KEY = 'mint_backup'
/** A look reads two rows; relays are asked only after a change. */
const LOOK_MS = 5000
/** Where no relay said what is there. */
const AGAIN_MS = 60_000
/** For so long a relay that is down is tried. */
const KEPT_MS = 30 * 86_400_000

export class MintBackup {
  readonly #deps: MintBackupDeps
  #quietUntil = 0

  constructor(deps: MintBackupDeps) {
    this.#deps = deps
  }

  start(): void {
    const { scope } = this.#deps
    scope.spawn('look', () => this.look())
    scope.every('look', LOOK_MS, () => this.look())
  }

  /** Publishes the list where it has changed, as soon as a relay has said what is there. */
  async look(): Promise<void> {
    const { store, clock, config, nostr, keyring } = this.#deps
    const listed = listedMints(store)
      .map(({ url }) => url)
      .sort()
    const last = getSetting<Published>(store, PUBLISHED_KEY)
    const isSame = last === undefined ? listed.length === 0 : isAlike(last.listed, listed) && isAlike(last.relays, nostr.relays)
    if (!config().wallet.mint_backup || isSame || nostr.relays.length === 0 || clock.now() < this.#quietUntil) return
    const signer = keyring.mintBackup()
    const { events, complete } = await nostr.query([mintBackupFilter(signer.pubkey)])
    const found = newestMintBackup(signer, events)
    // Who is silent may have a list: it is looked for again.
    if (found === undefined && !complete && last === undefined) {
      this.#quietUntil = clock.now() + AGAIN_MS
      return
    }
    const ours = new Set([...(last?.listed ?? []), ...listed])
    const others = [...new Set([...(last?.others ?? []), ...(found?.mints ?? [])])].filter((url) => !ours.has(url))
    const before = Math.max(last?.createdAtS ?? 0, found?.createdAtS ?? 0)
    const at = clock.now()
    const createdAtS = Math.max(unixSeconds(clock), before + 1)
    const event = buildMintBackup(signer, [...listed, ...others], createdAtS)
    const published: Published = { listed, others, relays: nostr.relays, createdAtS }
    await store.write(
      all(
        putSetting({ key: PUBLISHED_KEY, value: published, at }),
        enqueueEvent({ key: MINT_BACKUP_MESSAGE, event, relays: nostr.relays, notAfter: at + KEPT_MS, at }),
      ),
    )
    nostr.nudgeOutbox()
  }
}

const isAlike = (a: readonly string[], b: readonly string[]): boolean => a.length === b.length && a.every((one, i) => one === b[i])
