/** Tools of the owner's wallets: invoices made and paid. */
import { z } from 'zod'
import { given } from '../../base/given.ts'
import { walletRoutes } from '../../control/contract/wallet.ts'
import { defineTool, idempotencyKey, type Tool } from '../tool.ts'

const wallet = z.string().min(1).max(100).default('node').describe('node, customer, or the name of an agent')
const ownWallet = z.enum(['node', 'customer']).default('node')
const WAIT_S = 40

export function walletTools(): Tool[] {
  return [
    defineTool({
      ...{ name: 'pay_invoice', title: 'Pay a Lightning invoice', effect: 'spend', openWorld: true },
      description: 'SPENDS SATS of the owner: pays a bolt11 invoice, each only once. It cannot be taken back.',
      input: z.strictObject({
        invoice: z.string().trim().min(10).max(8000).describe('bolt11'),
        wallet: ownWallet,
        max_sats: z.int().min(1).optional().describe('The most that may leave, fees included; what the owner allows by default'),
        idempotency_key: idempotencyKey,
      }),
      async run(args, { node, spending, key }) {
        const maxSats = spending?.hold(key, args.max_sats)
        const request = { wallet: args.wallet, request: args.invoice, ...given({ max_sats: maxSats }) }
        const { body, value } = await node.call(walletRoutes.payInvoice, request, { idempotencyKey: key })
        if (value.state === 'unknown') return { body, words: UNKNOWN }
        const total = (value.amount_sats ?? 0n) + (value.fee_sats ?? 0n)
        spending?.settle(key, Number(total))
        return { body, words: `Paid: ${total} sats left, fees included.` }
      },
    }),
    defineTool({
      ...{ name: 'make_invoice', title: 'Make a Lightning invoice', effect: 'note', openWorld: true },
      description: 'Makes a bolt11 invoice; what is paid on it comes into the wallet. get_invoice says when.',
      input: z.strictObject({
        sats: z.int().min(1).max(1_000_000_000),
        description: z.string().max(200).optional().describe('Who pays can read it'),
        wallet,
        idempotency_key: idempotencyKey,
      }),
      async run(args, { node, key }) {
        const request = { wallet: args.wallet, amount_sats: args.sats, ...given({ description: args.description }) }
        const { body, value } = await node.call(walletRoutes.createInvoice, request, { idempotencyKey: key })
        return { body, words: `An invoice over ${value.amount_sats} sats, invoice_id ${value.invoice_id}: ${value.request}` }
      },
    }),
    defineTool({
      ...{ name: 'get_invoice', title: 'State of an invoice', effect: 'look', openWorld: false },
      description:
        'unpaid, paid (the mint has it), settled (the sats are in the wallet) or expired; with wait it answers once that changes.',
      input: z.strictObject({
        invoice_id: z.string().min(1).max(200).describe('As make_invoice gave it'),
        wallet,
        wait: z.boolean().default(false).describe(`Wait up to ${WAIT_S} seconds`),
      }),
      async run(args, { node, signal }) {
        const request = { wallet: args.wallet, invoice_id: args.invoice_id, ...(args.wait ? { wait: String(WAIT_S) } : {}) }
        const { body, value } = await node.call(walletRoutes.getInvoice, request, { signal })
        return { body, words: `The invoice over ${value.amount_sats} sats is ${value.state}.` }
      },
    }),
  ]
}

const UNKNOWN =
  'Nobody can say yet whether it was paid: the sats are held and the node goes on asking. Do not pay it another way; ask again with the same idempotency_key.'
