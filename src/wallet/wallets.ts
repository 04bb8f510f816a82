/** All wallets of a home: opens them, resumes what was under way, and looks after it while the node runs. */
import { accountOwner, type WalletOwner } from '../base/accounts.ts'
import { type Sats, sats } from '../base/amounts.ts'
import type { Clock } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Keyring } from '../nostr/types.ts'
import { walletOwners } from '../store/money/held-value.ts'
import { putWalletOwner } from '../store/money/mints.ts'
import { dueOperations, nextWalletDue, openOperations, sweepMoney } from '../store/money/operations.ts'
import { dueOwed } from '../store/money/owed-signatures.ts'
import { dueQuotes } from '../store/money/quotes.ts'
import type { Store } from '../store/store.ts'
import type { WalletContext } from './context.ts'
import { type Crypto, createCrypto } from './ecash/crypto-pool.ts'
import { MintSockets } from './mint/mint-sockets.ts'
import { Mints } from './mint/mints.ts'
import { type AdoptedQuote, Invoices } from './moves/invoices.ts'
import { SentTokens } from './moves/sent-tokens.ts'
import { Executor } from './operations/executor.ts'
import { collectOwed } from './operations/owed.ts'
import { Restores } from './operations/restores.ts'
import type { Invoice, MintInfo, TransferOptions, Wallet, Wallets } from './types.ts'
import { auditCoins, type CoinAudit } from './upkeep/coin-audit.ts'
import { CoinMoves } from './upkeep/coin-moves.ts'
import { CashuWallet, type WalletParts } from './wallet.ts'
import { WalletEvents } from './wallet-events.ts'

export interface WalletsDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly config: () => Config
  readonly nostr: { readonly keyring: Keyring }
  readonly dialer: Dialer
  /** The prefix that invoices must have: `bc`, in the sandbox `bcrt`. Undefined: any. */
  readonly invoiceNetwork?: string
  /** For tests; a worker thread by default. */
  readonly crypto?: Crypto
}

/** With what only the wallet's own parts (LNURL addresses) need. */
export interface OwnWallets extends Wallets {
  /** Takes over a quote that is locked to the wallet's key. @throws mint_not_allowed, mint_unreachable, mint_rejected, invoice_invalid */
  adoptQuote(owner: WalletOwner, quote: AdoptedQuote): Promise<Invoice>
  /** Follows a mint of the list to another address, with all that it holds. @throws mint_not_allowed, mint_incompatible, mint_unreachable, address_refused */
  moveMint(from: string, to: string): Promise<MintInfo>
  /** As `restore`, and what it could not read, each as a sentence. @throws only where no mint answered */
  restoreAll(owner: WalletOwner, mintUrl?: string): Promise<{ foundSats: Sats; problems: readonly string[] }>
  /** After the database was put back from a backup: every wallet asks every mint for what it made since. False while one did not answer. */
  askAfterRestore(): Promise<boolean>
  /** Which coins of the books their mints have seen spent. */
  auditCoins(): Promise<CoinAudit[]>
}

/** The longest nap between two looks at what is due. */
const MAX_NAP_MS = 60_000
const MIN_NAP_MS = 20
/** How long a call to a mint may still take when the node closes. */
const CLOSE_GRACE_MS = 3000
const DAY_MS = 86_400_000
/** Requests, outputs and spent proofs of ended operations are of no use after this; the ledger keeps what they did. */
const DETAILS_KEPT_MS = 30 * DAY_MS
const SWEEP_ROWS = 500
/** How often mints are asked how they are: status tells of a dead one also while nobody pays with it. */
const PROBE_MS = 30_000
const PROBE_DOWN_MS = 15_000

export function createWallets(deps: WalletsDeps): OwnWallets {
  const context: WalletContext = {
    store: deps.store,
    clock: deps.clock,
    logger: deps.logger,
    config: deps.config,
    keyring: deps.nostr.keyring,
    dialer: deps.dialer,
    crypto: deps.crypto ?? createCrypto(),
    mints: new Mints(deps),
    invoiceNetwork: deps.invoiceNetwork,
  }
  return new HomeWallets(context)
}

