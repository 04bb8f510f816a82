/** The request event of an order, with its id. */

import { msats } from '../base/amounts.ts'
import { unixSeconds } from '../base/clock.ts'
import { given } from '../base/given.ts'
import { identify } from '../nostr/nips/nip01.ts'
import { buildJobRequest } from '../nostr/nips/nip90.ts'
import type { IdentifiedEvent } from '../nostr/types.ts'
import type { PurchaseRow } from '../store/buying/purchases.ts'
import type { CustomerDeps } from './deps.ts'
import type { Order } from './order.ts'

/** Good until the deadline of its purchase; the answers are to go to our own relays. */
export function buildRequest(
  { nostr, clock }: Pick<CustomerDeps, 'nostr' | 'clock'>,
  { deadlineAt }: PurchaseRow,
  { kind, inputs, params, bidSats, encrypt }: Order,
  { provider, token }: { readonly provider: string | undefined; readonly token?: string | undefined },
): IdentifiedEvent {
  const signer = nostr.keyring.customer()
  const template = buildJobRequest({
    ...{ kind, inputs, params, relays: nostr.relays, random: signer.random },
    ...{ createdAtS: unixSeconds(clock), expiresAtS: Math.ceil(deadlineAt / 1000) },
    ...(bidSats === undefined ? {} : { bidMsats: msats(bidSats * 1000) }),
    ...given({ provider, cashuToken: token }),
    ...(encrypt ? { encryptBy: { signer } } : {}),
  })
  return identify(signer.pubkey, template)
}
