/** The sandbox's Lightning node: issues signed regtest invoices and reads any invoice that it is asked to pay. */
import { hash } from 'node:crypto'
import { decode } from 'light-bolt11-decoder'
import type { Random } from '../../base/random.ts'
import { encodeInvoice } from '../bolt11-encode.ts'
import { MintError } from './errors.ts'

export interface IssuedInvoice {
  readonly request: string
  readonly paymentHash: string
  readonly preimage: string
}

/** A new invoice over whole sats, signed by the node key. */
export function issueInvoice(options: {
  random: Random
  nodeKey: Uint8Array
  amountSats: number
  description: string | { readonly sha256: Uint8Array }
  nowSeconds: number
  expirySeconds: number
}): IssuedInvoice {
  const preimage = Buffer.from(options.random.bytes(32))
  const paymentHash = hash('sha256', preimage, 'buffer')
  const request = encodeInvoice(
    {
      network: 'bcrt',
      amountMsats: BigInt(options.amountSats) * 1_000n,
      timestampSeconds: options.nowSeconds,
      paymentHash,
      paymentSecret: options.random.bytes(32),
      description: options.description,
      expirySeconds: options.expirySeconds,
    },
    options.nodeKey,
  )
  return { request, paymentHash: paymentHash.toString('hex'), preimage: preimage.toString('hex') }
}

/** Hash, amount (undefined: any amount) and expiry of an invoice. @throws invalid_request */
export function readInvoice(request: string): { paymentHash: string; amountMsats: bigint | undefined; expiresAt: number } {
  try {
    const { sections, expiry } = decode(request)
    const section = (name: string) => sections.find((item) => item.name === name)
    const paymentHash = section('payment_hash')
    const amount = section('amount')
    const timestamp = section('timestamp')
    if (paymentHash?.name !== 'payment_hash' || timestamp?.name !== 'timestamp') throw new Error('a required field is missing')
    return {
      paymentHash: paymentHash.value,
      amountMsats: amount?.name === 'amount' ? BigInt(amount.value) : undefined,
      expiresAt: timestamp.value + (expiry ?? 3_600),
    }
  } catch {
    throw new MintError('invalid_request', 'the request is not a valid bolt11 invoice')
  }
}
