/** A home with wallets and relays that takes nutzaps, over the sandbox; it can die and come back. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sats } from '../../../src/base/amounts.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { buildNutzap, type Nutzap, type NutzapProof } from '../../../src/nostr/nips/nip61.ts'
import { createNostr } from '../../../src/nostr/nostr.ts'
import type { LocalSigner, Nostr, NostrEvent } from '../../../src/nostr/types.ts'
import { textsOf } from '../../../src/store/row.ts'
import type { CommitHook } from '../../../src/store/store.ts'
import { readTokenHead, readTokenProofs } from '../../../src/wallet/ecash/token.ts'
import { Nutzaps, type RedeemedNutzap } from '../../../src/wallet/nutzaps/nutzaps.ts'
import type { SendRequest } from '../../../src/wallet/types.ts'
import { Zaps } from '../../../src/wallet/zaps/zapping.ts'
import type { TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { openHome, ownerCause, type TestHome, testWords } from '../wallet/home.ts'

export interface NutzapHome extends TestHome {
  readonly nostr: Nostr
  readonly nutzaps: Nutzaps
  readonly zaps: Zaps
  /** What its agent heard. */
  readonly heard: RedeemedNutzap[]
}

/** What outlives a process: the folder and the words. */
export class HomeOnDisk implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'pylon-nutzap-'))
  readonly words = testWords()

  async open(sandbox: TestSandbox, options: { hook?: CommitHook; isGone?: () => boolean; start?: boolean } = {}): Promise<NutzapHome> {
    const { dir, words } = this
    const { hook, isGone, start = true } = options
    const home = await openHome({ dir, words, mintUrls: [sandbox.mintUrl], start: false, ...(hook === undefined ? {} : { hook }) })
    home.dialer.allow(sandbox.relayUrl, true)
    const scope = testScope(undefined, isGone)
    const common = { store: home.store, logger: silentLogger, dialer: home.dialer, keyring: home.keyring }
    const nostr = createNostr({ ...common, scope: scope.child('nostr'), relays: [sandbox.relayUrl] })
    const shared = { ...common, clock: scope.clock, nostr, wallets: home.wallets, config: () => DEFAULT_CONFIG }
    const nutzaps = new Nutzaps({ ...shared, scope: scope.child('nutzaps') })
    const zaps = new Zaps({ ...shared, scope: scope.child('zaps'), invoiceNetwork: 'bcrt' })
    const heard: RedeemedNutzap[] = []
    nutzaps.onRedeemed(async (nutzap) => void heard.push(nutzap))
    nutzaps.watch(home.agent.owner, [sandbox.relayUrl])
    if (start) {
      nostr.start()
      nutzaps.start()
      zaps.start()
      await home.wallets.start()
    }
    const close = async () => {
      await scope.close(1000)
      await home.close()
    }
    return { ...home, nostr, nutzaps, zaps, heard, close }
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true })
  }
}

/** Proofs that are worth so many sats to who redeems them, as their mint makes them. */
export async function proofsFor(
  { node, store }: TestHome,
  amount: number,
  lock: Pick<SendRequest, 'lockTo' | 'refundAfter'>,
): Promise<NutzapProof[]> {
  const order = { idempotencyKey: randomUUID(), cause: ownerCause(), debitAccount: 'node/equity/withdrawal' as const }
  const { token } = await node.sendToken({ ...order, ...lock, amountSats: sats(amount), coverReceiverFee: true })
  const keysets = textsOf(store.sql, 'SELECT id FROM mint_keysets')
  const proofs = readTokenProofs(readTokenHead(token), keysets)
  return proofs.map(({ id, amount: worth, secret, C, dleq }) => {
    const { e = '', s = '', r = '' } = dleq ?? {}
    return { id, amount: worth, secret, C, dleq: { e, s, r } }
  })
}

export const nutzapOf = (signer: LocalSigner, nutzap: Pick<Nutzap, 'recipient' | 'mintUrl' | 'proofs'> & Partial<Nutzap>): NostrEvent =>
  signer.sign(buildNutzap({ comment: 'well said', ...nutzap }, Math.floor(Date.now() / 1000)))
