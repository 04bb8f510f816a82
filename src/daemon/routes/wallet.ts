/** Handlers of the routes about money: the owner's own moves, each under a key of its own, and the mints. */

import { accountOf, accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { msats, msatsToSatsUp, type Sats, sats } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { parseJson } from '../../base/json.ts'
import type { walletRoutes } from '../../control/contract/wallet.ts'
import type { Handlers } from '../../control/route.ts'
import { npubOf, parsePubkey } from '../../nostr/nips/nip19.ts'
import type { Keyring, Nostr } from '../../nostr/types.ts'
import { findAgent } from '../../store/agents/agents.ts'
import { ownerKey } from '../../store/keys.ts'
import type { Store } from '../../store/store.ts'
import { readTokenHead } from '../../wallet/ecash/token.ts'
import { askAddress } from '../../wallet/lightning/addresses.ts'
import { decodeInvoice } from '../../wallet/lightning/bolt11.ts'
import { type Destination, parseDestination } from '../../wallet/lightning/destination.ts'
import { lnurlOfProfile } from '../../wallet/lightning/lnurl.ts'
import type { Invoice, MintInfo, ReceiveRequest, Spend, Wallet } from '../../wallet/types.ts'
import { mintsToRestore, restorePurse } from '../home/purse-restore.ts'
import type { Services } from '../services.ts'
import { lightningView } from './lightning-view.ts'
import { restoreFromRelays } from './relay-wallet.ts'
import { payRequest } from './request-payments.ts'
import { historyView } from './wallet-history.ts'
import { walletReadHandlers } from './wallet-invoices.ts'

/** What these handlers need of the running node. */
export type WalletServices = Pick<Services, 'store' | 'clock' | 'config' | 'network' | 'keyring' | 'parts' | 'dialer' | 'scope'>

const DEFAULT_HISTORY = 20
const FAUCET_WAIT_MS = 30_000
const POLL_MS = 250

/** Each throws why there is no wallet, but for what is stored. */
export function walletHandlers(services: WalletServices): Handlers<typeof walletRoutes> {
  const { wallets } = services.parts
  const open = (name: string) => openWallet(services, name)
  return {
    ...walletReadHandlers(services),
    getWallet: ({ wallet }) => ({
      ...walletView(wallet, open(wallet)),
      ...given({ lightning: wallet === 'node' ? (lightningView(services) ?? undefined) : undefined }),
    }),
    createInvoice: async (request, call) => {
      const wallet = open(request.wallet)
      return invoiceView(request.wallet, call.idempotencyKey, await createInvoice(wallet, call.idempotencyKey, request))
    },
    getInvoice: async ({ wallet, invoice_id, wait }, call) =>
      invoiceView(wallet, invoice_id, await awaitInvoice(services, open(wallet), invoice_id, (wait ?? 0) * 1000, call.signal)),
    fundWallet: async ({ wallet, amount_sats }, call) => fundFromFaucet(services, wallet, sats(amount_sats), call),
    payInvoice: async (request, call) => {
      const wallet = open(request.wallet)
      const move = ownersMove(wallet, call.idempotencyKey)
      const destination = parseDestination(request.request)
      if (destination.type === 'request') {
        const amount = destination.request.amountSats ?? request.amount_sats
        const limit = amount === undefined ? undefined : feeLimit(sats(amount), request)
        return await payRequest(services, destination.request, move, wallet, request, limit)
      }
      const { invoice, payee } = await payable(services, destination, move.idempotencyKey, request)
      const asked =
        decodeInvoice(invoice).amountMsats ?? (request.amount_sats === undefined ? undefined : BigInt(request.amount_sats) * 1000n)
      if (asked === undefined) throw new PylonError('amount_invalid', 'The invoice does not say how much: give the amount in sats.')
      const amountSats = msatsToSatsUp(msats(asked))
      const order = {
        ...move,
        request: invoice,
        debitAccount: accountOf(accountOwner(wallet.owner), 'equity', 'withdrawal'),
        includeOwed: request.include_owed === true,
        ...given({
          amountMsats: request.amount_sats === undefined ? undefined : BigInt(request.amount_sats) * 1000n,
          maxFeeSats: feeLimit(amountSats, request),
          from: request.from,
        }),
      }
      // Lists of the home's policy may mean the server that gave the invoice.
      const paid = await wallet.pay(order, payee === undefined ? undefined : { subject: 'owner', ...payee })
      const answer = { state: paid.state, amount_sats: amountSats, operation_id: paid.operationId }
      if (paid.state === 'unknown') return { ...answer, fee_sats: null, preimage: null }
      return { ...answer, fee_sats: paid.feeSats, preimage: paid.preimage }
    },
    sendToken: async (request, call) => {
      const wallet = open(request.wallet)
      const sent = await wallet.sendToken({
        ...ownersMove(wallet, call.idempotencyKey),
        amountSats: sats(request.amount_sats),
        debitAccount: accountOf(accountOwner(wallet.owner), 'equity', 'withdrawal'),
        includeOwed: request.include_owed === true,
        ...given({ mintUrl: request.mint_url }),
        ...(request.lock === undefined ? {} : { lockTo: lockKey(request.lock) }),
      })
      return {
        token: sent.token,
        amount_sats: sent.amountSats,
        fee_sats: sent.feeSats,
        mint_url: sent.mintUrl,
        operation_id: sent.operationId,
        state: sent.state,
      }
    },
    receiveToken: async (request, call) => {
      const wallet = open(request.wallet)
      if (services.config().wallet.foreign_mints === 'move' && !isListed(services, request.token)) {
        const { last } = await wallets
          .get()
          .pursesOf(wallet.owner)
          .foreign.receive(receiptOf(wallet, call.idempotencyKey, request.token))
        if (last.state === 'arrived') return { amount_sats: sats(last.amountSats), mint_url: last.toUrl, held_before_sats: sats(0) }
        throw new PylonError(
          'payment_unknown',
          `The token is ours at ${last.fromUrl} and on its way to ${last.toUrl}: ${last.reason ?? 'the node goes on'}.`,
        )
      }
      const received = await wallet.receiveToken(receiptOf(wallet, call.idempotencyKey, request.token))
      return { amount_sats: received.amountSats, mint_url: received.mintUrl, held_before_sats: received.heldBeforeSats ?? sats(0) }
    },
    walletHistory: ({ wallet, limit }) => ({
      wallet,
      entries: historyView(services.store, accountOwner(open(wallet).owner), limit ?? DEFAULT_HISTORY),
    }),
    restoreWallet: async ({ wallet }) => {
      const opened = open(wallet)
      const waiting = await restoreWaiting(services)
      const { foundSats, problems } = await wallets.get().restoreAll(opened.owner)
      return { wallet, restored_sats: foundSats, balance_sats: opened.balance().balanceSats, problems: [...waiting, ...problems] }
    },
    restoreFromRelays: (request) => restoreFromRelays(services, ownerNamed(services.keyring, services.store, request.wallet), request),
    listMints: () => ({
      mints: wallets
        .get()
        .mints()
        .map((mint) => mintView(mint, open('node'))),
    }),
    addMint: async ({ url, cap_sats }) =>
      mintView(await wallets.get().addMint(url, cap_sats === undefined ? undefined : sats(cap_sats)), open('node')),
    moveMint: async ({ from, to }) => mintView(await wallets.get().moveMint(from, to), open('node')),
    removeMint: async ({ url }) => {
      await wallets.get().removeMint(url)
      return { url }
    },
  }
}

/** Mints that could not be read when the home was restored from its words: for all of its wallets. @returns what could not be read, each as a sentence */
async function restoreWaiting(services: WalletServices): Promise<readonly string[]> {
  const wanted = mintsToRestore(services.store)
  if (wanted.length === 0) return []
  const [wallets, nostr] = [services.parts.wallets.get(), services.parts.nostr.get()]
  const { scope, store, clock, keyring } = services
  const deps = { scope, store, clock, keyring, wallets, nostr, config: () => services.config() }
  const { unread, problems } = await restorePurse(deps, wanted)
  return [...unread.map(({ url, reason }) => `${url} could not be read: ${reason}`), ...problems]
}

/** The invoice to pay; an address is asked for one, once for each key, and `host` is who gave it. */
async function payable(
  { store, clock, dialer, parts }: WalletServices,
  destination: Exclude<Destination, { readonly type: 'request' }>,
  idempotencyKey: string,
  request: { amount_sats?: number | undefined; comment?: string | undefined; max_sats?: number | undefined },
): Promise<{ invoice: string; payee?: Pick<Spend, 'counterparty' | 'names'> }> {
  const { amount_sats, comment = '' } = request
  if (destination.type === 'invoice') {
    if (comment !== '') throw new PylonError('destination_invalid', 'An invoice takes no comment: pay it without, or pay an address.')
    return { invoice: destination.request }
  }
  if (amount_sats === undefined) throw new PylonError('amount_invalid', 'An address does not say how much: give the amount in sats.')
  feeLimit(sats(amount_sats), request)
  const order = { idempotencyKey, amountSats: sats(amount_sats), comment }
  if (destination.type === 'lnurl') {
    const { invoice, host } = await askAddress({ store, clock, dialer }, { ...order, url: destination.url })
    return { invoice, payee: { names: [host] } }
  }
  const { pubkey } = destination
  const resolve = () => addressOf(parts.nostr.get(), pubkey)
  const { invoice, host } = await askAddress({ store, clock, dialer }, { ...order, url: `nostr:${pubkey}`, resolve })
  return { invoice, payee: { counterparty: pubkey, names: [host] } }
}

/** Where the newest profile of a key says that it is paid. @throws fetch_failed, lnurl_invalid */
async function addressOf(nostr: Pick<Nostr, 'profileOf'>, pubkey: string): Promise<string> {
  const profile = await nostr.profileOf(pubkey)
  if (profile === undefined)
    throw new PylonError(
      'fetch_failed',
      'No relay that answers has a profile of this key, so nobody can say where to pay. Try again later.',
    )
  const url = lnurlOfProfile(profile)
  if (url === undefined)
    throw new PylonError('destination_invalid', 'The profile of this key names no Lightning address: ask for an invoice.')
  return url
}

/** The most that may leave beside the amount, by the limit for that and the limit for all. @throws price_too_high */
function feeLimit(amountSats: Sats, request: { max_fee_sats?: number | undefined; max_sats?: number | undefined }): Sats | undefined {
  if (request.max_sats === undefined) return request.max_fee_sats === undefined ? undefined : sats(request.max_fee_sats)
  if (amountSats > BigInt(request.max_sats))
    throw new PylonError('price_too_high', `The invoice asks ${amountSats} sats and the limit is ${request.max_sats}: nothing was paid.`)
  const left = request.max_sats - Number(amountSats)
  return sats(Math.min(left, request.max_fee_sats ?? left))
}

/** Whether a token is of a mint of the list. @throws token_invalid */
function isListed({ parts }: WalletServices, token: string): boolean {
  const { mintUrl } = readTokenHead(token)
  return parts.wallets
    .get()
    .mints()
    .some(({ url }) => url === mintUrl)
}

/** `node`, `customer`, or an agent by name, npub or key. @throws wallet_not_found, locked */
function openWallet({ keyring, store, parts }: WalletServices, name: string): Wallet {
  return parts.wallets.get().of(ownerNamed(keyring, store, name))
}

/** `node`, `customer`, or an agent by name, npub or key. @throws wallet_not_found, locked */
export function ownerNamed(keyring: Keyring, store: Store, name: string): WalletOwner {
  if (name === 'node') return { kind: 'node', pubkey: keyring.node().pubkey }
  if (name === 'customer') return { kind: 'customer', pubkey: keyring.customer().pubkey }
  const agent = findAgent(store, name)
  if (agent === undefined)
    throw new PylonError('wallet_not_found', `There is no wallet ${name}: use node, customer or the name of an agent.`)
  return { kind: 'agent', pubkey: agent.pubkey }
}

export function ownersMove({ owner }: Pick<Wallet, 'owner'>, key: string) {
  return { idempotencyKey: ownerKey(owner.pubkey, key), cause: { type: 'owner', id: key } } as const
}

/** A token that the owner puts in. */
export function receiptOf(wallet: Pick<Wallet, 'owner'>, key: string, token: string): ReceiveRequest {
  return { ...ownersMove(wallet, key), token: token.trim(), creditAccount: accountOf(accountOwner(wallet.owner), 'equity', 'funding') }
}

async function createInvoice(
  wallet: Wallet,
  key: string,
  request: { amount_sats: number; description?: string | undefined; mint_url?: string | undefined },
): Promise<Invoice> {
  return await wallet.createInvoice({
    ...ownersMove(wallet, key),
    amountSats: sats(request.amount_sats),
    creditAccount: accountOf(accountOwner(wallet.owner), 'equity', 'funding'),
    ...given({ description: request.description, mintUrl: request.mint_url }),
  })
}

/** The invoice, as soon as it is settled or expired, or as it is after the wait. @throws not_found */
async function awaitInvoice(services: WalletServices, wallet: Wallet, key: string, waitMs: number, signal: AbortSignal): Promise<Invoice> {
  const { clock } = services
  const until = clock.now() + waitMs
  for (;;) {
    const invoice = wallet.invoice(ownersMove(wallet, key).idempotencyKey)
    if (invoice === undefined) throw new PylonError('not_found', `This wallet has no invoice ${key}.`)
    if (invoice.state === 'settled' || invoice.state === 'expired' || clock.now() >= until) return invoice
    await clock.sleep(Math.min(POLL_MS, until - clock.now()), signal)
  }
}

/** What a mint calls an invoice that is paid (NUT error codes). */
const INVOICE_PAID = 20_006

/** @throws faucet_unavailable, timeout */
async function fundFromFaucet(
  services: WalletServices,
  name: string,
  amountSats: Sats,
  call: { idempotencyKey: string; signal: AbortSignal },
) {
  if (services.network !== 'sandbox') {
    throw new PylonError(
      'faucet_unavailable',
      `Only the sandbox has a faucet. Fund this wallet over Lightning: pylon wallet invoice ${amountSats}, or with ecash: pylon wallet receive -`,
    )
  }
  const wallet = openWallet(services, name)
  const invoice = await createInvoice(wallet, call.idempotencyKey, { amount_sats: Number(amountSats), description: 'Faucet' })
  if (invoice.state === 'unpaid') {
    const answer = await services.dialer.fetch(`${invoice.mintUrl.replace(/\/$/, '')}/sandbox/pay`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ request: invoice.request }),
    })
    // Paid already: by the same call, made twice at once.
    if (answer.status >= 400 && (parseJson(answer.text) as { code?: unknown } | null | undefined)?.code !== INVOICE_PAID) {
      throw new PylonError(
        'faucet_unavailable',
        `The faucet of ${invoice.mintUrl} refused (status ${answer.status}): ${answer.text.slice(0, 200)}`,
      )
    }
  }
  const settled = await awaitInvoice(services, wallet, call.idempotencyKey, FAUCET_WAIT_MS, call.signal)
  if (settled.state !== 'settled') {
    throw new PylonError(
      'timeout',
      'The faucet paid, but the mint has not issued the ecash yet; it comes by itself: pylon wallet balance shows it.',
    )
  }
  return { wallet: name, amount_sats: amountSats, balance_sats: wallet.balance().balanceSats, mint_url: invoice.mintUrl }
}

