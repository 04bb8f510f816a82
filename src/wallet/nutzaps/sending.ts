/**
 * NIP-61, as the one who zaps: ecash locked to the wallet of the recipient, published for all to see.
 *
 *   fixed (mint, lock, relays: once for each key) -> the wallet makes the token -> sent: the event, its outbox row and the outcome, in one commit
 *
 * What a restart finds fixed and its token made is sent then; what nobody can say yet stays unknown, as any payment.
 */
import { accountOf, accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { type Sats, sats } from '../../base/amounts.ts'
import { doublingMs } from '../../base/backoff.ts'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { identify } from '../../nostr/nips/nip01.ts'
import { buildNutzap, NUTZAP_INFO_KIND, type NutzapInfo, parseNutzapInfo } from '../../nostr/nips/nip61.ts'
import type { Nostr } from '../../nostr/types.ts'
import { nutzapMessage } from '../../store/keys.ts'
import { listKeysets } from '../../store/money/keysets.ts'
import type { Cause } from '../../store/money/ledger.ts'
import {
  dueNutzapSends,
  getNutzapSend,
  insertNutzapSend,
  moveNutzapSend,
  type NutzapSendRow,
  noteNutzapSend,
} from '../../store/money/nutzap-sends.ts'
import { operationByKey } from '../../store/money/operations.ts'
import { insertWalletEvent } from '../../store/money/wallet-events.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import type { Store } from '../../store/store.ts'
import { requestDigest } from '../context.ts'
import { readTokenHead, readTokenProofs } from '../ecash/token.ts'
import type { PayResult, SentToken, Spend, Wallet, WalletEvent, Wallets } from '../types.ts'
import { mintAmong } from './admission.ts'

export interface NutzapSenderDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly nostr: Pick<Nostr, 'newestOf' | 'relaysToReach' | 'nudgeOutbox' | 'onGivenUp'>
  readonly wallets: Pick<Wallets, 'of' | 'mints'>
}

export interface NutzapOrder {
  /** The same key is the same nutzap, for ever. */
  readonly key: string
  readonly cause: Cause
  readonly from: WalletOwner
  readonly recipient: string
  readonly event?: { readonly id: string; readonly kind?: number } | undefined
  /** What the recipient is to have, after the fee of its mint. */
  readonly amountSats: bigint
  readonly comment: string
  readonly spend: Spend
}

const DAY_MS = 86_400_000
/** They wait on relays for whoever is away. */
const TTL_MS = 30 * DAY_MS
const LOOK = { minMs: 1000, maxMs: 15_000 }
/** Whoever asked for it has it then, or the wallet still asks its mint. */
const FIRST_LOOK_MS = 30_000

export class NutzapSender {
  readonly #deps: NutzapSenderDeps
  /** Since the wallet had something of them under way that nobody waits for. */
  #looks = 0

