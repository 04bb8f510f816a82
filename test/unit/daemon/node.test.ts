/** A node whose end begins while its parts are being started. */
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { createDialer } from '../../../src/base/dialer.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { homeAt } from '../../../src/base/paths.ts'
import { Events } from '../../../src/daemon/events.ts'
import { LogFile } from '../../../src/daemon/home/log-file.ts'
import { PylonNode } from '../../../src/daemon/node.ts'
import { Shutdown } from '../../../src/daemon/shutdown.ts'
import { createIdentity } from '../../../src/nostr/keys/identity.ts'
import { HomeKeyring } from '../../../src/nostr/keys/keyring.ts'
import { testScope } from '../../support/scope.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'

test('starts no part after its end, and none that an unlock would start later', async () => {
  const dir = tempDir()
  const clock = systemClock
  const logger = silentLogger
  const { identity, words } = await createIdentity(join(dir, 'identity.json'), clock)
  const store = openStore(join(dir, 'pylon.db'))
  const keyring = new HomeKeyring({ store, clock, logger, nodePubkey: identity.pubkey })
  keyring.unlock(words)
  const dialer = createDialer()
  const shutdown = new Shutdown(logger)
  const node = new PylonNode({
    scope: testScope(),
    options: { home: homeAt(dir), network: 'live', run: { relays: [], mints: [] }, isDetached: false },
    config: DEFAULT_CONFIG,
    store,
    clock,
    logger,
    identity,
    keyring,
    dialer,
    surroundings: { relays: [], mints: [], sandbox: undefined },
    logFile: new LogFile(join(dir, 'log'), false),
    events: new Events(systemClock),
    shutdown,
  })
  const starts = [node.parts.wallets, node.parts.provider, node.parts.host].map((part) => vi.spyOn(part, 'start'))
  const starting = node.startParts()
  shutdown.request('test')
  await node.close()
  await starting
  for (const start of starts) expect(start).not.toHaveBeenCalled()
  await expect(node.startParts()).rejects.toMatchObject({ code: 'shutting_down' })
  store.close()
  await dialer.close()
})