class HomeWallets implements OwnWallets {
  readonly #context: WalletContext
  readonly #parts: WalletParts
  readonly #events: WalletEvents
  readonly #sockets: MintSockets
  readonly #restores: Restores
  readonly #moves: CoinMoves
  readonly #open = new Map<string, CashuWallet>()
  readonly #tasks = new Set<Promise<void>>()
  readonly #taskKeys = new Set<string>()
  #cancelNap: (() => void) | undefined
  #cancelSweep: (() => void) | undefined
  #cancelProbe: (() => void) | undefined
  #started = false
  #closed = false

  constructor(context: WalletContext) {
    this.#context = context
    const executor = new Executor(context)
    const invoices = new Invoices(context, executor)
    this.#restores = new Restores(context)
    this.#parts = { context, executor, invoices, sentTokens: new SentTokens(context), restores: this.#restores }
    this.#moves = new CoinMoves(context, (owner) => this.#wallet(owner))
    context.mints.onRetired(() => this.#task('moves', () => this.#moves.move(() => this.#closed)))
    this.#events = new WalletEvents(context)
    this.#sockets = new MintSockets(context, (quoteRow) =>
      this.#task(`quote:${quoteRow}`, async () => void (await invoices.check(quoteRow))),
    )
    executor.onEnd = () => this.#wake()
    invoices.onAdded = () => {
      this.#sockets.refresh()
      this.#wake()
    }
  }

  of(owner: WalletOwner): Wallet {
    return this.#wallet(owner)
  }

