/** All wallets of a home: opens them, resumes what was under way, and looks after it while the node runs. */
import { accountOwner, type WalletOwner } from '../base/accounts.ts'
import { type Sats, sats } from '../base/amounts.ts'
import type { Config } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Scope } from '../base/scope.ts'
import type { Keyring } from '../nostr/types.ts'
import { walletOwners } from '../store/money/held-value.ts'
import { listedMints, putWalletOwner } from '../store/money/mints.ts'
import { dueOperations, nextWalletDue, openOperations, sweepMoney } from '../store/money/operations.ts'
import { dueOwed } from '../store/money/owed-signatures.ts'
import { openPurseMoves } from '../store/money/purse-moves.ts'
import { dueQuotes } from '../store/money/quotes.ts'
import type { Store } from '../store/store.ts'
import type { WalletContext } from './context.ts'
import { type Crypto, createCrypto } from './ecash/crypto-pool.ts'
import { FirstLook } from './mint/first-look.ts'
import { Mints } from './mint/mints.ts'
import { MintSockets } from './mint/sockets.ts'
import { type AdoptedQuote, Invoices } from './moves/invoices.ts'
import { SentTokens } from './moves/sent-tokens.ts'
import { Executor } from './operations/executor.ts'
import { collectOwed } from './operations/owed.ts'
import { hasTraces } from './operations/restore.ts'
import { Restores } from './operations/restores.ts'
import type { Invoice, LightningRail, MintInfo, TransferOptions, Wallet, Wallets } from './types.ts'
import { auditCoins, type CoinAudit } from './upkeep/coin-audit.ts'
import { CoinMoves } from './upkeep/coin-moves.ts'
import { CashuWallet, type WalletParts } from './wallet.ts'
import { WalletEvents } from './wallet-events.ts'

export interface WalletsDeps {
  readonly scope: Scope
  readonly store: Store
  readonly logger: Logger
  readonly config: () => Config
  readonly nostr: { readonly keyring: Keyring }
  readonly dialer: Dialer
  /** The prefix that invoices must have: `bc`, in the sandbox `bcrt`. Undefined: any. */
  readonly invoiceNetwork?: string
  /** Mints named at the start, which come on the list when they answer. */
  readonly expectedMints?: readonly string[]
  /** For tests; a worker thread by default. */
  readonly crypto?: Crypto
}

/** With what only the wallet's own parts (LNURL addresses) need. */
export interface OwnWallets extends Wallets {
  /** Takes over a quote that is locked to the wallet's key. @throws mint_not_allowed, mint_unreachable, mint_rejected, invoice_invalid */
  adoptQuote(owner: WalletOwner, quote: AdoptedQuote): Promise<Invoice>
  /** Follows a mint of the list to another address, with all that it holds. @throws mint_not_allowed, mint_incompatible, mint_unreachable, address_refused */
  moveMint(from: string, to: string): Promise<MintInfo>
  /** Moves between mints of one wallet, tokens of foreign mints, and coins that were found elsewhere. */
  pursesOf(owner: WalletOwner): Pick<CashuWallet, 'purse' | 'foreign' | 'found'>
  /** @throws mint_not_allowed */
  setMintCap(url: string, capSats: Sats): Promise<void>
  /** As `restore`, and what it could not read, each as a sentence. @throws only where no mint answered */
  restoreAll(owner: WalletOwner, mintUrl?: string): Promise<{ foundSats: Sats; problems: readonly string[] }>
  /** Whether this mint has signed anything for the wallet of this key, which need not have been used here. @throws mint_not_allowed, mint_unreachable, mint_rejected */
  hasTraces(owner: WalletOwner, mintUrl: string): Promise<boolean>
  /** After the database was put back from a backup: every wallet asks every mint for what it made since. False while one did not answer. */
  askAfterRestore(): Promise<boolean>
  /** Asks the mint whether a token that was sent has been spent; where it does not answer the token stays as it was known. */
  checkSent(operationId: string): Promise<void>
  /** Which coins of the books their mints have seen spent. */
  auditCoins(): Promise<CoinAudit[]>
  /** From now on there is this way beside the mints. @returns what tells the others of the events that it has committed */
  useRail(rail: LightningRail): () => void
}

