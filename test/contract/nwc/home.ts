/** A home with wallets, relays and its NWC service, over the sandbox; it can die and come back. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Config, DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { createNostr } from '../../../src/nostr/nostr.ts'
import type { Nostr } from '../../../src/nostr/types.ts'
import type { CommitHook } from '../../../src/store/store.ts'
import { NwcRail } from '../../../src/wallet/nwc/rail.ts'
import { NwcService } from '../../../src/wallet/nwc/service.ts'
import type { TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { openHome, type TestHome, testWords } from '../wallet/home.ts'

export interface NwcHome extends TestHome {
  readonly nostr: Nostr
  readonly service: NwcService
  readonly rail: NwcRail
}

/** What outlives a process: the folder and the words. */
export class HomeOnDisk implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'pylon-nwc-'))
  readonly words = testWords()

  async open(
    sandbox: TestSandbox,
    options: { hook?: CommitHook; start?: boolean; isGone?: () => boolean; receiveBy?: 'nwc' } = {},
  ): Promise<NwcHome> {
    const { dir, words } = this
    const home = await openHome({
      ...{ dir, words, mintUrls: [sandbox.mintUrl], start: false },
      ...(options.hook === undefined ? {} : { hook: options.hook }),
    })
    const scope = testScope(undefined, options.isGone)
    const common = { store: home.store, logger: silentLogger, dialer: home.dialer, keyring: home.keyring }
    const nostr = createNostr({ ...common, scope: scope.child('nostr'), relays: [sandbox.relayUrl] })
    const config: Config = { ...DEFAULT_CONFIG, wallet: { ...DEFAULT_CONFIG.wallet, receive_by: options.receiveBy ?? 'mint' } }
    const shared = { ...common, clock: scope.clock, nostr, wallets: home.wallets, config: () => config }
    const rail = new NwcRail({ ...shared, scope: scope.child('rail'), invoiceNetwork: 'bcrt' })
    const service = new NwcService({ ...shared, scope: scope.child('nwc'), network: 'sandbox' })
    if (options.start !== false) {
      nostr.start()
      service.start()
      rail.start()
      await home.wallets.start()
    }
    return {
      ...home,
      nostr,
      service,
      rail,
      close: async () => {
        await scope.close(1000)
        await home.close()
      },
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true })
  }
}
