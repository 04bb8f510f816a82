/** Nutzaps that a relay lost on a live connection: nobody sends them twice, so they are asked for again. */
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { ManualClock } from '../../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../../src/base/config.ts'
import { silentLogger } from '../../../../src/base/logger.ts'
import { HomeKeyring } from '../../../../src/nostr/keys/keyring.ts'
import type { SubscriptionSpec } from '../../../../src/nostr/types.ts'
import { Nutzaps } from '../../../../src/wallet/nutzaps/nutzaps.ts'
import { testScope } from '../../../support/scope.ts'
import { openStore } from '../../../support/store.ts'
import { tempDir } from '../../../support/temp.ts'

it('what came in the last hour is asked for again every five minutes, by one subscription at a time', async () => {
  const clock = new ManualClock(1_800_000_000_000)
  const scope = testScope(clock)
  const store = openStore(join(tempDir(), 'pylon.db'))
  onTestFinished(async () => {
    await scope.close(100)
    store.close()
  })
  const asked: SubscriptionSpec[] = []
  let open = 0
  const nostr = {
    relays: ['ws://127.0.0.1:1'],
    nudgeOutbox: () => undefined,
    relaysToReach: async () => [],
    subscribe(spec: SubscriptionSpec) {
      asked.push(spec)
      open++
      return { close: () => void open-- }
    },
  }
  const keyring = new HomeKeyring({ store, clock, logger: silentLogger, nodePubkey: 'cd'.repeat(32) })
  const wallets = { of: () => expect.unreachable(), mints: () => [] }
  const nutzaps = new Nutzaps({ scope, store, clock, logger: silentLogger, config: () => DEFAULT_CONFIG, nostr, keyring, wallets })
  nutzaps.watch({ kind: 'agent', pubkey: 'ab'.repeat(32) }, nostr.relays)
  nutzaps.start()
  expect(asked).toHaveLength(1)
  await clock.advance(300_000)
  expect(asked.slice(1)).toMatchObject([{ overlapS: 3600, relays: nostr.relays, filters: [{ '#p': ['ab'.repeat(32)] }] }])
  expect(open).toBe(1)
  nutzaps.unwatch('ab'.repeat(32))
  await clock.advance(300_000)
  expect([asked.length, open]).toEqual([2, 0])
})