/** The longest nap between two looks at what is due. */
const MAX_NAP_MS = 60_000
const MIN_NAP_MS = 20
const DAY_MS = 86_400_000
/** Requests, outputs and spent proofs of ended operations are of no use after this; the ledger keeps what they did. */
const DETAILS_KEPT_MS = 30 * DAY_MS
const SWEEP_ROWS = 500
/** How often mints are asked how they are: status tells of a dead one also while nobody pays with it. */
const PROBE_MS = 30_000
const PROBE_DOWN_MS = 15_000

/** How long calls to mints may still take when the node closes. */
export const WALLET_DRAIN_MS = 3000

export function createWallets(deps: WalletsDeps): OwnWallets {
  const { scope, store, logger, config, nostr, dialer, crypto = createCrypto(), invoiceNetwork, expectedMints = [] } = deps
  const { clock, random } = scope
  scope.atEnd('crypto', () => crypto.close())
  // Made first, so that it ends last: what runs needs keysets until then.
  const mintsScope = scope.child('mints')
  const work = scope.child('work', {
    onFailure: ({ path, error }) => logger.warn({ err: messageOf(error), task: path }, 'wallet task failed, it is tried again'),
  })
  const mints = new Mints({ scope: mintsScope, signal: work.signal, store, logger, dialer })
  const { keyring } = nostr
  return new HomeWallets({
    scope: work,
    store,
    clock,
    random,
    logger,
    config,
    keyring,
    dialer,
    crypto,
    mints,
    invoiceNetwork,
    expectedMints,
    firstLook: new FirstLook(work, expectedMints, (url) => mints.has(url)),
  })
}

class HomeWallets implements OwnWallets {
  readonly #context: WalletContext
  readonly #parts: WalletParts
  readonly #events: WalletEvents
  readonly #sockets: MintSockets
  readonly #restores: Restores
  readonly #moves: CoinMoves
  readonly #open = new Map<string, CashuWallet>()
  #rail: LightningRail | undefined
  #cancelNap: (() => void) | undefined
  #isStarted = false

