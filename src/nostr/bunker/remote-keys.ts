/** All keys of this home that bunkers elsewhere hold: one client a bunker, and how each is. */
import type { Dialer } from '../../base/dialer.ts'
import { PylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import type { Store } from '../../store/store.ts'
import type { HomeKeyring } from '../keys/keyring.ts'
import type { BunkerMethod, BunkerUri } from '../nips/nip46.ts'
import type { Nostr } from '../types.ts'
import { BunkerClient, type BunkerHealth } from './bunker-client.ts'

export interface RemoteKeysDeps {
  readonly scope: Scope
  readonly store: Store
  readonly logger: Logger
  readonly dialer: Pick<Dialer, 'allow'>
  readonly nostr: Pick<Nostr, 'subscribe' | 'nudgeOutbox'>
  readonly keyring: Pick<HomeKeyring, 'remotes' | 'bunkerClient' | 'askBunkersBy'>
  /** How long an answer is waited for (ms). */
  readonly answerMs?: number
  /** Told where the owner is to allow a connection, which is waited for then. */
  readonly onApproval?: (url: string) => void
}

export class RemoteKeys {
  readonly #deps: RemoteKeysDeps
  /** By the key that the bunker knows us by. */
  readonly #clients = new Map<string, BunkerClient>()

  constructor(deps: RemoteKeysDeps) {
    this.#deps = deps
    deps.keyring.askBunkersBy((pubkey, method, params) => this.#ask(pubkey, method, params))
  }

  start(): void {
    for (const { pubkey, bunker } of this.#deps.keyring.remotes()) this.#client(bunker).watch(pubkey)
  }

  /**
   * Connects by a string; the same string again is the same connection.
   * @returns the key that the bunker signs for
   * @throws locked, bunker_unreachable, bunker_refused, bunker_approval, bunker_answer_invalid
   */
  async connect(bunker: BunkerUri): Promise<string> {
    return await this.#client(bunker).connect()
  }

  /** Looks after a key that was taken on. */
  watch(pubkey: string): void {
    const found = this.#bunkerOf(pubkey)
    this.#client(found).watch(pubkey)
  }

  /** Those that are no help now. */
  troubled(): { readonly pubkey: string; readonly health: Extract<BunkerHealth, { state: 'degraded' }> }[] {
    return this.#deps.keyring.remotes().flatMap(({ pubkey, bunker }) => {
      const { health } = this.#client(bunker)
      return health.state === 'ok' ? [] : [{ pubkey, health }]
    })
  }

  async #ask(pubkey: string, method: BunkerMethod, params: readonly string[]): Promise<string> {
    return await this.#client(this.#bunkerOf(pubkey)).request(pubkey, method, params)
  }

  #bunkerOf(pubkey: string): BunkerUri {
    const found = this.#deps.keyring.remotes().find((remote) => remote.pubkey === pubkey)
    if (found === undefined) throw new PylonError('not_found', 'No bunker holds that key for this home.')
    return found.bunker
  }

  #client(bunker: BunkerUri): BunkerClient {
    const { keyring, scope, ...deps } = this.#deps
    const client = keyring.bunkerClient(bunker)
    const known = this.#clients.get(client.pubkey)
    if (known !== undefined) return known
    const made = new BunkerClient({ ...deps, scope: scope.child(`bunker of ${client.pubkey.slice(0, 16)}`), client, bunker })
    this.#clients.set(client.pubkey, made)
    return made
  }
}
