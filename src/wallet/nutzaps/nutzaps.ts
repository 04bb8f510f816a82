/**
 * NIP-61, as the one who is zapped: ecash that anybody publishes, locked to the wallet of a key of this home.
 *
 *   event -> claimed (once, by its id) -> swapped at its mint -> redeemed, in one commit with what tells of it (7376) -> told
 *
 * What it is worth is what the mint gave for it, whatever was said; what its mint or its lock forbid is never income.
 */
import { hash } from 'node:crypto'
import { accountOf, accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { messageOf, PylonError, toPylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { isBunkerSilent, isKeyAway } from '../../nostr/keys/away.ts'
import { identify } from '../../nostr/nips/nip01.ts'
import { buildWalletHistory } from '../../nostr/nips/nip60.ts'
import { MAX_NUTZAP_PROOFS, NUTZAP_KIND } from '../../nostr/nips/nip61.ts'
import type { Keyring, Nostr, NostrEvent, Subscription } from '../../nostr/types.ts'
import { all } from '../../store/commands.ts'
import { nutzapKey, nutzapRedeemedMessage } from '../../store/keys.ts'
import {
  claimNutzap,
  dueNutzaps,
  getNutzap,
  isSwappedByOther,
  moveNutzap,
  type NutzapRow,
  nextNutzapDue,
  sweepNutzaps,
  wasBrought,
} from '../../store/money/nutzaps.ts'
import { type OperationRow, operationByKey } from '../../store/money/operations.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import type { Store } from '../../store/store.ts'
import { encodeToken } from '../ecash/token.ts'
import { isFinalRefusal, mayCome } from '../moves/refusals.ts'
import { nextTryMs, type Plan } from '../operations/machine.ts'
import type { Wallets } from '../types.ts'
import { admitNutzap } from './admission.ts'

export interface NutzapsDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly config: () => Config
  readonly keyring: Keyring
  readonly nostr: Pick<Nostr, 'subscribe' | 'nudgeOutbox' | 'relaysToReach' | 'relays'>
  readonly wallets: Pick<Wallets, 'of' | 'mints'>
}

/** A nutzap that was redeemed, for whom it is. */
export interface RedeemedNutzap {
  /** Of its event. */
  readonly id: string
  readonly recipient: string
  readonly sender: string
  readonly comment: string
  readonly zapped: string | null
  /** What it brought. */
  readonly amountSats: bigint
  /** Unix seconds, as the sender says. */
  readonly createdAt: number
}

interface Watched {
  readonly relays: readonly string[]
  readonly subscription: Subscription
}

const DAY_S = 86_400
/** They wait on relays for whoever was away; what is older was ours to fetch before. */
const BACKFILL_S = 30 * DAY_S
const REREAD_MS = 300_000
const REDEEMED_TTL_MS = 7 * DAY_S * 1000
const KEPT_MS = 90 * DAY_S * 1000
const SWEEP_ROWS = 500
const MAX_NAP_MS = 60_000
const MINUTE_MS = 60_000
/** Where nobody is there to be told yet. */
const UNHEARD_MS = 600_000
const TELL_AGAIN_MS = 10_000
const MAX_COMMENT_CHARS = 4000
const MAX_EVENT_TAGS = MAX_NUTZAP_PROOFS + 50

export class Nutzaps {
  readonly #deps: NutzapsDeps
  readonly #watched = new Map<string, Watched>()
  /** A mint redeems one nutzap after the other. */
  readonly #mints = new KeyedQueue()
  #tell: ((nutzap: RedeemedNutzap) => Promise<void>) | undefined
  #cancelNap: (() => void) | undefined
  #isStarted = false
  #leftOut = { count: 0, toldAt: 0 }

  constructor(deps: NutzapsDeps) {
    this.#deps = deps
  }

  /** Goes on with what was claimed, and hears those for the node. */
  start(): void {
    const { scope, keyring, nostr } = this.#deps
    this.#isStarted = true
    if (!keyring.locked) this.watch({ kind: 'node', pubkey: keyring.node().pubkey }, nostr.relays)
    scope.spawn('sweep', () => this.#sweep())
    scope.every('sweep', DAY_S * 1000, () => this.#sweep())
    this.#look()
  }

  /** Whom agents hear of theirs by: at least once for each, also after a restart. */
  onRedeemed(tell: (nutzap: RedeemedNutzap) => Promise<void>): void {
    this.#tell = tell
    this.#nap(0)
  }

  /** Hears nutzaps for a key on these relays, anew where it does already. */
  watch(owner: WalletOwner, relays: readonly string[]): void {
    const { nostr, config } = this.#deps
    this.unwatch(owner.pubkey)
    if (!config().wallet.nutzaps) return
    const subscription = nostr.subscribe({
      name: `nutzaps-${owner.pubkey.slice(0, 16)}`,
      filters: [{ kinds: [NUTZAP_KIND], '#p': [owner.pubkey] }],
      relays,
      backfillS: BACKFILL_S,
      rereadMs: REREAD_MS,
      // Strangers can make what looks like one of any size: that costs no signature.
      isWorthIt: (event) => event.tags.length <= MAX_EVENT_TAGS && event.content.length <= MAX_COMMENT_CHARS,
      onEvent: (event) => this.receive(owner, event),
    })
    this.#watched.set(owner.pubkey, { relays, subscription })
  }

  unwatch(pubkey: string): void {
    this.#watched.get(pubkey)?.subscription.close()
    this.#watched.delete(pubkey)
  }

  /** Claims a verified 9321 for a key of this home. Rejects only when it should come again. */
  async receive(owner: WalletOwner, event: NostrEvent): Promise<void> {
    const { store, clock, wallets, keyring, logger } = this.#deps
    const mints = wallets.mints().map(({ url }) => url)
    const taker = { pubkey: owner.pubkey, lockPubkey: keyring.walletSigner(owner.pubkey).pubkey, mints }
    const admission = admitNutzap(event, taker)
    const proofs = admission.ok ? this.#left(admission.nutzap.proofs) : []
    if (!admission.ok || proofs.length === 0) {
      const { code, reason } = admission.ok ? { code: 'token_spent', reason: 'another nutzap has brought its proofs' } : admission
      logger.info({ event: event.id, code, reason }, 'a nutzap was not taken')
      return
    }
    const { nutzap, mintUrl } = admission
    const { comment } = nutzap
    const claimed = { id: event.id, owner, sender: event.pubkey, comment, zapped: nutzap.event?.id ?? null, mintUrl, proofs }
    const outcome = await store.write(claimNutzap({ ...claimed, createdAt: event.created_at, at: clock.now() }))
    if (outcome === 'full') this.#nameLeftOut()
    if (outcome === 'new') this.#nap(0)
  }

  /** Those that no other nutzap has brought: whoever copies a part of one takes nothing of the rest. */
  #left<P extends { readonly secret: string }>(proofs: readonly P[]): P[] {
    return proofs.filter(({ secret }) => !wasBrought(this.#deps.store, hash('sha256', secret)))
  }

  /** Starts what is due, each on its own, then naps until the next. */
  #look(): void {
    const { scope, store, clock } = this.#deps
    const now = clock.now()
    for (const nutzap of dueNutzaps(store, now)) {
      scope.spawnOnce(`nutzap ${nutzap.id}`, () => this.#mints.run(nutzap.mintUrl, () => this.#goOn(nutzap.id)))
    }
    const due = nextNutzapDue(store) ?? now + MAX_NAP_MS
    // What is under way now is due until it has ended, and wakes this then.
    this.#nap(due <= now ? MAX_NAP_MS / 60 : Math.min(MAX_NAP_MS, due - now))
  }

  #nap(ms: number): void {
    if (!this.#isStarted) return
    this.#cancelNap?.()
    this.#cancelNap = this.#deps.scope.after('look', ms, () => this.#look())
  }

  async #goOn(id: string): Promise<void> {
    const { store, clock } = this.#deps
    const nutzap = getNutzap(store, id)
    if (nutzap === undefined || nutzap.nextTryAt === null || nutzap.nextTryAt > clock.now()) return
    if (nutzap.state === 'claimed') await this.#redeem(nutzap)
    const redeemed = getNutzap(store, id)
    if (redeemed?.state === 'redeemed') await this.#tellOf(redeemed)
  }

  /** The swap has the event's own key: whatever ends the process in between, it is the same swap. */
  async #redeem(nutzap: NutzapRow): Promise<void> {
    const { store, clock, wallets, keyring, logger, scope } = this.#deps
    const { id, owner, sender, mintUrl } = nutzap
    const before = operationByKey(store, nutzapKey.of(id))
    // A swap that may have been made is asked about as it was; only one that was refused is made smaller.
    const isOpen = before === undefined || before.state === 'failed'
    const proofs = isOpen ? this.#left(nutzap.proofs) : nutzap.proofs.filter(({ secret }) => asks(before, secret))
    const secrets = proofs.map(({ secret }) => secret)
    try {
      if (proofs.length === 0) throw spentBefore()
      const { amountSats } = await wallets.of(owner).receiveToken({
        idempotencyKey: nutzapKey.of(id),
        cause: { type: 'zap', id },
        token: encodeToken(mintUrl, proofs),
        creditAccount: accountOf(accountOwner(owner), 'income', keyring.owns(sender) ? 'internal' : 'zap'),
        requireLock: true,
        retryFailed: true,
      })
      const brought = secrets.map((secret) => hash('sha256', secret))
      await this.#redeemed(nutzap, amountSats, brought)
    } catch (error) {
      const failure = toPylonError(error)
      if (mayCome(failure)) throw error
      const tries = nutzap.tries + 1
      const [at, reason] = [clock.now(), `${failure.code}: ${messageOf(failure)}`.slice(0, 500)]
      // What another has swapped, noted or not yet, leaves the rest to this one.
      const left = this.#left(proofs).length
      const isPartLeft = left > 0 && left < proofs.length
      const isShared = failure.code === 'token_spent' && (isPartLeft || isSwappedByOther(store, { id, owner, secrets }))
      const isOver = !isShared && isFinalRefusal(failure, tries)
      logger.info({ event: id, reason }, isOver ? 'a nutzap was not taken' : 'a nutzap could not be redeemed yet, it is tried again')
      const next = isOver ? { to: 'refused' as const } : { to: 'claimed' as const, nextTryAt: at + nextTryMs(tries, scope.random) }
      await store.write(moveNutzap({ id, reason, tries, at, ...next }))
    }
  }

  /** One commit: that it is redeemed, and what tells its sender so. */
  async #redeemed({ id, owner, sender }: NutzapRow, amountSats: bigint, brought: readonly string[]): Promise<void> {
    const { store, clock, keyring, nostr } = this.#deps
    const signer = keyring.signer(owner.pubkey)
    const seal = (text: string) => signer.nip44Encrypt(owner.pubkey, text)
    const relays = [...new Set([...(this.#watched.get(owner.pubkey)?.relays ?? []), ...(await nostr.relaysToReach(sender))])]
    const at = clock.now()
    const history = { direction: 'in', amountSats, redeemed: [{ id, sender }] } as const
    // A bunker that will not write it down keeps no zap from whom it is for.
    const told = await buildWalletHistory(history, unixSeconds(clock), seal).catch((error: unknown) => {
      if (isKeyAway(error) && !isBunkerSilent(error) && !mayCome(toPylonError(error))) return undefined
      throw error
    })
    const sending = { key: nutzapRedeemedMessage.of(id), relays, notAfter: at + REDEEMED_TTL_MS, at }
    await store.write(
      all(
        moveNutzap({ id, to: 'redeemed', amountSats, brought, nextTryAt: at, at }),
        ...(told === undefined ? [] : [enqueueEvent({ ...sending, event: identify(owner.pubkey, told) })]),
      ),
    )
    nostr.nudgeOutbox()
  }

  async #tellOf({ id, owner, sender, comment, zapped, amountSats, createdAt }: NutzapRow & { state: 'redeemed' }): Promise<void> {
    const { store, clock, logger } = this.#deps
    const tell = owner.kind === 'agent' ? this.#tell : async () => {}
    try {
      await tell?.({ id, recipient: owner.pubkey, sender, comment, zapped, amountSats, createdAt })
    } catch (error) {
      logger.warn({ event: id, err: messageOf(error) }, 'nobody could be told of a nutzap yet, it is tried again')
      await store.write(moveNutzap({ id, to: 'redeemed', nextTryAt: clock.now() + TELL_AGAIN_MS, at: clock.now() }))
      return
    }
    const later = tell === undefined ? { to: 'redeemed' as const, nextTryAt: clock.now() + UNHEARD_MS } : { to: 'told' as const }
    await store.write(moveNutzap({ id, ...later, at: clock.now() }))
  }

  /** What finds no place is named, once a minute however much it is. */
  #nameLeftOut(): void {
    const now = this.#deps.clock.now()
    const { count, toldAt } = this.#leftOut
    const isDue = now - toldAt >= MINUTE_MS
    this.#leftOut = { count: isDue ? 0 : count + 1, toldAt: isDue ? now : toldAt }
    if (isDue) this.#deps.logger.warn({ count: count + 1 }, 'more nutzaps come than are taken in an hour: the rest is left on relays')
  }

  async #sweep(): Promise<void> {
    const { scope, store, clock } = this.#deps
    const sweep = () => store.write(sweepNutzaps({ before: clock.now() - KEPT_MS, limit: SWEEP_ROWS }))
    while ((await sweep()) === SWEEP_ROWS && !scope.isClosing);
  }
}

/** Whether a swap has this secret among its inputs. */
const asks = ({ plan }: OperationRow, secret: string): boolean => (plan as Partial<Plan>).body?.includes(JSON.stringify(secret)) !== false

const spentBefore = (): PylonError => new PylonError('token_spent', 'Another nutzap has brought its proofs.')