  constructor(context: WalletContext) {
    const { scope, mints } = context
    this.#context = context
    const executor = new Executor(context)
    const invoices = new Invoices(context, executor)
    this.#restores = new Restores(context)
    this.#parts = { context, executor, invoices, sentTokens: new SentTokens(context), restores: this.#restores, rail: () => this.#rail }
    this.#moves = new CoinMoves(context, (owner) => this.#wallet(owner))
    mints.onRetired(() => scope.spawnOnce('moves', () => this.#moves.move()))
    this.#events = new WalletEvents(context)
    this.#sockets = new MintSockets(context, (quoteRow) => this.#check(quoteRow))
    executor.onEnd = () => this.#wake()
    executor.onSpentElsewhere = () => this.#searchSpent()
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
      const known = putWalletOwner({ pubkey: owner.pubkey, kind: owner.kind, accountOwner: accountOwner(owner) })
      this.#context.scope.spawn(`wallet of ${owner.pubkey}`, () => this.#context.store.write(known))
    }
    return wallet
  }

  mints() {
    return listedMints(this.#context.store).map(({ url, capSats, addedAt }) => ({ url, capSats: sats(capSats), addedAt }))
  }

  async addMint(url: string, capSats?: Sats): Promise<MintInfo> {
    const { mints, config, firstLook } = this.#context
    try {
      return await mints.add(url, capSats ?? sats(config().wallet.mint_cap_sats))
    } finally {
      firstLook.ended(url)
    }
  }

  pursesOf(owner: WalletOwner): Pick<CashuWallet, 'purse' | 'foreign' | 'found'> {
    return this.#wallet(owner)
  }

  setMintCap(url: string, capSats: Sats): Promise<void> {
    return this.#context.mints.setCap(url, capSats)
  }

  removeMint(url: string): Promise<void> {
    return this.#context.mints.remove(url)
  }

  async moveMint(from: string, to: string): Promise<MintInfo> {
    const moved = await this.#context.mints.move(from, to)
    this.#context.scope.spawnOnce('renames', async () => {
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

  hasTraces(owner: WalletOwner, mintUrl: string): Promise<boolean> {
    return hasTraces(this.#context, owner, mintUrl)
  }

  useRail(rail: LightningRail): () => void {
    this.#rail = rail
    return () => this.#wake()
  }

  checkSent(operationId: string): Promise<void> {
    return this.#parts.sentTokens.check([operationId])
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
    const { scope, store, mints } = this.#context
    this.#isStarted = true
    // What a move of a mint left under its old name, when the process ended too soon.
    await mints.renameMoved()
    for (const operation of openOperations(store)) this.#resume(operation.id)
    const sweep = () => this.#sweep()
    scope.spawn('sweep', sweep)
    scope.every('sweep', DAY_MS, sweep)
    scope.spawn('probe', async () => {
      await this.#probeMints()
      scope.every(
        'probe',
        () => (mints.list().some((mint) => mint.state === 'down') ? PROBE_DOWN_MS : PROBE_MS),
        () => this.#probeMints(),
      )
    })
    this.#look()
    this.#sockets.refresh()
  }

  onEvent: Wallets['onEvent'] = (causeType, handler) => this.#events.on(causeType, handler)

  /** Starts what is due, each on its own so that a dead mint holds up nobody, then naps until the next. */
  #look(): void {
    const { scope, store, clock } = this.#context
    if (!this.#isStarted) return
    const now = clock.now()
    for (const operation of dueOperations(store, now)) this.#resume(operation.id)
    for (const quote of dueQuotes(store, now)) this.#check(quote.id)
    for (const { id, owner } of openPurseMoves(store)) scope.spawnOnce(`purse ${id}`, () => this.#wallet(owner).purse.moves.run(id))
    for (const { operationId } of dueOwed(store, now)) scope.spawnOnce(`owed ${operationId}`, () => collectOwed(this.#context, operationId))
    scope.spawnOnce('tokens', () => this.#parts.sentTokens.checkDue())
    for (const cause of this.#events.dueCauses()) scope.spawnOnce(`events ${cause}`, () => this.#events.deliver(cause))
    const due = nextWalletDue(store) ?? now + MAX_NAP_MS
    // What is under way now is due until it has ended.
    const isBusy = scope.running().some(({ path }) => !path.endsWith('/look'))
    const shortest = isBusy ? MIN_NAP_MS * 5 : MIN_NAP_MS
    this.#nap(Math.min(MAX_NAP_MS, Math.max(shortest, due - now)))
  }

  /** Where coins are gone that nothing here spent: what an earlier request made of them is found by the seed. */
  #searchSpent(): void {
    const { scope, store, mints, logger } = this.#context
    scope.spawnOnce('search', async () => {
      for (const owner of walletOwners(store)) {
        for (const { url } of mints.list()) {
          const found = await this.#restores.search(owner, url)
          if (found)
            logger.info(
              { owner: owner.kind, mint: url, found_sats: Number(found.foundSats) },
              'asked a mint for coins that were spent elsewhere',
            )
        }
      }
    })
  }

  #wake(): void {
    if (this.#isStarted) this.#nap(0)
  }

  #nap(ms: number): void {
    this.#cancelNap?.()
    this.#cancelNap = this.#context.scope.after('look', ms, () => this.#look())
  }

  #resume(id: string): void {
    this.#context.scope.spawnOnce(`resuming ${id}`, () => this.#parts.executor.run(id))
  }

  #check(quoteRow: string): void {
    this.#context.scope.spawnOnce(`quote ${quoteRow}`, () => this.#parts.invoices.check(quoteRow))
  }

  /** Forgets the details of what ended long ago. */
  async #sweep(): Promise<void> {
    const { scope, store, clock } = this.#context
    const sweep = () => store.write(sweepMoney({ before: clock.now() - DETAILS_KEPT_MS, limit: SWEEP_ROWS }))
    while ((await sweep()) === SWEEP_ROWS && !scope.isClosing);
  }

  async #probeMints(): Promise<void> {
    const { scope, mints } = this.#context
    await Promise.allSettled(mints.list().map((mint) => mints.probe(mint.url)))
    scope.spawnOnce('moves', () => this.#moves.move())
    this.#searchSpent()
  }
}