  constructor(deps: NutzapSenderDeps) {
    this.#deps = deps
    deps.nostr.onGivenUp(nutzapMessage.of(''), (key, why) => this.#onGivenUp(key, why))
  }

  /** Goes on with what was under way. */
  start(): void {
    const { scope } = this.#deps
    // Nobody else goes on with what was fixed before.
    scope.spawn('nutzaps out', async () => {
      await this.#look(FIRST_LOOK_MS)
      const nextMs = () => (this.#looks === 0 ? LOOK.maxMs : doublingMs(LOOK, this.#looks))
      scope.every('nutzaps out', nextMs, () => this.#look(FIRST_LOOK_MS * Math.sign(this.#looks)))
    })
  }

  /** @throws as Wallet.sendToken, nutzap_unavailable, relay_unreachable, idempotency_conflict */
  async send(order: NutzapOrder): Promise<PayResult> {
    const row = await this.#fix(order)
    if (row.state === 'sent') return this.outcome(row.idempotencyKey) as PayResult
    const { owner, idempotencyKey, cause, amountSats, mintUrl, lockTo } = row
    try {
      const token = await this.#deps.wallets.of(owner).sendToken(
        {
          ...{ idempotencyKey, cause, amountSats: sats(amountSats), mintUrl, lockTo },
          debitAccount: accountOf(accountOwner(owner), 'expense', 'zap'),
          coverReceiverFee: true,
          fillIfShort: owner.kind === 'node',
        },
        order.spend,
      )
      await this.#publish(row, token)
      return paid(token)
    } catch (error) {
      const operation = operationByKey(this.#deps.store, idempotencyKey)
      if (operation === undefined || !isPylonError(error, 'payment_unknown')) throw error
      return { state: 'unknown', operationId: operation.id }
    }
  }

  /** What became of the nutzap under this key; undefined where nothing was spent. */
  outcome(key: string): ReturnType<Wallet['payment']> {
    const { store, wallets } = this.#deps
    const row = getNutzapSend(store, key)
    const operation = row === undefined ? undefined : operationByKey(store, key)
    if (row === undefined || operation === undefined) return undefined
    if (operation.state === 'failed') return { state: 'failed', reason: operation.error.message }
    const token = wallets.of(row.owner).sentToken(key)
    // Made, and not published yet: that is done by itself.
    return row.state === 'sent' && token !== undefined ? paid(token) : { state: 'unknown', operationId: operation.id }
  }

  /** Mint, lock and relays of this key; chosen and stored when it is the first time. */
  async #fix(order: NutzapOrder): Promise<NutzapSendRow> {
    const { store, clock, nostr } = this.#deps
    const { key: idempotencyKey, from: owner, recipient, event, amountSats, cause, comment } = order
    const digest = requestDigest('nutzap', { from: owner.pubkey, recipient, eventId: event?.id, amountSats })
    if (getNutzapSend(store, idempotencyKey) === undefined) {
      const info = await this.#infoOf(recipient)
      const relays = await nostr.relaysToReach(recipient, info.relays)
      const at = clock.now()
      const mint = this.#mintFor(owner, info, amountSats)
      const target = { zapped: event?.id ?? null, zappedKind: event?.kind ?? null }
      const fixed = { idempotencyKey, requestDigest: digest, owner, recipient, cause, amountSats, comment, relays }
      const lockTo = `02${info.lockPubkey}`
      await store.write(insertNutzapSend({ ...fixed, ...mint, ...target, lockTo, nextTryAt: at + FIRST_LOOK_MS, at }))
    }
    const row = getNutzapSend(store, idempotencyKey)
    if (row === undefined) throw new PylonError('internal', 'The nutzap was not stored.')
    if (row.requestDigest !== digest) throw new PylonError('idempotency_conflict', 'This key zapped something else already: use a new one.')
    return row
  }

  async #infoOf(recipient: string): Promise<NutzapInfo> {
    const found = await this.#deps.nostr.newestOf(recipient, [NUTZAP_INFO_KIND])
    const event = found.events.get(NUTZAP_INFO_KIND)
    if (event === undefined && !found.isSure)
      throw new PylonError(
        'relay_unreachable',
        'No relay that could know how the recipient takes nutzaps (kind 10019) answered; try again later.',
      )
    const info = event === undefined ? undefined : parseNutzapInfo(event)
    if (info === undefined) throw new PylonError('nutzap_unavailable', 'The recipient takes no nutzaps: no usable kind 10019 says how.')
    return info
  }

  /** Of the mints that both know the one that holds most of what may be spent. @throws nutzap_unavailable */
  #mintFor(owner: WalletOwner, { mints }: NutzapInfo, amountSats: bigint): { mintUrl: string; mintNamed: string } {
    const { wallets } = this.#deps
    const ours = wallets.mints().map(({ url }) => url)
    const shared = new Map<string, string>()
    for (const { url, units } of mints) {
      const mintUrl = units.length === 0 || units.includes('sat') ? mintAmong(url, ours) : undefined
      if (mintUrl !== undefined && !shared.has(mintUrl)) shared.set(mintUrl, url)
    }
    const held = new Map(
      wallets
        .of(owner)
        .balance()
        .mints.map((mint) => [mint.url, mint]),
    )
    const free = (url: string): bigint => {
      const mint = held.get(url)
      return mint === undefined ? 0n : mint.balanceSats - mint.owedSats
    }
    const isFit = (url: string) => free(url) >= amountSats && held.get(url)?.state === 'ok'
    const [best] = [...shared].sort(([a], [b]) => (isFit(a) === isFit(b) ? Number(free(b) - free(a)) : isFit(a) ? -1 : 1))
    if (best === undefined) {
      const theirs = mints.map(({ url }) => url).slice(0, 3)
      throw new PylonError(
        'nutzap_unavailable',
        `The recipient takes nutzaps at ${theirs.join(', ')}, and no such mint is on our list: pylon wallet mints add URL`,
      )
    }
    return { mintUrl: best[0], mintNamed: best[1] }
  }

