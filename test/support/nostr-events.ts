/** Events that others write and the node only reads. */

import { sealRumor, wrapSeal } from '../../src/nostr/nips/nip59.ts'
import { DM_RELAYS_KIND, RELAY_LIST_KIND } from '../../src/nostr/nips/nip65.ts'
import { buildFeedback } from '../../src/nostr/nips/nip90-answers.ts'
import type { EventTemplate, IdentifiedEvent, LocalSigner, NostrEvent } from '../../src/nostr/types.ts'

/** Read and write on all of them. */
export const relayListWith = (relays: readonly string[], createdAtS: number): EventTemplate => ({
  kind: RELAY_LIST_KIND,
  created_at: createdAtS,
  tags: relays.map((url) => ['r', url]),
  content: '',
})

export const dmRelaysWith = (relays: readonly string[], createdAtS: number): EventTemplate => ({
  kind: DM_RELAYS_KIND,
  created_at: createdAtS,
  tags: relays.map((url) => ['relay', url]),
  content: '',
})

/** One wrap of a rumor, sealed by its author. */
export const wrapOf = async (author: LocalSigner, rumor: IdentifiedEvent, recipient: string, nowS: number): Promise<NostrEvent> =>
  wrapSeal(await sealRumor(author, rumor, recipient, nowS), recipient, nowS, author.random)

/** The `error` of a provider that gives the money back: its token is for the customer alone. */
export function refundFeedback(refund: {
  readonly request: Pick<NostrEvent, 'id' | 'pubkey'>
  readonly signer: LocalSigner
  readonly error: string
  readonly token: string
  readonly createdAtS: number
}): EventTemplate {
  const { request, signer, error, token, createdAtS } = refund
  return buildFeedback({
    request,
    status: 'error',
    extra: 'refunded',
    content: JSON.stringify({ error, refund_token: token }),
    encrypt: { signer, scheme: 'nip44' },
    createdAtS,
  })
}