/** A compressed key as it is; an npub or plain key as Cashu writes Nostr keys: 02 in front. @throws pubkey_invalid */
export function lockKey(text: string): string {
  const key = text.trim().toLowerCase()
  return /^0[23][0-9a-f]{64}$/.test(key) ? key : `02${parsePubkey(text)}`
}

function walletView(name: string, wallet: Wallet) {
  const balance = wallet.balance()
  return {
    wallet: name,
    npub: npubOf(wallet.owner.pubkey),
    pubkey: wallet.owner.pubkey,
    lock_pubkey: wallet.lockPubkey,
    balance_sats: balance.balanceSats,
    owed_sats: balance.owedSats,
    at_risk_sats: balance.atRiskSats,
    mints: balance.mints.map((mint) => ({
      url: mint.url,
      balance_sats: mint.balanceSats,
      state: mint.state,
      ...given({ reason: mint.reason }),
    })),
  }
}

function invoiceView(wallet: string, key: string, invoice: Invoice) {
  return {
    invoice_id: key,
    wallet,
    request: invoice.request,
    quote_id: invoice.quoteId,
    amount_sats: invoice.amountSats,
    mint_url: invoice.mintUrl,
    state: invoice.state,
    expires_at: rfc3339(invoice.expiresAt),
  }
}

/** @param wallet whose balance and room it is */
function mintView({ url, capSats, addedAt }: MintInfo, wallet: Wallet) {
  const { balanceSats = sats(0), state = 'ok', reason } = wallet.balance().mints.find((mint) => mint.url === url) ?? {}
  const room = { balance_sats: balanceSats, room_sats: sats(capSats > balanceSats ? capSats - balanceSats : 0n) }
  return { url, cap_sats: sats(capSats), ...room, state, ...given({ reason }), added_at: rfc3339(addedAt) }
}