  #wallet(owner: WalletOwner): CashuWallet {
    let wallet = this.#open.get(owner.pubkey)
    if (wallet === undefined) {
      wallet = new CashuWallet(owner, this.#parts)
      this.#open.set(owner.pubkey, wallet)
      this.#task(`wallet of ${owner.pubkey}`, () =>
        this.#context.store.write(putWalletOwner({ pubkey: owner.pubkey, kind: owner.kind, accountOwner: accountOwner(owner) })),
      )
    }
    return wallet
  }

  mints() {
    return this.#context.mints.list().map(({ url, capSats, addedAt }) => ({ url, capSats: sats(capSats), addedAt }))
  }

  addMint(url: string, capSats?: Sats) {
    return this.#context.mints.add(url, capSats ?? sats(this.#context.config().wallet.mint_cap_sats))
  }

  removeMint(url: string): Promise<void> {
    return this.#context.mints.remove(url)
  }

  async moveMint(from: string, to: string): Promise<MintInfo> {
    const moved = await this.#context.mints.move(from, to)
    this.#task('renames', async () => {
      await this.#parts.executor.settled()
      await this.#context.mints.renameMoved()
    })
    this.#sockets.refresh()
    return moved
  }

  async transfer(
    from: WalletOwner,
    to: WalletOwner,
    amountSats: Sats,
    idempotencyKey: string,
    options: TransferOptions = {},
  ): Promise<Sats> {
    this.#wallet(to)
    return this.#wallet(from).transferTo(to, amountSats, idempotencyKey, options)
  }

  adoptQuote(owner: WalletOwner, quote: AdoptedQuote): Promise<Invoice> {
    this.#wallet(owner)
    return this.#parts.invoices.adopt(owner, quote)
  }

  async restore(owner: WalletOwner, mintUrl?: string): Promise<Sats> {
    return (await this.restoreAll(owner, mintUrl)).foundSats
  }

  async restoreAll(owner: WalletOwner, mintUrl?: string): Promise<{ foundSats: Sats; problems: readonly string[] }> {
    this.#wallet(owner)
    const urls = mintUrl === undefined ? this.#context.mints.list().map((mint) => mint.url) : [mintUrl]
    const problems: string[] = []
    let total = 0n
    let first: unknown
    let failed = 0
    for (const url of urls) {
      try {
        const found = await this.#restores.restore(owner, url)
        total += found.foundSats
        problems.push(...found.problems)
      } catch (error) {
        first ??= error
        failed++
        problems.push(messageOf(error))
      }
    }
    if (failed > 0 && failed === urls.length) throw first
    for (const problem of problems) this.#context.logger.warn({ owner: owner.kind, problem }, 'a restore left something out')
    return { foundSats: sats(total), problems }
  }

  auditCoins(): Promise<CoinAudit[]> {
    return auditCoins(this.#context)
  }

  async askAfterRestore(): Promise<boolean> {
    const { store, mints, logger } = this.#context
    let isDone = true
    for (const owner of walletOwners(store)) {
      for (const { url } of mints.list().filter((mint) => this.#restores.isDue(owner, mint.url))) {
        try {
          const found = await this.#restores.restore(owner, url)
          logger.info(
            { owner: owner.kind, mint: url, found_sats: Number(found.foundSats), problems: found.problems },
            'asked a mint after the restore',
          )
        } catch (error) {
          isDone = false
          logger.warn({ owner: owner.kind, mint: url, reason: messageOf(error) }, 'a mint could not be asked after the restore yet')
        }
      }
    }
    return isDone
  }

  async start(): Promise<void> {
    this.#started = true
    // What a move of a mint left under its old name, when the process ended too soon.
    await this.#context.mints.renameMoved()
    for (const operation of openOperations(this.#context.store)) this.#resume(operation.id)
    this.#task('sweep', () => this.#sweep())
    this.#task('probe', () => this.#probeMints())
    this.#look()
    this.#sockets.refresh()
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#cancelNap?.()
    this.#cancelSweep?.()
    this.#cancelProbe?.()
    this.#sockets.close()
    const cancelAbort = this.#context.clock.after(CLOSE_GRACE_MS, () => this.#context.mints.abort())
    await this.#parts.executor.close()
    await Promise.allSettled(this.#tasks)
    cancelAbort()
    await this.#context.crypto.close()
  }

  onEvent: Wallets['onEvent'] = (causeType, handler) => this.#events.on(causeType, handler)

  /** Starts what is due, each on its own so that a dead mint holds up nobody, then naps until the next. */
  #look(): void {
    if (this.#closed || !this.#started) return
    const { store, clock } = this.#context
    const now = clock.now()
    for (const operation of dueOperations(store, now)) this.#resume(operation.id)
    for (const quote of dueQuotes(store, now))
      this.#task(`quote:${quote.id}`, async () => void (await this.#parts.invoices.check(quote.id)))
    for (const { operationId } of dueOwed(store, now))
      this.#task(`owed:${operationId}`, async () => void (await collectOwed(this.#context, operationId)))
    this.#task('tokens', () => this.#parts.sentTokens.checkDue())
    for (const cause of this.#events.dueCauses()) this.#task(`events:${cause}`, () => this.#events.deliver(cause))
    const due = nextWalletDue(store) ?? now + MAX_NAP_MS
    const nap = Math.min(MAX_NAP_MS, Math.max(MIN_NAP_MS, due - now))
    this.#cancelNap?.()
    this.#cancelNap = clock.after(this.#tasks.size > 0 ? Math.max(nap, MIN_NAP_MS * 5) : nap, () => this.#look())
  }

  #resume(id: string): void {
    this.#task(`operation:${id}`, async () => void (await this.#parts.executor.run(id)))
  }

  /** Forgets the details of what ended long ago, then again every day. */
  async #sweep(): Promise<void> {
    const { store, clock } = this.#context
    this.#cancelSweep = clock.after(DAY_MS, () => this.#task('sweep', () => this.#sweep()))
    while ((await store.write(sweepMoney({ before: clock.now() - DETAILS_KEPT_MS, limit: SWEEP_ROWS }))) === SWEEP_ROWS && !this.#closed);
  }

  async #probeMints(): Promise<void> {
    const { mints, clock } = this.#context
    await Promise.allSettled(mints.list().map((mint) => mints.probe(mint.url)))
    if (this.#closed) return
    this.#task('moves', () => this.#moves.move(() => this.#closed))
    const delayMs = mints.list().some((mint) => mint.state === 'down') ? PROBE_DOWN_MS : PROBE_MS
    this.#cancelProbe = clock.after(delayMs, () => this.#task('probe', () => this.#probeMints()))
  }

  #wake(): void {
    if (this.#closed || !this.#started) return
    this.#cancelNap?.()
    this.#cancelNap = this.#context.clock.after(0, () => this.#look())
  }

  /** Runs one piece of work of a name at a time; its failure is logged and it is tried again when it is due. */
  #task(key: string, work: () => Promise<void>): void {
    if (this.#taskKeys.has(key) || this.#closed) return
    this.#taskKeys.add(key)
    const task = work()
      .catch((error: unknown) => this.#context.logger.warn({ err: messageOf(error), task: key }, 'wallet task failed, it is tried again'))
      .finally(() => {
        this.#tasks.delete(task)
        this.#taskKeys.delete(key)
      })
    this.#tasks.add(task)
  }
}
