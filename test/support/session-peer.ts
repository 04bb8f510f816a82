/** One key with its sessions over a real store and a real Nostr layer: for tests of what two of them say to each other. */
import { join } from 'node:path'
import { type Clock, systemClock } from '../../src/base/clock.ts'
import { createDialer } from '../../src/base/dialer.ts'
import { PylonError } from '../../src/base/errors.ts'
import { type Logger, silentLogger } from '../../src/base/logger.ts'
import { systemRandom } from '../../src/base/random.ts'
import { Scope } from '../../src/base/scope.ts'
import { createNostr } from '../../src/nostr/nostr.ts'
import type { Keyring, LocalSigner, Nostr } from '../../src/nostr/types.ts'
import { Sessions } from '../../src/session/sessions.ts'
import type { SessionMessage, SessionsDeps } from '../../src/session/types.ts'
import { type CommitHook, Store } from '../../src/store/store.ts'
import { testSigner } from './test-signer.ts'

export interface SessionPeer {
  readonly signer: LocalSigner
  readonly pubkey: string
  readonly store: Store
  readonly nostr: Nostr
  readonly scope: Scope
  readonly sessions: Sessions
  /** Ends it; `kill`: nothing more is stored. */
  stop(options?: { kill?: boolean }): Promise<void>
}

export interface SessionPeerOptions extends Partial<Pick<SessionsDeps, 'mayInvite' | 'onRumor' | 'via' | 'logger'>> {
  readonly dir: string
  readonly key: number
  readonly relays: readonly string[]
  readonly clock?: Clock
  readonly hook?: CommitHook
  readonly onMessage?: (message: SessionMessage, sessions: Sessions) => Promise<void>
}

/** @param options.dir an existing folder to go on with */
export function startSessionPeer(options: SessionPeerOptions): SessionPeer {
  const { relays, clock = systemClock, logger = silentLogger as Logger } = options
  const signer = testSigner(options.key)
  const store = Store.open(join(options.dir, `peer-${options.key}.db`), options.hook === undefined ? {} : { hook: options.hook })
  let isKilled = false
  const scope = Scope.root(`peer ${options.key}`, { clock, random: systemRandom }, ({ path, error }) => {
    // What runs on over a store that is gone fails.
    if (!isKilled) throw new Error(`${path} failed`, { cause: error })
  })
  const dialer = createDialer()
  const keyring = keyringOf(signer)
  const nostr = createNostr({ scope: scope.child('nostr'), store, logger, dialer, keyring, relays, indexRelays: [] })
  nostr.start()
  const sessions = new Sessions({
    scope: scope.child('sessions'),
    store,
    nostr,
    signer,
    logger,
    relays,
    mayInvite: options.mayInvite ?? (() => true),
    ...(options.via === undefined ? {} : { via: options.via }),
    ...(options.onRumor === undefined ? {} : { onRumor: options.onRumor }),
  })
  sessions.start()
  const { onMessage } = options
  if (onMessage !== undefined) sessions.onMessage((message) => onMessage(message, sessions))
  return {
    signer,
    pubkey: signer.pubkey,
    store,
    nostr,
    scope,
    sessions,
    async stop({ kill = false } = {}) {
      isKilled = kill
      if (kill) store.close()
      await scope.close()
      store.close()
      await dialer.close()
    },
  }
}

export function keyringOf(signer: LocalSigner): Keyring {
  const only = (pubkey: string): LocalSigner => {
    if (pubkey !== signer.pubkey) throw new PylonError('not_found', 'There is one key here.')
    return signer
  }
  const none = (): never => {
    throw new PylonError('not_found', 'There is one key here, and no wallet.')
  }
  return {
    locked: false,
    node: () => signer,
    customer: () => signer,
    signer: only,
    localSigner: only,
    account: () => signer,
    owns: (pubkey) => pubkey === signer.pubkey,
    walletSeed: none,
    walletSigner: none,
  }
}
