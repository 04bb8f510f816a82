/** Scripted relays and nodes of one test file; what a test started is stopped after it, the last first. */
import { afterEach } from 'vitest'
import { startNostr, type TestNostr } from './nostr-node.ts'
import { ScriptedRelay, type ScriptedRelayOptions } from './scripted-relay.ts'

/** To be called once, at the top of the file. */
export function nostrBench() {
  const cleanups: (() => Promise<unknown>)[] = []
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
  })
  return {
    /** What else the test started. */
    cleanups,
    async relay(options: ScriptedRelayOptions = {}): Promise<ScriptedRelay> {
      const started = await ScriptedRelay.start(options)
      cleanups.push(() => started.stop())
      return started
    },
    node(options: Parameters<typeof startNostr>[0]): TestNostr {
      const started = startNostr(options)
      cleanups.push(() => started.stop())
      return started
    },
  }
}
