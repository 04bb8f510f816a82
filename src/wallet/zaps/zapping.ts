/**
 * A zap, by whatever way it goes: to a Lightning address (NIP-57) or as a nutzap (NIP-61), and shared where the event says so
 * (NIP-57, appendix G). Way and shares are fixed for a key before anything is paid; each share is a payment of its own.
 */
import { type Sats, sats } from '../../base/amounts.ts'
import type { Config } from '../../base/config.ts'
import { type ErrorCode, isPylonError, messageOf, PylonError, toPylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { shareOut } from '../../nostr/nips/nip57.ts'
import { zapPartKey } from '../../store/keys.ts'
import { getNutzapSend } from '../../store/money/nutzap-sends.ts'
import { getZapSend, getZapSplit, insertZapSplit } from '../../store/money/zaps.ts'
import { requestDigest } from '../context.ts'
import { NutzapSender, type NutzapSenderDeps } from '../nutzaps/sending.ts'
import type { PayResult, Wallet } from '../types.ts'
import { createZapSender, keyOfZap, type SendZap, type ZapOrder, type ZapPart, type ZapResult, type ZapSenderDeps } from './zaps.ts'

export interface ZapsDeps extends Omit<ZapSenderDeps, 'nostr' | 'wallets'>, Omit<NutzapSenderDeps, 'nostr'> {
  readonly config: () => Config
  readonly nostr: ZapSenderDeps['nostr'] & NutzapSenderDeps['nostr']
}

/** Why no Lightning address takes a zap, before anything is fixed for one. */
const NO_ADDRESS: readonly ErrorCode[] = ['lnurl_invalid', 'fetch_failed', 'address_refused']
/** Of this process, not of a share: all of it is gone on with later. */
const OURS: readonly ErrorCode[] = ['shutting_down', 'disk_full', 'database_busy', 'locked']

interface Share {
  readonly recipient: string
  readonly amountSats: bigint
  readonly key: string
}

type Outcome = ReturnType<Wallet['payment']>

export class Zaps {
  readonly #deps: ZapsDeps
  readonly #lightning: SendZap
  readonly #nutzaps: NutzapSender
  readonly #keys = new KeyedQueue()

  constructor(deps: ZapsDeps) {
    this.#deps = deps
    this.#lightning = createZapSender(deps)
    this.#nutzaps = new NutzapSender(deps)
  }

  /** Goes on with nutzaps that were under way. */
  start(): void {
    this.#nutzaps.start()
  }

  /** What cannot be paid of a zap that is shared does not undo the rest. @throws where nothing was paid: as Wallet.pay, lnurl_invalid, fetch_failed, address_refused, nutzap_unavailable */
  send: SendZap = (order) => this.#keys.run(keyOfZap(order), () => this.#send(order))

  /** What became of the zap under this key; undefined where nothing was spent. */
  outcome(from: ZapOrder['from'], key: string): Outcome | ZapResult {
    const split = getZapSplit(this.#deps.store, key)
    if (split === undefined) return this.#outcomeOf(from, key)
    const parts = split.parts.map((part) => ({ part, outcome: this.#outcomeOf(from, part.key) }))
    const known = parts.flatMap(({ part, outcome }) => (outcome === undefined ? [] : [{ part, outcome }]))
    const failed = known.find(({ outcome }) => outcome.state === 'failed')
    const good = known.flatMap(({ part, outcome }) =>
      outcome.state === 'failed' ? [] : [{ result: outcome, amountSats: sats(part.amountSats) }],
    )
    return together(good) ?? failed?.outcome
  }

  #outcomeOf(from: ZapOrder['from'], key: string): Outcome {
    return this.#nutzaps.outcome(key) ?? this.#deps.wallets.of(from).payment(key)
  }

  async #send(order: ZapOrder): Promise<ZapResult> {
    const key = keyOfZap(order)
    const shares = await this.#sharesOf(order, key)
    if (shares === undefined) return await this.#sendOne(order, key)
    const parts: ZapPart[] = []
    const good: { result: PayResult; amountSats: Sats }[] = []
    let first: unknown
    for (const share of shares) {
      const { recipient } = share
      const amountSats = sats(share.amountSats)
      try {
        const refused = recipient === order.from.pubkey ? 'it is the key that zaps' : order.refuses?.(recipient)
        if (refused !== undefined) throw new PylonError('spend_refused', `This share may not be paid: ${refused}.`)
        const spend = { ...order.spend, counterparty: recipient }
        const result = await this.#sendOne({ ...order, recipient, amountSats, spend }, share.key)
        parts.push({ recipient, amountSats, state: result.state })
        good.push({ result, amountSats })
      } catch (error) {
        const failure = toPylonError(error)
        if (OURS.includes(failure.code)) throw error
        first ??= error
        parts.push({ recipient, amountSats, state: 'failed', reason: messageOf(failure) })
      }
    }
    const all = together(good)
    if (all === undefined) throw first
    return { ...all, parts }
  }

  /** Who shares it, fixed when it is the first time; undefined where one key has all of it. */
  async #sharesOf(order: ZapOrder, key: string): Promise<readonly Share[] | undefined> {
    const { store, clock } = this.#deps
    const { from, eventId, amountSats } = order
    const digest = requestDigest('zap split', { from: from.pubkey, eventId, amountSats })
    if (getZapSplit(store, key) === undefined) {
      const isFixed = getZapSend(store, key) !== undefined || getNutzapSend(store, key) !== undefined
      const splits = isFixed ? [] : ((await order.splits?.()) ?? [])
      if (splits.length === 0) return undefined
      const amounts = shareOut(amountSats, splits)
      const parts = splits.map(({ pubkey }, place) => ({
        ...{ recipient: pubkey, amountSats: Number(amounts[place] ?? 0n), key: zapPartKey(key, place) },
      }))
      const worth = parts.filter((part) => part.amountSats > 0)
      await store.write(insertZapSplit({ idempotencyKey: key, requestDigest: digest, parts: worth, createdAt: clock.now() }))
    }
    const split = getZapSplit(store, key)
    if (split?.requestDigest !== digest)
      throw new PylonError('idempotency_conflict', 'This key zapped something else already: use a new one.')
    return split.parts.map((part) => ({ ...part, amountSats: BigInt(part.amountSats) }))
  }

  /** By the way that was fixed for its key, or by the first that takes it. */
  async #sendOne(order: ZapOrder, key: string): Promise<ZapResult> {
    const { store, config } = this.#deps
    const one = { ...order, key }
    const isFixed = getZapSend(store, key) !== undefined
    const by = order.by ?? config().wallet.zap_by
    if (getNutzapSend(store, key) !== undefined || (by === 'nutzap' && !isFixed)) return await this.#nutzap(one, key)
    try {
      return await this.#lightning(one)
    } catch (error) {
      const isClosed = isPylonError(error) && NO_ADDRESS.includes(error.code) && getZapSend(store, key) === undefined
      if (by !== 'auto' || !isClosed) throw error
      // Where it takes no nutzaps either, why there is no Lightning for it says more.
      return await this.#nutzap(one, key).catch((reason: unknown) => {
        throw isPylonError(reason, 'nutzap_unavailable') ? error : reason
      })
    }
  }

  #nutzap(order: ZapOrder, key: string): Promise<PayResult> {
    const { from, recipient, eventId, eventKind, amountSats, comment, spend, cause, actionId } = order
    const event = eventId === undefined ? {} : { event: { id: eventId, ...(eventKind === undefined ? {} : { kind: eventKind }) } }
    return this.#nutzaps.send({
      key,
      cause: cause ?? { type: 'action', id: actionId },
      from,
      recipient,
      amountSats,
      comment,
      spend,
      ...event,
    })
  }
}

/** Unknown while one of them is; what they cost together. Undefined where there is none. */
function together(good: readonly { result: PayResult; amountSats: Sats }[]): ZapResult | undefined {
  const amountSats = sats(good.reduce((sum, one) => sum + one.amountSats, 0n))
  const open = good.find(({ result }) => result.state === 'unknown')?.result
  const [first] = good
  if (open !== undefined || first === undefined) return open
  const feeSats = sats(good.reduce((sum, { result }) => sum + (result.state === 'paid' ? result.feeSats : 0n), 0n))
  const preimage = first.result.state === 'paid' ? first.result.preimage : ''
  return { state: 'paid', operationId: first.result.operationId, preimage, feeSats, amountSats }
}
