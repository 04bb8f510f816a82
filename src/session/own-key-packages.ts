/**
 * The key package by which this key lets itself be brought into groups: one stands at a time, in both forms, with the list that says
 * where it is. It is of last resort, so whoever holds an old one may still use it for a while; a new one takes its place after each
 * use, long before its end, when our relays change, and on request.
 */
import { unixSeconds } from '../base/clock.ts'
import type { IdentifiedEvent } from '../nostr/types.ts'
import { all, type Command } from '../store/commands.ts'
import { sessionMessages } from '../store/keys.ts'
import { enqueueEvent } from '../store/nostr/outbox.ts'
import { currentKeyPackage, insertKeyPackage, type KeyPackageRow, sweepKeyPackages } from '../store/sessions/key-packages.ts'
import { newKeyPackage } from './mls/key-package.ts'
import type { PublishedKeyPackage, SessionsDeps } from './types.ts'
import { KEY_PACKAGE_KIND, keyPackageDeletion, keyPackageEvents, keyPackageRelaysEvent, newSlot } from './wire/key-package-event.ts'

const DAY_S = 86_400
const LIFETIME_S = 84 * DAY_S
/** For clocks that are slow. */
const BACKDATED_S = 3600
/** A new one comes so long before the end. */
const RENEW_S = 28 * DAY_S
/** Welcomes to one that was replaced are still opened for so long: wraps are dated back up to two days. */
const GRACE_MS = 4 * DAY_S * 1000
const DELIVERY_MS = 30 * DAY_S * 1000
const LOOK_MS = 6 * 3_600_000

export class OwnKeyPackages {
  readonly #deps: SessionsDeps
  readonly #owner: string

  constructor(deps: SessionsDeps) {
    this.#deps = deps
    this.#owner = deps.signer.pubkey
  }

  /** Publishes what is missing, now and from time to time. */
  start(): void {
    const { scope } = this.#deps
    scope.spawn('key packages', () => this.#look())
    scope.every('key packages', LOOK_MS, () => this.#look())
  }

  current(): PublishedKeyPackage | undefined {
    const row = currentKeyPackage(this.#deps.store, this.#owner)
    if (row === undefined) return undefined
    const { eventId, ref, notAfter, createdAt, uses } = row
    return { eventId, ref, notAfter, createdAt, uses }
  }

  rotate(): Promise<void> {
    return this.#deps.scope.once('rotate the key package', () => this.#rotate())
  }

  async #look(): Promise<void> {
    const { scope, store, relays } = this.#deps
    await store.write(sweepKeyPackages({ owner: this.#owner, before: scope.clock.now() - GRACE_MS }))
    const row = currentKeyPackage(store, this.#owner)
    const isOld = row === undefined || row.notAfter - unixSeconds(scope.clock) < RENEW_S
    if (isOld || row.uses > 0 || row.relays.join(' ') !== relays.join(' ')) await this.rotate()
    else await this.#sayAgainIfLost(row)
  }

  /** What relays have forgotten is said once more. */
  async #sayAgainIfLost(row: KeyPackageRow): Promise<void> {
    const { scope, store, nostr } = this.#deps
    if (scope.clock.now() - row.createdAt < LOOK_MS / 2) return
    const { events, complete } = await nostr.query([{ kinds: [KEY_PACKAGE_KIND], authors: [this.#owner] }], { relays: this.#where })
    if (!complete || events.some(({ id }) => id === row.eventId)) return
    await store.write(all(...this.#publications(row, unixSeconds(scope.clock))))
    nostr.nudgeOutbox()
  }

  get #where(): readonly string[] {
    const { via, relays, nostr } = this.#deps
    return via ?? [...new Set([...nostr.relays, ...relays])]
  }

  async #rotate(): Promise<void> {
    const { scope, store, nostr, relays, logger } = this.#deps
    const former = currentKeyPackage(store, this.#owner)
    const nowS = unixSeconds(scope.clock)
    const made = await newKeyPackage(this.#owner, { notBefore: nowS - BACKDATED_S, notAfter: nowS + LIFETIME_S })
    const slot = former?.slot ?? newSlot(scope.random)
    // Of two in the same second the new one would not take the place of the old.
    const atS = Math.max(nowS, former === undefined ? 0 : Math.floor(former.createdAt / 1000) + 1)
    const row: KeyPackageRow = {
      owner: this.#owner,
      ref: made.ref,
      eventId: '',
      legacyEventId: '',
      slot,
      publicBytes: made.publicBytes,
      privateBytes: made.privateBytes,
      relays: [...relays],
      notAfter: nowS + LIFETIME_S,
      uses: 0,
      createdAt: atS * 1000,
      replacedAt: null,
    }
    const { event, legacy } = this.#events(row, atS)
    const deletion = former === undefined ? [] : [keyPackageDeletion(this.#owner, [former.legacyEventId], atS)]
    await store.write(
      all(
        insertKeyPackage({ ...row, eventId: event.id, legacyEventId: legacy.id }),
        ...this.#publications(row, atS),
        ...deletion.map((one) => this.#publish('deletion', one.id, one)),
      ),
    )
    nostr.nudgeOutbox()
    logger.debug({ pubkey: this.#owner, ref: made.ref }, 'a new key package is published')
  }

  #events({ publicBytes, ref, slot, relays }: KeyPackageRow, atS: number) {
    return keyPackageEvents({ pubkey: this.#owner, publicBytes, ref, slot, relays, atS })
  }

  #publications(row: KeyPackageRow, atS: number): Command<unknown>[] {
    const { event, legacy } = this.#events(row, atS)
    return [
      this.#publish('key-package', 'current', event),
      this.#publish('key-package-443', row.ref, legacy),
      this.#publish('relays', 'current', keyPackageRelaysEvent(this.#owner, row.relays, atS)),
    ]
  }

  #publish(what: 'key-package' | 'key-package-443' | 'relays' | 'deletion', id: string, event: IdentifiedEvent): Command<unknown> {
    const at = this.#deps.scope.clock.now()
    const key = sessionMessages(what, this.#owner).of(id)
    return enqueueEvent({ key, event, relays: this.#where, notAfter: at + DELIVERY_MS, at })
  }
}
