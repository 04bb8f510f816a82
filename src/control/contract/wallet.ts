/** Routes about money: the wallets of the node, the customer and each agent, and the mints they may use. */
import { z } from 'zod'
import { defineRoutes, msatsField, queryInt, satsField, timeField } from '../route.ts'
import { lightningWallet } from './nwc.ts'
import { requestPayment } from './requests.ts'

/** `node`, `customer` or the name, npub or hex key of an agent. */
const wallet = z.string().min(1).max(100).describe('node, customer, or the name or npub of an agent')
/** In msats it is still an integer in every JSON reader, and in the ledger. */
const amountSats = z.int().min(1).max(9_007_199_254_740)
const mintUrl = z.string().min(1).max(2048)

const includeOwed = z.boolean().optional().describe('Spend also what is owed to customers: a refund may have to wait for new sats then.')

const mintBalance = z.strictObject({
  url: z.string(),
  balance_sats: satsField,
  state: z.enum(['ok', 'down']),
  reason: z.string().optional(),
})

const walletView = z.strictObject({
  wallet: z.string(),
  npub: z.string(),
  pubkey: z.string(),
  lock_pubkey: z.string().describe('The compressed key that tokens for this wallet are locked to (P2PK, NUT-11).'),
  balance_sats: satsField,
  owed_sats: satsField.describe('Of the balance: paid by customers whose jobs and leases are not settled; it may have to go back.'),
  at_risk_sats: satsField.describe('In operations whose outcome is unknown, and paid for invoices that their mint has not issued.'),
  mints: z.array(mintBalance),
  lightning: lightningWallet
    .optional()
    .describe("Of the node: the owner's own Lightning wallet, where one is connected. Not part of the balance."),
})

const invoiceView = z.strictObject({
  invoice_id: z.string().describe('The Idempotency-Key it was made under.'),
  wallet: z.string(),
  request: z.string().describe('The bolt11 invoice.'),
  quote_id: z.string().describe('Of the mint; locked to the wallet key by NUT-20.'),
  amount_sats: satsField,
  mint_url: z.string(),
  state: z.enum(['unpaid', 'paid', 'settled', 'expired']).describe('settled: the ecash is in the wallet.'),
  expires_at: timeField,
})

const listedInvoice = z.strictObject({
  quote_id: z.string().describe('What the mint knows it by; of the Lightning wallet its payment hash.'),
  rail: z.string().describe("mint, or nwc:<id> where the owner's Lightning wallet made it."),
  wallet: z.string().describe('node, customer, or the npub of an agent'),
  state: z
    .enum(['unpaid', 'paid', 'settled', 'expired', 'closed'])
    .describe('paid: the mint was paid and has not issued the ecash yet; closed: its mint is asked no more.'),
  reason: z.string().nullable().describe('Why it is not issued, or was closed.'),
  amount_sats: satsField,
  mint_url: z.string().nullable().describe('null: no mint has to do with it.'),
  payment_hash: z.string(),
  cause: z.strictObject({ type: z.string(), id: z.string() }),
  created_at: timeField,
  expires_at: timeField,
  next_check_at: timeField.nullable(),
  tell_operator: z.string().nullable().describe('Where the sats wait at the mint: what its operator must know.'),
})

const mintView = z.strictObject({
  url: z.string(),
  cap_sats: satsField.describe('The most that it may hold for one wallet.'),
  balance_sats: satsField.describe('What it holds of the wallet node.'),
  room_sats: satsField.describe('How much more it may hold of that.'),
  state: z.enum(['ok', 'down']),
  reason: z.string().optional(),
  added_at: timeField,
})

const historyEntry = z.strictObject({
  id: z.string(),
  at: timeField,
  cause: z.strictObject({ type: z.string(), id: z.string() }),
  words: z.string().describe('The cause in words.'),
  memo: z.string().nullable(),
  amount_msats: msatsField.describe(
    "What the entry changed of what the wallet holds, the owner's Lightning wallet included: above zero came in, below went out.",
  ),
  counter_accounts: z.array(z.string()).describe('Where it came from or what it was for.'),
})

const foundAtMint = z.strictObject({
  mint_url: z.string(),
  listed: z.boolean(),
  coins: z.int(),
  free_sats: satsField.describe('Unspent, and would be taken.'),
  taken_sats: satsField.describe('Of their face.'),
  moving_sats: satsField.describe('The node goes on by itself.'),
  held_sats: satsField.describe('In the books of this home already, or given away by it.'),
  spent_sats: satsField,
  pending_sats: satsField,
  locked_sats: satsField.describe('To keys that are not at hand.'),
  left_sats: satsField.describe('Not taken; the reasons say why.'),
  unknown_sats: satsField.describe('The mint did not say.'),
  received_sats: satsField,
  fee_sats: satsField,
  reasons: z.array(z.string()),
})

