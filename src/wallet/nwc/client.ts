/** One Lightning wallet elsewhere over NIP-47: asks it on its own relays, and hears its answers and what it tells. */
import { unixSeconds } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { supersedes, tagValue } from '../../nostr/nips/nip01.ts'
import {
  buildNwcRequest,
  NWC_INFO_KIND,
  NWC_NOTIFICATION_04_KIND,
  NWC_NOTIFICATION_KIND,
  NWC_RESPONSE_KIND,
  type NwcInfo,
  type NwcResponse,
  openNotification,
  openNwcResponse,
  parseInfo,
} from '../../nostr/nips/nip47.ts'
import type { LocalSigner, Nostr, NostrEvent, Subscription } from '../../nostr/types.ts'
import type { Command } from '../../store/commands.ts'
import { nwcRequestMessage } from '../../store/keys.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import type { Store } from '../../store/store.ts'

export interface NwcClientDeps {
  readonly scope: Scope
  readonly store: Store
  readonly logger: Logger
  readonly nostr: Pick<Nostr, 'subscribe' | 'query' | 'nudgeOutbox'>
  /** Our key there. */
  readonly signer: LocalSigner
  readonly id: string
  readonly walletPubkey: string
  readonly relays: readonly string[]
  info: NwcInfo
  /** An answer to whatever was asked, also by an earlier run of the node. */
  onResponse(requestId: string, response: NwcResponse): void
  onNotification(type: string, notification: Readonly<Record<string, unknown>>): void
}

/** How long an answer is waited for where nothing is spent. */
const ASK_MS = 15_000
/** Whoever sends late answers is still heard. */
const BACKFILL_S = 600

export class NwcClient {
  readonly #deps: NwcClientDeps
  readonly #waiting = new Map<string, (response: NwcResponse) => void>()
  readonly #subscription: Subscription

  constructor(deps: NwcClientDeps) {
    this.#deps = deps
    const { nostr, id, walletPubkey, signer, relays } = deps
    const kinds = [NWC_RESPONSE_KIND, NWC_NOTIFICATION_04_KIND, NWC_NOTIFICATION_KIND]
    this.#subscription = nostr.subscribe({
      name: `nwc-wallet:${id}`,
      filters: [{ kinds, authors: [walletPubkey], '#p': [signer.pubkey] }],
      relays,
      backfillS: BACKFILL_S,
      overlapS: BACKFILL_S,
      onEvent: async (event) => this.#onEvent(event),
    })
  }

  close(): void {
    this.#subscription.close()
  }

  /** What it says that it does. */
  get methods(): readonly string[] {
    return this.#deps.info.methods
  }

  /** A signed request, to be sent by `sending` in the commit that stores what it is for. */
  request(method: string, params: Readonly<Record<string, unknown>>, ttlS: number): { event: NostrEvent; expiresAtS: number } {
    const { signer, walletPubkey, scope, info } = this.#deps
    const createdAtS = unixSeconds(scope.clock)
    const expiresAtS = createdAtS + ttlS
    const encryption = info.encryptions.includes('nip44_v2') ? 'nip44_v2' : 'nip04'
    const template = buildNwcRequest(signer, walletPubkey, { method, params }, { encryption, createdAtS, expiresAtS })
    return { event: signer.sign(template), expiresAtS }
  }

  sending({ event, expiresAtS }: { event: NostrEvent; expiresAtS: number }): Command<unknown> {
    const at = this.#deps.scope.clock.now()
    return enqueueEvent({ key: nwcRequestMessage.of(event.id), event, relays: this.#deps.relays, notAfter: expiresAtS * 1000, at })
  }

  /** The answer to a request, or undefined after `ms`. @throws shutting_down */
  async response(requestId: string, ms: number): Promise<NwcResponse | undefined> {
    return await this.#deps.scope.hear<NwcResponse>(ms, (tell) => {
      this.#waiting.set(requestId, tell)
      return () => this.#waiting.delete(requestId)
    })
  }

  /** Asks what spends nothing. @throws nwc_unreachable, nwc_refused with details.nwc_code */
  async ask(method: string, params: Readonly<Record<string, unknown>>): Promise<Readonly<Record<string, unknown>>> {
    const { store, nostr } = this.#deps
    const request = this.request(method, params, Math.ceil(ASK_MS / 1000))
    await store.write(this.sending(request))
    const heard = this.response(request.event.id, ASK_MS)
    nostr.nudgeOutbox()
    const response = await heard
    if (response === undefined)
      throw new PylonError('nwc_unreachable', `The Lightning wallet gave no answer to ${method} in ${ASK_MS / 1000} s.`)
    if (response.error !== undefined) throw refusedBy(method, response.error)
    return response.result ?? {}
  }

  /** What the wallet says of itself on its relays, newest first. @throws nwc_unreachable */
  static async infoOf(
    nostr: Pick<Nostr, 'query'>,
    { walletPubkey, relays }: { readonly walletPubkey: string; readonly relays: readonly string[] },
  ): Promise<NwcInfo> {
    const { events } = await nostr.query([{ kinds: [NWC_INFO_KIND], authors: [walletPubkey], limit: 4 }], { relays })
    const [first, ...others] = events
    if (first === undefined)
      throw new PylonError(
        'nwc_unreachable',
        `The wallet says nothing of itself on ${relays.join(', ')}: is it online, and the string whole?`,
      )
    return parseInfo(others.reduce((newest, event) => (supersedes(event, newest) ? event : newest), first))
  }

  #onEvent(event: NostrEvent): void {
    const { signer, onResponse, onNotification, logger } = this.#deps
    try {
      if (event.kind === NWC_RESPONSE_KIND) {
        const requestId = tagValue(event, 'e')
        if (requestId === undefined) return
        const response = openNwcResponse(signer, event)
        this.#waiting.get(requestId)?.(response)
        onResponse(requestId, response)
      } else {
        const { type, notification } = openNotification(signer, event)
        onNotification(type, notification)
      }
    } catch (error) {
      // Whoever has the wallet's key may write what it likes there.
      logger.warn({ event_id: event.id, kind: event.kind, err: error }, 'what the Lightning wallet sent cannot be read')
    }
  }
}

export const refusedBy = (method: string, { code, message }: { readonly code: string; readonly message: string }): PylonError =>
  new PylonError('nwc_refused', `The Lightning wallet refused ${method}: ${message.slice(0, 300)} (${code}).`, {
    details: { nwc_code: code },
  })
