/** A Nostr layer over a real store for tests: fixed words, any relays, reopenable. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, ManualClock, systemClock } from '../../src/base/clock.ts'
import { createDialer, type Dialer } from '../../src/base/dialer.ts'
import { silentLogger } from '../../src/base/logger.ts'
import { systemRandom } from '../../src/base/random.ts'
import { Scope } from '../../src/base/scope.ts'
import { HomeKeyring } from '../../src/nostr/keys/keyring.ts'
import { createNostr } from '../../src/nostr/nostr.ts'
import type { Nostr } from '../../src/nostr/types.ts'
import type { Store } from '../../src/store/store.ts'
import { openStore } from './store.ts'

export const TEST_WORDS = 'leader monkey parrot ring guide accident before fence cannon height naive bean'
export const TEST_PUBKEY = '17162c921dc4d2518f9a101db33695df1afb56ab82f5ff3e5da6eec3ca5cd917'

export interface TestNostr {
  readonly dir: string
  readonly store: Store
  readonly keyring: HomeKeyring
  readonly dialer: Dialer
  readonly nostr: Nostr
  /** What the layer runs under; closed by `stop`. */
  readonly scope: Scope
  /** Closes; the folder stays when `keep`. */
  stop(options?: { keep?: boolean; kill?: boolean }): Promise<void>
}

/** @param options.dir an existing folder to go on with. */
export function startNostr(options: {
  relays: readonly string[]
  indexRelays?: readonly string[]
  dir?: string
  clock?: Clock
  locked?: boolean
  start?: boolean
}): TestNostr {
  const dir = options.dir ?? mkdtempSync(join(tmpdir(), 'pylon-nostr-'))
  const clock = options.clock ?? systemClock
  const store = openStore(join(dir, 'pylon.db'))
  const keyring = new HomeKeyring({ store, clock, logger: silentLogger, nodePubkey: TEST_PUBKEY })
  if (options.locked !== true) keyring.unlock(TEST_WORDS)
  const dialer = createDialer()
  let isKilled = false
  const scope = Scope.root('nostr', { clock, random: systemRandom }, ({ path, error }) => {
    // What runs on over a store that is gone fails.
    if (!isKilled) throw new Error(`${path} failed`, { cause: error })
  })
  const nostr = createNostr({
    scope,
    store,
    logger: silentLogger,
    dialer,
    keyring,
    relays: options.relays,
    indexRelays: options.indexRelays ?? [],
  })
  if (options.start !== false) nostr.start()
  return {
    dir,
    store,
    keyring,
    dialer,
    nostr,
    scope,
    async stop({ keep = false, kill = false } = {}) {
      // A kill leaves memory behind: the store goes first, so that nothing more reaches it.
      isKilled = kill
      if (kill) store.close()
      await ended(scope)
      store.close()
      await dialer.close()
      if (!keep) rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** Time goes on while it closes, also where a test turns the clock. */
async function ended(scope: Scope): Promise<void> {
  let isOver = false
  const closing = scope.close(2000).finally(() => {
    isOver = true
  })
  while (scope.clock instanceof ManualClock && !isOver) await scope.clock.advance(100)
  await closing
}
