/** Sends zaps to Lightning addresses (NIP-57): the signed request and its invoice are stored before anything is paid, so that a retry pays the same or nothing. */
import { hash } from 'node:crypto'
import { accountOf, accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { msats, type Sats } from '../../base/amounts.ts'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import type { Dialer } from '../../base/dialer.ts'
import { PylonError } from '../../base/errors.ts'
import { tagValue } from '../../nostr/nips/nip01.ts'
import { buildZapRequest, type ZapSplit } from '../../nostr/nips/nip57.ts'
import type { Nostr, NostrEvent } from '../../nostr/types.ts'
import { zapKey } from '../../store/keys.ts'
import type { Cause } from '../../store/money/ledger.ts'
import { getZapSend, insertZapSend, setZapInvoice, type ZapSendRow } from '../../store/money/zaps.ts'
import type { Store } from '../../store/store.ts'
import { requestDigest } from '../context.ts'
import { decodeInvoice } from '../lightning/bolt11.ts'
import {
  decodeLnurl,
  encodeLnurl,
  fetchPayParameters,
  invalid,
  lnurlOfProfile,
  type PayParameters,
  requestInvoice,
} from '../lightning/lnurl.ts'
import type { PayResult, Spend, Wallets } from '../types.ts'

export interface ZapSenderDeps {
  readonly store: Store
  readonly clock: Clock
  readonly dialer: Dialer
  readonly nostr: Pick<Nostr, 'keyring' | 'profileOf'>
  readonly wallets: Pick<Wallets, 'of'>
  /** The prefix that invoices must have; undefined: any. */
  readonly invoiceNetwork?: string
}

export interface ZapOrder {
  readonly from: WalletOwner
  /** Whom to zap. */
  readonly recipient: string
  readonly eventId?: string
  readonly eventKind?: number
  readonly amountSats: bigint
  readonly comment: string
  /** Where the receipt is wanted. */
  readonly relays: readonly string[]
  /** The same action is the same zap, for ever. */
  readonly actionId: string
  /** Of its payment, where that is not named after the action. */
  readonly key?: string
  /** Else the action. */
  readonly cause?: Cause
  /** Else as the configuration says. */
  readonly by?: 'lightning' | 'nutzap' | 'auto'
  /** Who is to share it, as the zapped event says; asked once, before anything is paid. */
  readonly splits?: () => Promise<readonly ZapSplit[]>
  /** Why this key may not have a share. */
  readonly refuses?: (pubkey: string) => string | undefined
  /** Whose limits bind it. */
  readonly spend: Spend
}

interface Target {
  readonly url: string
  readonly lnurl: string
  readonly parameters: PayParameters
}

/** One share of a zap. */
export interface ZapPart {
  readonly recipient: string
  readonly amountSats: Sats
  readonly state: 'paid' | 'unknown' | 'failed'
  readonly reason?: string
}

/** Where it was shared: what was paid in all, fees not counted, and to whom. */
export type ZapResult = PayResult & { readonly amountSats?: Sats; readonly parts?: readonly ZapPart[] }

export const keyOfZap = ({ key, actionId }: Pick<ZapOrder, 'key' | 'actionId'>): string => key ?? zapKey.of(actionId)

/** Sends a zap under the wallet key of its action. @throws as Wallet.pay does, and lnurl_invalid, fetch_failed, address_refused: in all these cases nothing was spent */
export type SendZap = (order: ZapOrder) => Promise<ZapResult>

export function createZapSender(deps: ZapSenderDeps): SendZap {
  return async (order) => {
    const idempotencyKey = keyOfZap(order)
    const fixed = await fixZap(deps, order, idempotencyKey)
    const invoice = fixed.invoice ?? (await fixInvoice(deps, order, fixed))
    const wallet = deps.wallets.of(order.from)
    const payment = {
      idempotencyKey,
      cause: order.cause ?? { type: 'action' as const, id: order.actionId },
      request: invoice,
      amountMsats: order.amountSats * 1000n,
      debitAccount: accountOf(accountOwner(order.from), 'expense', 'zap'),
    }
    // Lists may mean who takes it by the server that gave the invoice, too: the request that is stored names it.
    const server = hostOfRequest(fixed.zapRequest)
    const spend = server === undefined ? order.spend : { ...order.spend, names: [server] }
    return wallet.pay(payment, spend)
  }
}

/** The host of the LNURL that a stored zap request is for. */
function hostOfRequest(zapRequest: string): string | undefined {
  const lnurl = tagValue(JSON.parse(zapRequest) as NostrEvent, 'lnurl')
  return lnurl === undefined ? undefined : new URL(decodeLnurl(lnurl)).hostname
}

const PLAIN = 'its server takes no zaps: paid as a plain LNURL payment, so no receipt will tell of it'
const OTHER_HASH = 'the invoice does not commit to the zap request: amount, network and expiry were right, its receipt may say less'

/** The stored zap of this action; made, signed and stored when it is the first time. */
async function fixZap(deps: ZapSenderDeps, order: ZapOrder, idempotencyKey: string): Promise<ZapSendRow> {
  const { from, recipient, eventId, amountSats } = order
  const digest = requestDigest('zap', { from: from.pubkey, recipient, eventId, amountSats })
  const known = getZapSend(deps.store, idempotencyKey)
  if (known === undefined) {
    const { lnurl } = await resolveTarget(deps, order)
    const signer = deps.nostr.keyring.signer(from.pubkey)
    const template = buildZapRequest({
      recipient,
      amountMsats: msats(amountSats * 1000n),
      relays: order.relays.slice(0, 10),
      lnurl,
      ...(eventId === undefined ? {} : { event: { id: eventId, ...(order.eventKind === undefined ? {} : { kind: order.eventKind }) } }),
      comment: order.comment,
      createdAtS: unixSeconds(deps.clock),
      random: signer.random,
    })
    const zapRequest = JSON.stringify(await signer.sign(template))
    await deps.store.write(insertZapSend({ idempotencyKey, requestDigest: digest, zapRequest, at: deps.clock.now() }))
  }
  const row = getZapSend(deps.store, idempotencyKey)
  if (row === undefined) throw new PylonError('internal', 'The zap was not stored.')
  if (row.requestDigest !== digest) throw new PylonError('idempotency_conflict', 'This action zapped something else already.')
  return row
}

/** Asks for the invoice of the stored request, checks it and stores it. */
async function fixInvoice(deps: ZapSenderDeps, order: ZapOrder, fixed: ZapSendRow): Promise<string> {
  const { lnurl, parameters } = await resolveTarget(deps, order)
  const amountMsats = order.amountSats * 1000n
  const takesZaps = parameters.nostrPubkey !== undefined
  const invoice = await requestInvoice(
    deps.dialer,
    parameters,
    takesZaps ? { amountMsats, zapRequest: fixed.zapRequest, lnurl } : { amountMsats, comment: order.comment },
  )
  const decoded = decodeInvoice(invoice)
  if (decoded.amountMsats !== amountMsats) throw invalid(`it asks for ${decoded.amountMsats ?? 'no'} msats instead of ${amountMsats}`)
  if (deps.invoiceNetwork !== undefined && decoded.network !== deps.invoiceNetwork) {
    throw invalid(`its invoice is for another network (ln${decoded.network}, this node pays ln${deps.invoiceNetwork})`)
  }
  if (decoded.expiresAt <= deps.clock.now()) throw invalid('its invoice has expired')
  // Servers that commit to their metadata, to a constant or to nothing are common, and their receipts are as good.
  const note = !takesZaps ? PLAIN : decoded.descriptionHash === hash('sha256', fixed.zapRequest) ? null : OTHER_HASH
  await deps.store.write(setZapInvoice({ idempotencyKey: fixed.idempotencyKey, invoice: decoded.request, note }))
  return getZapSend(deps.store, fixed.idempotencyKey)?.invoice ?? decoded.request
}

/** @throws lnurl_invalid, fetch_failed, address_refused */
async function resolveTarget(deps: ZapSenderDeps, order: ZapOrder): Promise<Target> {
  const profile = await deps.nostr.profileOf(order.recipient)
  if (profile === undefined) {
    throw new PylonError(
      'fetch_failed',
      'No relay that answers has a profile of the recipient, so nobody can say where to pay. Try again later.',
    )
  }
  const url = lnurlOfProfile(profile)
  if (url === undefined) throw invalid('the profile names none')
  const parameters = await fetchPayParameters(deps.dialer, url)
  const amountMsats = order.amountSats * 1000n
  if (amountMsats < parameters.minMsats || amountMsats > parameters.maxMsats) {
    throw invalid(`it takes ${parameters.minMsats} to ${parameters.maxMsats} msats, not ${amountMsats}`)
  }
  return { url, lnurl: encodeLnurl(url), parameters }
}
