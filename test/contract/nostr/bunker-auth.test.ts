/** A relay that wants to know who writes (NIP-42), and a writer whose key is at a bunker: also one that is away meanwhile. */
import { expect, it, onTestFinished, vi } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { RemoteKeys } from '../../../src/nostr/bunker/remote-keys.ts'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import { parseBunkerUri } from '../../../src/nostr/nips/nip46.ts'
import { createVerifier } from '../../../src/nostr/reading/verify.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { enqueueEvent } from '../../../src/store/nostr/outbox.ts'
import { nostrBench } from '../../support/nostr-bench.ts'
import { deliveriesOf } from '../../support/outbox.ts'
import { startSandbox } from '../../support/sandbox.ts'
import { ScriptedBunker } from '../../support/scripted-bunker.ts'

const { relay, node } = nostrBench()
const SOON = { timeout: 40_000, interval: 50 }

it('logs in by the bunker, which alone signs the AUTH, and is not refused for its silence', async () => {
  const sandbox = await startSandbox()
  onTestFinished(() => sandbox.stop())
  const bunker = await ScriptedBunker.start(sandbox.relayUrl)
  onTestFinished(() => bunker.stop())
  const shown = new Set<string>()
  const guarded = await relay({
    onConnect: (connection) => connection.send(['AUTH', 'who are you']),
    onFrame(frame, connection) {
      const event = frame[1] as NostrEvent
      if (frame[0] === 'AUTH') {
        if (createVerifier().verify(event)) shown.add(event.pubkey)
        connection.send(['OK', event.id, true, ''])
        return true
      }
      if (frame[0] !== 'EVENT' || shown.has(event.pubkey)) return false
      connection.send(['OK', event.id, false, 'restricted: log in'])
      return true
    },
  })
  const at = node({ relays: [sandbox.relayUrl] })
  at.dialer.allow(guarded.url, true)
  const keys = new RemoteKeys({ ...at, logger: silentLogger, scope: at.scope.child('remote keys'), answerMs: 1500 })
  const uri = parseBunkerUri(bunker.url)
  const pubkey = await keys.connect(uri)
  const signer = await at.keyring.keepRemote(pubkey, uri, 20)
  keys.watch(pubkey)
  const event = await signer.sign({ kind: 1, created_at: Math.floor(Date.now() / 1000), tags: [], content: 'let me in' })
  expect(identify(pubkey, event).id).toBe(event.id)
  bunker.isAway = true
  const now = Date.now()
  await at.store.write(enqueueEvent({ key: 'in', event, relays: [guarded.url], notAfter: now + 120_000, at: now }))
  at.nostr.nudgeOutbox()
  await vi.waitFor(() => expect(keys.troubled()).toHaveLength(1), SOON)
  await vi.waitFor(() => expect(deliveriesOf(at.store, 'in')[0]?.attempts).toBeGreaterThan(0), SOON)
  expect(deliveriesOf(at.store, 'in')[0]?.state).toBe('pending')
  expect(shown.size).toBe(0)
  bunker.isAway = false
  await vi.waitFor(() => expect(deliveriesOf(at.store, 'in')[0]?.state).toBe('accepted'), SOON)
  expect(shown.has(pubkey)).toBe(true)
}, 120_000)
