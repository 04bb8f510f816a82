/** The request event of an order, with its id. */

import { msats } from '../base/amounts.ts'
import { given } from '../base/given.ts'
import { identify } from '../nostr/nips/nip01.ts'
import { buildJobRequest } from '../nostr/nips/nip90.ts'
import type { IdentifiedEvent, Signer } from '../nostr/types.ts'
import type { Order } from './order.ts'

export function buildRequest(request: {
  readonly signer: Signer
  readonly order: Order
  /** Where the answers are to go. */
  readonly relays: readonly string[]
  /** Unix seconds. */
  readonly createdAt: number
  readonly expiresAt: number
  readonly provider: string | undefined
  readonly token: string | undefined
}): IdentifiedEvent {
  const { signer, order, provider, token } = request
  const template = buildJobRequest({
    kind: order.kind,
    inputs: order.inputs,
    params: order.params,
    relays: request.relays,
    createdAtS: request.createdAt,
    random: signer.random,
    expiresAtS: request.expiresAt,
    ...(order.bidSats === undefined ? {} : { bidMsats: msats(order.bidSats * 1000) }),
    ...given({ provider, cashuToken: token }),
    ...(order.encrypt ? { encryptBy: { signer } } : {}),
  })
  return identify(signer.pubkey, template)
}
