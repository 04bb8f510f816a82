/** A home with payouts over the sandbox, and a Lightning address of another wallet whose server does as the test says. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { vi } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import type { CommitHook } from '../../../src/store/store.ts'
import { encodeLnurl } from '../../../src/wallet/lightning/lnurl.ts'
import { Payouts } from '../../../src/wallet/payouts/payouts.ts'
import type { Wallet } from '../../../src/wallet/types.ts'
import { testScope } from '../../support/scope.ts'
import { openHome, ownerCause, type TestHome, testWords } from '../wallet/home.ts'

export interface PayoutHome extends TestHome {
  readonly payouts: Payouts
}

/** What outlives a process: the folder and the words. */
export class PayoutDisk implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'pylon-payouts-'))
  readonly words = testWords()

  /** Looks only when told, unless `start` says otherwise. */
  async open(
    mintUrls: readonly string[],
    options: { hook?: CommitHook; isGone?: () => boolean; lnurl?: string; start?: boolean } = {},
  ): Promise<PayoutHome> {
    const home = await openHome({
      ...{ dir: this.dir, words: this.words, mintUrls },
      ...(options.hook === undefined ? {} : { hook: options.hook }),
    })
    if (options.lnurl !== undefined) home.dialer.allow(options.lnurl, true)
    const scope = testScope(undefined, options.isGone)
    const { store, dialer, wallets } = home
    const common = { scope, store, dialer, wallets, clock: scope.clock, logger: silentLogger, config: () => DEFAULT_CONFIG }
    const writeToken = (name: string, token: string) => {
      mkdirSync(join(this.dir, 'payouts'), { recursive: true })
      writeFileSync(join(this.dir, 'payouts', name), token)
      return join(this.dir, 'payouts', name)
    }
    const payouts = new Payouts({ ...common, writeToken })
    if (options.start === true) payouts.start()
    return {
      ...home,
      payouts,
      close: async () => {
        await scope.close(3000)
        await home.close()
      },
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true })
  }
}

/** Gives invoices of a wallet; each test changes what it says. */
export class AddressServer {
  readonly #server: Server
  /** Invoices that were asked for. */
  asked = 0
  /** Over what it would say. */
  says: Record<string, unknown> = {}
  #wallet: Wallet | undefined
  #mints: readonly string[] = []

  private constructor(server: Server) {
    this.#server = server
  }

  static async start(): Promise<AddressServer> {
    const http = createServer((request, response) => {
      self.#answer(new URL(request.url ?? '', 'http://x')).then(
        (text) => response.end(text),
        (error: unknown) => response.end(JSON.stringify({ status: 'ERROR', reason: String(error) })),
      )
    })
    const self = new AddressServer(http)
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
    return self
  }

  get base(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** As somebody types it. */
  get lnurl(): string {
    return encodeLnurl(`${this.base}/ada`)
  }

  /** @param mints that make its invoices, in turn: those of the sandbox pay only their own */
  paysTo(wallet: Wallet, mints: readonly string[]): void {
    this.#wallet = wallet
    this.#mints = mints
    this.says = {}
    this.asked = 0
  }

  async #answer(url: URL): Promise<string> {
    if (url.pathname !== '/callback') {
      const metadata = JSON.stringify([
        ['text/plain', 'ada'],
        ['text/identifier', 'ada@example.com'],
      ])
      return JSON.stringify({ tag: 'payRequest', callback: '/callback', minSendable: 1000, maxSendable: 1e9, metadata, ...this.says })
    }
    const mintUrl = this.#mints[this.asked++ % this.#mints.length] ?? ''
    const amountSats = sats(BigInt(url.searchParams.get('amount') ?? '0') / 1000n)
    const key = `address ${this.#wallet?.owner.pubkey} ${this.asked} ${Date.now()}`
    const owner = this.#wallet as Wallet
    const invoice = await owner.createInvoice({
      ...{ idempotencyKey: key, cause: ownerCause(), amountSats, mintUrl, creditAccount: 'node/equity/funding' as const },
    })
    return JSON.stringify({ pr: invoice.request })
  }

  stop(): void {
    this.#server.close()
  }
}

export const eventually = <T>(look: () => T): Promise<T> => vi.waitFor(look, { timeout: 15_000, interval: 20 })