export const walletRoutes = defineRoutes({
  getWallet: {
    method: 'GET',
    path: '/v1/wallets/:wallet',
    summary: 'What a wallet holds, by mint.',
    request: z.strictObject({ wallet }),
    response: walletView,
    errors: ['wallet_not_found', 'locked'],
  },
  createInvoice: {
    method: 'POST',
    path: '/v1/wallets/:wallet/invoices',
    summary: 'Makes a Lightning invoice whose payment is credited to the wallet as funding by its owner.',
    request: z.strictObject({
      wallet,
      amount_sats: amountSats,
      description: z.string().max(200).optional(),
      mint_url: mintUrl.optional(),
    }),
    response: invoiceView,
    status: 201,
    errors: ['wallet_not_found', 'no_mint', 'mint_unreachable', 'mint_cap_exceeded'],
  },
  listInvoices: {
    method: 'GET',
    path: '/v1/invoices',
    summary: 'Invoices of all wallets or one, with the quote of the mint behind each or the Lightning wallet that made it, newest first.',
    request: z.strictObject({
      wallet: wallet.optional(),
      state: z.enum(['unpaid', 'paid', 'settled', 'expired', 'closed']).optional(),
      limit: queryInt(1, 1000).optional(),
    }),
    response: z.strictObject({ invoices: z.array(listedInvoice) }),
    offline: true,
    errors: ['wallet_not_found'],
  },
  getInvoice: {
    method: 'GET',
    path: '/v1/wallets/:wallet/invoices/:invoice_id',
    summary: 'The state of an invoice; wait=<seconds> answers as soon as it is settled or expired, at the latest then.',
    request: z.strictObject({ wallet, invoice_id: z.string().min(1).max(200), wait: queryInt(0, 60).optional() }),
    response: invoiceView,
    errors: ['wallet_not_found', 'not_found'],
  },
  fundWallet: {
    method: 'POST',
    path: '/v1/wallets/:wallet/fund',
    summary: 'Sandbox only: makes an invoice and has the faucet pay it; answers when the play money is in the wallet.',
    request: z.strictObject({ wallet, amount_sats: amountSats }),
    response: z.strictObject({ wallet: z.string(), amount_sats: satsField, balance_sats: satsField, mint_url: z.string() }),
    errors: ['faucet_unavailable', 'wallet_not_found', 'no_mint', 'mint_unreachable', 'mint_cap_exceeded', 'timeout'],
  },
  payInvoice: {
    method: 'POST',
    path: '/v1/wallets/:wallet/payments',
    summary:
      'Pays a bolt11 invoice, asks a Lightning address for one and pays that, or brings a token to who made a Cashu payment request. state unknown: nobody can say yet, the sats stay held and the node goes on asking.',
    request: z.strictObject({
      wallet,
      request: z
        .string()
        .min(1)
        .max(8192)
        .describe(
          'A bolt11 invoice, name@host, lnurl1..., lnurlp:..., npub1..., nprofile1..., creqA..., creqB1..., or bitcoin:...?lightning= or ?creq=; one key asks an address once.',
        ),
      amount_sats: amountSats
        .optional()
        .describe('Needed for what names no amount; an invoice or request that does must ask exactly this where it is given.'),
      comment: z.string().max(1000).optional().describe('For the payee, where the address takes comments.'),
      max_fee_sats: z.int().min(0).optional().describe('The most that may leave beside the amount, whatever for.'),
      max_sats: z.int().min(1).optional().describe('The most that may leave in all, amount and fees.'),
      include_owed: includeOwed,
      from: z
        .enum(['mint', 'nwc'])
        .optional()
        .describe(
          "nwc: from the owner's own Lightning wallet, by the wallet node only. What that costs in fees it decides itself: a limit of the fee is refused.",
        ),
    }),
    response: z.strictObject({
      state: z.enum(['paid', 'unknown']),
      amount_sats: satsField.optional().describe('What the invoice asks, up to the whole sat; not in answers that an older version gave.'),
      operation_id: z.string(),
      fee_sats: satsField.nullable().describe('All that left beside the amount: routing, inputs, breaking coins.'),
      preimage: z.string().nullable().describe('The proof of payment.'),
      request_payment: requestPayment.optional().describe('Of what was paid on a Cashu payment request.'),
    }),
    spends: true,
    isOpen: (paid) => paid['state'] === 'unknown',
    errors: [
      'insufficient_funds',
      'funds_owed',
      'destination_invalid',
      'amount_invalid',
      'lnurl_invalid',
      'fetch_failed',
      'address_refused',
      'invoice_invalid',
      'invoice_expired',
      'price_too_high',
      'payment_failed',
      'payment_undelivered',
      'mint_not_allowed',
      'payment_in_progress',
      'invoice_paid',
      'idempotency_conflict',
    ],
  },
  sendToken: {
    method: 'POST',
    path: '/v1/wallets/:wallet/tokens',
    summary: 'Takes sats out as a Cashu token. Whoever holds an unlocked token owns it.',
    request: z.strictObject({
      wallet,
      amount_sats: amountSats,
      mint_url: mintUrl.optional(),
      lock: z.string().max(100).optional().describe('npub, or compressed key (02 or 03 and 64 hex digits), that alone may spend it.'),
      include_owed: includeOwed,
    }),
    response: z.strictObject({
      token: z.string(),
      amount_sats: satsField,
      fee_sats: satsField.describe('What left the wallet beside it.'),
      mint_url: z.string(),
      operation_id: z.string(),
      state: z.enum(['pending', 'claimed', 'reclaimed']),
    }),
    status: 201,
    spends: true,
    errors: ['amount_invalid', 'insufficient_funds', 'funds_owed', 'pubkey_invalid', 'mint_unreachable', 'idempotency_conflict'],
  },
  receiveToken: {
    method: 'POST',
    path: '/v1/wallets/:wallet/received',
    summary: 'Swaps a Cashu token of an allowed mint into the wallet.',
    request: z.strictObject({ wallet, token: z.string().min(1).max(500_000) }),
    response: z.strictObject({
      amount_sats: satsField,
      mint_url: z.string(),
      held_before_sats: satsField.describe(
        'How much of it wallets of this node held already, as after restoring a backup that is older than the token: swapped for new coins, not gained.',
      ),
    }),
    errors: ['token_invalid', 'token_spent', 'token_locked', 'mint_not_allowed', 'payment_unknown'],
  },
  walletHistory: {
    method: 'GET',
    path: '/v1/wallets/:wallet/history',
    summary: 'The newest movements of a wallet, from the ledger.',
    request: z.strictObject({ wallet, limit: queryInt(1, 1000).optional() }),
    response: z.strictObject({ wallet: z.string(), entries: z.array(historyEntry) }),
    errors: ['wallet_not_found'],
  },
  restoreWallet: {
    method: 'POST',
    path: '/v1/wallets/:wallet/restore',
    summary: 'Asks the mints again, from the seed, for ecash of this wallet that its database does not know.',
    request: z.strictObject({ wallet }),
    response: z.strictObject({
      wallet: z.string(),
      restored_sats: satsField,
      balance_sats: satsField,
      problems: z.array(z.string()).describe('What could not be read, each as a sentence; the rest was taken all the same.'),
    }),
    task: true,
    errors: ['wallet_not_found', 'no_mint', 'mint_unreachable'],
  },
  restoreFromRelays: {
    method: 'POST',
    path: '/v1/wallets/:wallet/restore-nip60',
    summary: 'Reads a wallet that relays have (NIP-60), whichever program put it there, and takes what its mints say is unspent.',
    request: z.strictObject({
      wallet: wallet.describe('Who gets the sats; without a secret key also whose wallet is read.'),
      nsec: z.string().min(1).max(200).optional().describe('The key whose wallet it is, where that is none of this home. It is not kept.'),
      relays: z.array(z.string().min(1).max(512)).max(10).optional().describe('To look at too.'),
      move: z.boolean().optional().describe('Bring what is at mints that are not on the list to one that is, for its fee.'),
      max_fee_sats: z.int().min(0).optional().describe('The most that all of it may cost.'),
      dry_run: z.boolean().optional().describe('Only tell what is there and what taking it would cost.'),
    }),
    response: z.strictObject({
      state: z.enum(['quoted', 'taken']),
      wallet: z.string(),
      npub: z.string().describe('Whose wallet was read.'),
      relays: z.array(z.string()),
      complete: z.boolean().describe('Whether every one of them told all that it has.'),
      events: z.int().describe('Of coins, that stand.'),
      deleted_events: z.int(),
      mints: z.array(foundAtMint),
      received_sats: satsField.describe('What came into the wallet; of quoted: what would.'),
      fee_sats: satsField.describe('What it cost; of quoted: the most that it would.'),
      balance_sats: satsField,
      problems: z.array(z.string()).describe('What could not be read, each as a sentence; the rest was taken all the same.'),
    }),
    task: true,
    errors: ['wallet_not_found', 'identity_invalid', 'relay_invalid', 'price_too_high', 'locked'],
  },
  listMints: {
    method: 'GET',
    path: '/v1/mints',
    summary: 'The mints that this node accepts and the most that each may hold.',
    request: z.strictObject({}),
    response: z.strictObject({ mints: z.array(mintView) }),
  },
  addMint: {
    method: 'POST',
    path: '/v1/mints',
    summary: 'Asks a mint for what Pylon needs and puts it on the list.',
    request: z.strictObject({ url: mintUrl, cap_sats: amountSats.optional() }),
    response: mintView,
    status: 201,
    errors: ['mint_incompatible', 'mint_moved', 'mint_unreachable', 'address_refused'],
  },
  moveMint: {
    method: 'POST',
    path: '/v1/mints/move',
    summary: 'Follows a mint of the list to another address, with all that it holds, once that serves the same keysets.',
    request: z.strictObject({ from: mintUrl, to: mintUrl }),
    response: mintView,
    errors: ['mint_not_allowed', 'mint_incompatible', 'mint_unreachable', 'address_refused'],
  },
  removeMint: {
    method: 'DELETE',
    path: '/v1/mints',
    summary: 'Takes a mint off the list; refused while it holds sats of this node.',
    request: z.strictObject({ url: mintUrl }),
    response: z.strictObject({ url: z.string() }),
    errors: ['mint_in_use'],
  },
})
