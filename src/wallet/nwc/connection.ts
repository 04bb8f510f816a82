/** The owner's Lightning wallet that is connected: its string, its wire, how it is and what it says it holds. */
import { hash } from 'node:crypto'
import { msats } from '../../base/amounts.ts'
import type { Clock } from '../../base/clock.ts'
import type { Dialer } from '../../base/dialer.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { createSigner } from '../../nostr/keys/signer.ts'
import { type NwcResponse, parseNwcUri } from '../../nostr/nips/nip47.ts'
import type { LocalSigner, Nostr, Signer } from '../../nostr/types.ts'
import { findAgent } from '../../store/agents/agents.ts'
import {
  connectedNwcWallet,
  connectNwcWallet,
  countNwcInvoices,
  disconnectNwcWallet,
  type NwcWalletRow,
  noteNwcWallet,
  openNwcPayments,
} from '../../store/money/nwc-wallets.ts'
import type { Store } from '../../store/store.ts'
import { NwcClient } from './client.ts'

export interface ConnectionDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly dialer: Pick<Dialer, 'allow'>
  readonly nostr: Pick<Nostr, 'subscribe' | 'query' | 'nudgeOutbox'>
  readonly keyring: {
    owns(pubkey: string): boolean
    node(): Signer
    customer(): Signer
    localSigner(pubkey: string): LocalSigner
    importKey(text: string): Promise<Signer>
    forgetKey(pubkey: string): Promise<void>
  }
}

/** How often it is asked what it holds, which also says whether it is there. */
const PROBE_MS = 300_000

export class WalletConnection {
  readonly #deps: ConnectionDeps
  /** Hears what comes unasked, or late. */
  onResponse: (requestId: string, response: NwcResponse) => void = () => {}
  onNotification: (notification: Readonly<Record<string, unknown>>) => void = () => {}
  #client: { readonly id: string; readonly wire: NwcClient } | undefined

  constructor(deps: ConnectionDeps) {
    this.#deps = deps
  }

  start(): void {
    const { scope } = this.#deps
    const row = this.get()
    if (row !== undefined) {
      this.#open(row)
      scope.spawn('probe', () => this.refresh())
    }
    scope.every('probe', PROBE_MS, () => this.refresh())
  }

