/** Zap receipts as an LNURL server signs them, right or wrong in one respect, for tests that have no server. */
import { createHash, randomBytes } from 'node:crypto'
import { msats } from '../../src/base/amounts.ts'
import { buildZapRequest } from '../../src/nostr/nips/nip57.ts'
import type { EventTemplate, LocalSigner, NostrEvent } from '../../src/nostr/types.ts'
import { encodeInvoice } from '../../src/sandbox/bolt11-encode.ts'

export interface ReceiptOf {
  readonly server: LocalSigner
  readonly payer: LocalSigner
  readonly recipient: string
  readonly amountMsats: bigint
  readonly atS: number
  readonly eventId?: string
  readonly comment?: string
  /** What the invoice says, where it is not what was asked. */
  readonly invoiced?: { readonly amountMsats?: bigint; readonly description?: string }
  /** Changes the receipt before it is signed. */
  readonly change?: (template: EventTemplate) => EventTemplate
}

/** A 9735 for a zap of a payment that nobody made. */
export function zapReceipt(of: ReceiptOf): NostrEvent {
  const { server, payer, recipient, amountMsats, atS, eventId, comment, invoiced } = of
  const template = buildZapRequest({
    recipient,
    amountMsats: msats(amountMsats),
    relays: ['ws://relay.test'],
    createdAtS: atS,
    random: payer.random,
    ...(eventId === undefined ? {} : { event: { id: eventId } }),
    ...(comment === undefined ? {} : { comment }),
  })
  const description = JSON.stringify(payer.sign(template))
  const bolt11 = encodeInvoice(
    {
      network: 'bcrt',
      amountMsats: invoiced?.amountMsats ?? amountMsats,
      timestampSeconds: atS,
      paymentHash: randomBytes(32),
      paymentSecret: randomBytes(32),
      description: {
        sha256: createHash('sha256')
          .update(invoiced?.description ?? description)
          .digest(),
      },
    },
    Buffer.alloc(32, 5),
  )
  const receipt: EventTemplate = {
    kind: 9735,
    created_at: atS,
    content: '',
    tags: [['p', recipient], ...(eventId === undefined ? [] : [['e', eventId]]), ['bolt11', bolt11], ['description', description]],
  }
  return server.sign(of.change?.(receipt) ?? receipt)
}