  /** One commit: its event, its place in the outbox, and the outcome for whoever asked. */
  async #publish(row: NutzapSendRow, token: SentToken): Promise<void> {
    const { store, clock, nostr } = this.#deps
    const { idempotencyKey, owner, recipient, mintNamed, comment, zapped, zappedKind } = row
    const head = readTokenHead(token.token)
    const keysets = listKeysets(store, token.mintUrl).map(({ id }) => id)
    const proofs = readTokenProofs(head, keysets).map(({ dleq, ...proof }) => {
      if (dleq?.r === undefined) throw new PylonError('internal', 'A proof of ours does not show that its mint signed it.')
      return { ...proof, dleq: { e: dleq.e, s: dleq.s, r: dleq.r } }
    })
    const event = zapped === null ? {} : { event: { id: zapped, ...(zappedKind === null ? {} : { kind: zappedKind }) } }
    const nutzap = identify(owner.pubkey, buildNutzap({ recipient, mintUrl: mintNamed, proofs, comment, ...event }, unixSeconds(clock)))
    const at = clock.now()
    await persistIfUnmoved(
      this.#deps,
      moveNutzapSend({ idempotencyKey, to: 'sent', eventId: nutzap.id, at }),
      enqueueEvent({ key: nutzapMessage.of(idempotencyKey), event: nutzap, relays: row.relays, notAfter: at + TTL_MS, at }),
      ended(row, { type: 'payment_settled', feeSats: token.feeSats }, at),
    )
    nostr.nudgeOutbox()
  }

  async #look(aheadMs = 0): Promise<void> {
    const { store, clock, logger } = this.#deps
    let isBusy = false
    for (const row of dueNutzapSends(store, clock.now() + aheadMs)) {
      await this.#goOn(row).then(
        (isOpen) => {
          isBusy ||= isOpen
        },
        (error: unknown) => {
          logger.warn({ key: row.idempotencyKey, err: messageOf(error) }, 'a nutzap could not be gone on with, it is tried again')
        },
      )
    }
    this.#looks = isBusy ? this.#looks + 1 : 0
  }

  /** @returns whether the wallet is at it still */
  async #goOn(row: NutzapSendRow): Promise<boolean> {
    const { store, clock, wallets } = this.#deps
    const { idempotencyKey } = row
    const at = clock.now()
    const token = wallets.of(row.owner).sentToken(idempotencyKey)
    if (token !== undefined) {
      await this.#publish(row, token)
      return false
    }
    const operation = operationByKey(store, idempotencyKey)
    const isOver = operation === undefined ? at - row.createdAt > DAY_MS : operation.state === 'failed'
    if (!isOver) return operation !== undefined
    const reason = operation?.error?.message ?? 'nothing was spent'
    await persistIfUnmoved(
      this.#deps,
      moveNutzapSend({ idempotencyKey, to: 'failed', note: reason, at }),
      ended(row, { type: 'payment_failed', reason }, at),
    )
    return false
  }

  /** The sats are gone: only the recipient can take them, and may still be handed the event by other ways. */
  async #onGivenUp(key: string, why: string): Promise<void> {
    const idempotencyKey = nutzapMessage.idIn(key) ?? ''
    const { store, logger } = this.#deps
    logger.warn({ key: idempotencyKey, why }, 'no relay took a nutzap: its recipient cannot see it')
    await store.write(noteNutzapSend({ idempotencyKey, note: `no relay took it: ${why}`.slice(0, 500) }))
  }
}

const paid = ({ operationId, feeSats }: SentToken): PayResult => ({ state: 'paid', operationId, preimage: '', feeSats })

/** What the wallet tells of any payment. */
function ended(
  { cause, owner, idempotencyKey }: NutzapSendRow,
  end: { type: 'payment_settled'; feeSats: Sats } | { type: 'payment_failed'; reason: string },
  at: number,
) {
  const event: WalletEvent = { cause, owner, idempotencyKey, ...end }
  return insertWalletEvent({ causeType: cause.type, event, at })
}