  /** The wallet that is connected, as it was last seen. */
  get(): NwcWalletRow | undefined {
    return connectedNwcWallet(this.#deps.store)
  }

  /** @throws nwc_invalid, nwc_unreachable, nwc_refused, conflict while another is connected, locked */
  async connect(uri: string): Promise<NwcWalletRow> {
    const { store, clock, nostr, dialer } = this.#deps
    const { walletPubkey, relays, secret, lud16 } = parseNwcUri(uri)
    // The owner chose them.
    for (const relay of relays) dialer.allow(relay, true)
    const info = await NwcClient.infoOf(nostr, { walletPubkey, relays })
    if (info.encryptions.length === 0)
      throw new PylonError('nwc_refused', 'The wallet knows neither NIP-44 nor NIP-04: it cannot be spoken to.')
    const isNew = this.get() === undefined
    const clientPubkey = await this.#keepKey(secret)
    const id = hash('sha256', `${walletPubkey} ${clientPubkey}`).slice(0, 12)
    const row = { id, walletPubkey, clientPubkey, relays, lud16: lud16 ?? null, info, createdAt: clock.now() }
    await store.write(connectNwcWallet(row))
    this.#open(this.connected())
    try {
      await this.#askBalance()
    } catch (error) {
      // A string that does not work is no connection.
      if (isNew) await this.disconnect({ force: true })
      throw error
    }
    return this.connected()
  }

  /** @throws nwc_missing; conflict while payments are open, or, without force, while invoices may still be paid */
  async disconnect({ force }: { force: boolean }): Promise<NwcWalletRow> {
    const { store, clock, keyring } = this.#deps
    const row = this.connected()
    const payments = openNwcPayments(store).length
    if (payments > 0)
      throw new PylonError(
        'conflict',
        `Nobody knows yet what became of ${payments} payments from this wallet: disconnect it when that is known.`,
      )
    const unpaid = countNwcInvoices(store, 'unpaid', false)
    if (unpaid > 0 && !force)
      throw new PylonError('conflict', `${unpaid} invoices made there may still be paid, and nobody would see it: wait, or add --force.`)
    await store.write(disconnectNwcWallet({ id: row.id, at: clock.now() }))
    this.#client?.wire.close()
    this.#client = undefined
    await keyring.forgetKey(row.clientPubkey)
    return row
  }

  /** Asks what it holds; how it is is noted either way. */
  async refresh(): Promise<NwcWalletRow | undefined> {
    if (this.#client === undefined) return undefined
    try {
      await this.#askBalance()
    } catch (error) {
      if (isPylonError(error, 'shutting_down')) throw error
      this.#deps.logger.debug({ err: messageOf(error) }, 'the Lightning wallet could not be asked what it holds')
    }
    return this.get()
  }

  async #askBalance(): Promise<void> {
    if (!this.connected().info.methods.includes('get_balance')) return
    const { balance } = await this.ask('get_balance', {})
    if (typeof balance !== 'number' || !Number.isSafeInteger(balance)) return
    const { store, clock } = this.#deps
    await store.write(noteNwcWallet({ id: this.connected().id, balance: { msats: msats(balance), at: clock.now() } }))
  }

  /** The secret goes among the wrapped keys. @throws locked, nwc_invalid */
  async #keepKey(secret: string): Promise<string> {
    const { keyring, store } = this.#deps
    const { pubkey } = createSigner(new Uint8Array(Buffer.from(secret, 'hex')))
    const row = this.get()
    if (row !== undefined && row.clientPubkey !== pubkey)
      throw new PylonError('conflict', `The Lightning wallet ${row.id} is connected: pylon wallet disconnect comes first.`)
    const isAnothers = keyring.node().pubkey === pubkey || keyring.customer().pubkey === pubkey || findAgent(store, pubkey) !== undefined
    if (isAnothers) throw new PylonError('nwc_invalid', 'Its secret is a key of this home: make a new connection in your wallet.')
    // Known from a connection that was not finished.
    if (!keyring.owns(pubkey)) await keyring.importKey(secret)
    return pubkey
  }

  #open(row: NwcWalletRow): void {
    if (this.#client?.id === row.id) return
    const { scope, store, logger, nostr, keyring, dialer } = this.#deps
    for (const relay of row.relays) dialer.allow(relay, true)
    const wire = new NwcClient({
      ...{ scope, store, logger, nostr, id: row.id, walletPubkey: row.walletPubkey, relays: row.relays, info: row.info },
      signer: keyring.localSigner(row.clientPubkey),
      onResponse: (requestId, response) => this.onResponse(requestId, response),
      onNotification: (_type, notification) => this.onNotification(notification),
    })
    this.#client = { id: row.id, wire }
  }

  /** @throws nwc_missing */
  connected(): NwcWalletRow {
    const row = connectedNwcWallet(this.#deps.store)
    if (row === undefined)
      throw new PylonError('nwc_missing', 'No Lightning wallet is connected: pylon wallet connect - reads its string from standard input.')
    return row
  }

  /** The wire of the wallet that an invoice or payment is of. @throws nwc_missing */
  wire(walletId = this.connected().id): NwcClient {
    if (this.#client?.id !== walletId) throw new PylonError('nwc_missing', `The Lightning wallet ${walletId} is not connected any more.`)
    return this.#client.wire
  }

  /** Asks, and notes how the wallet is. @throws nwc_missing, nwc_unreachable, nwc_refused */
  async ask(method: string, params: Readonly<Record<string, unknown>>, walletId?: string): Promise<Readonly<Record<string, unknown>>> {
    const wire = this.wire(walletId)
    try {
      const result = await wire.ask(method, params)
      await this.#note('ok', null)
      return result
    } catch (error) {
      if (isPylonError(error, 'nwc_unreachable')) await this.#note('down', messageOf(error))
      if (isPylonError(error, 'nwc_refused')) await this.#note('ok', null)
      throw error
    }
  }

  async #note(state: 'ok' | 'down', reason: string | null): Promise<void> {
    const row = this.get()
    if (row === undefined || (row.state === state && row.reason === reason)) return
    await this.#deps.store.write(noteNwcWallet({ id: row.id, state, reason }))
  }
}
