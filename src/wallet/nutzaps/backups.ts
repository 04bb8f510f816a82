/**
 * NIP-60: the wallets of this home on relays, for their owner's other programs and for the day that the home is lost. The database
 * is the truth; what stands there follows it, a while after each change, whole mint by whole mint.
 */
import { hash } from 'node:crypto'
import type { WalletOwner } from '../../base/accounts.ts'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import type { Scope } from '../../base/scope.ts'
import { identify } from '../../nostr/nips/nip01.ts'
import { buildDeletion } from '../../nostr/nips/nip09.ts'
import { buildWallet, buildWalletHistory, buildWalletToken, WALLET_TOKEN_KIND } from '../../nostr/nips/nip60.ts'
import type { EventTemplate, IdentifiedEvent, Keyring, Nostr } from '../../nostr/types.ts'
import { listAgents } from '../../store/agents/agents.ts'
import { all } from '../../store/commands.ts'
import { walletBackupMessage } from '../../store/keys.ts'
import { listProofs, type ProofRow } from '../../store/money/proofs.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import { getSetting, putSetting } from '../../store/settings.ts'
import type { Store } from '../../store/store.ts'
import type { Wallets } from '../types.ts'

export interface WalletBackupsDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly config: () => Config
  readonly keyring: Keyring & { walletSecret(pubkey: string): Uint8Array }
  readonly nostr: Pick<Nostr, 'relays' | 'nudgeOutbox'>
  readonly wallets: Pick<Wallets, 'mints'>
}

/** Changes that come together are published together. */
const EVERY_MS = 30_000
const TTL_MS = 7 * 86_400_000
/** Of one event: many relays take no more than 64 KB. */
const MAX_PROOFS = 100

/** What of a wallet stands on relays. */
interface Published {
  /** Of mints and relays. */
  readonly walletDigest: string
  readonly createdAtS: number
  readonly mints: Readonly<Record<string, { readonly digest: string; readonly ids: readonly string[]; readonly sats: number }>>
}

export class WalletBackups {
  readonly #deps: WalletBackupsDeps

  constructor(deps: WalletBackupsDeps) {
    this.#deps = deps
  }

  start(): void {
    this.#deps.scope.every('wallet backups', EVERY_MS, () => this.publish())
  }

  /** Puts out what has changed; where `wallet.nip60` is off what was put out before is deleted. */
  async publish(): Promise<void> {
    const { keyring, store, nostr } = this.#deps
    if (keyring.locked) return
    const own: WalletOwner[] = [
      { kind: 'node', pubkey: keyring.node().pubkey },
      { kind: 'customer', pubkey: keyring.customer().pubkey },
    ]
    for (const owner of own) await this.#publish(owner, nostr.relays)
    for (const agent of listAgents(store)) {
      await this.#publish({ kind: 'agent', pubkey: agent.pubkey }, agent.relays.length > 0 ? agent.relays : nostr.relays)
    }
  }

  /** One commit: the events, and what stands on relays from then on. */
  async #publish(owner: WalletOwner, relays: readonly string[]): Promise<void> {
    const { store, clock, config, keyring, nostr, wallets } = this.#deps
    const before = getSetting<Published>(store, settingKey(owner.pubkey))
    const isOn = config().wallet.nip60
    if (!isOn && (before === undefined || Object.keys(before.mints).length === 0)) return
    const signer = keyring.signer(owner.pubkey)
    const seal = (text: string) => signer.nip44Encrypt(owner.pubkey, text)
    const createdAtS = Math.max(unixSeconds(clock), (before?.createdAtS ?? 0) + 1)
    const events: IdentifiedEvent[] = []
    const add = (template: EventTemplate): string => {
      const event = identify(owner.pubkey, template)
      events.push(event)
      return event.id
    }
    const urls = isOn ? wallets.mints().map(({ url }) => url) : []
    const walletDigest = digestOf([urls, relays])
    // It has to have a mint.
    if (urls.length > 0 && walletDigest !== before?.walletDigest) {
      const privkey = Buffer.from(keyring.walletSecret(owner.pubkey)).toString('hex')
      add(await buildWallet({ privkey, mints: urls }, createdAtS, seal))
    }
    const mints: Record<string, Published['mints'][string]> = {}
    for (const url of new Set([...urls, ...Object.keys(before?.mints ?? {})])) {
      const there = before?.mints[url] ?? { digest: digestOf([]), ids: [], sats: 0 }
      const proofs = isOn ? this.#proofsAt(owner, url) : []
      const digest = digestOf(proofs.map(({ secret }) => secret))
      if (digest === there.digest) {
        if (there.ids.length > 0) mints[url] = there
        continue
      }
      const ids: string[] = []
      for (const some of inParts(proofs)) {
        // The first names what all of them replace.
        const token = { mintUrl: url, proofs: some.map(wireProof), del: ids.length === 0 ? there.ids : [] }
        ids.push(add(await buildWalletToken(token, createdAtS, seal)))
      }
      if (there.ids.length > 0)
        add(
          buildDeletion(
            there.ids.map((id) => ['e', id]),
            WALLET_TOKEN_KIND,
            createdAtS,
          ),
        )
      const sats = proofs.reduce((sum, { amountSats }) => sum + Number(amountSats), 0)
      const change = { direction: sats >= there.sats ? ('in' as const) : ('out' as const), amountSats: BigInt(Math.abs(sats - there.sats)) }
      if (isOn && change.amountSats > 0n) add(await buildWalletHistory({ ...change, created: ids, destroyed: there.ids }, createdAtS, seal))
      if (ids.length > 0) mints[url] = { digest, ids, sats }
    }
    if (events.length === 0) return
    const at = clock.now()
    const published: Published = { walletDigest: urls.length > 0 ? walletDigest : '', createdAtS, mints }
    await store.write(
      all(
        putSetting({ key: settingKey(owner.pubkey), value: published, at }),
        ...events.map((event) => enqueueEvent({ key: walletBackupMessage.of(event.id), event, relays, notAfter: at + TTL_MS, at })),
      ),
    )
    nostr.nudgeOutbox()
  }

  /** What is held for an operation is spent only when its mint says so. */
  #proofsAt({ pubkey }: WalletOwner, mintUrl: string): ProofRow[] {
    const { store } = this.#deps
    const held = (['unspent', 'reserved'] as const).flatMap((state) => listProofs(store, { pubkey, mintUrl, state }))
    return held.sort((a, b) => (a.secret < b.secret ? -1 : 1))
  }
}

const wireProof = ({ keysetId, amountSats, secret, c }: ProofRow) => ({ id: keysetId, amount: Number(amountSats), secret, C: c })

const inParts = (proofs: readonly ProofRow[]): ProofRow[][] =>
  Array.from({ length: Math.ceil(proofs.length / MAX_PROOFS) }, (_, i) => proofs.slice(i * MAX_PROOFS, (i + 1) * MAX_PROOFS))

const digestOf = (value: unknown): string => hash('sha256', JSON.stringify(value))

const settingKey = (pubkey: string): string => `nip60:${pubkey}`
