/** What is written goes out as the key that it belongs to, wherever a relay wants to see one. */
import { describe, expect, it, vi } from 'vitest'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import { buildDm17 } from '../../../src/nostr/nips/nip59.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { enqueueEvent } from '../../../src/store/nostr/outbox.ts'
import { nostrBench } from '../../support/nostr-bench.ts'
import type { TestNostr } from '../../support/nostr-node.ts'
import { deliveriesOf } from '../../support/outbox.ts'
import type { ScriptedConnection, ScriptedRelay } from '../../support/scripted-relay.ts'
import { testSigner } from '../../support/test-signer.ts'

const { relay, node } = nostrBench()

const until = (check: () => void) => vi.waitFor(check, { timeout: 30_000, interval: 20 })
const nowS = () => Math.floor(Date.now() / 1000)
type Keys = 'many keys' | 'the key shown last' | 'the key shown first'

/** Takes events only from keys that have logged in on their connection, as many of them as it knows. */
async function guarded(knows: Keys, onlyAuthors: boolean): Promise<ScriptedRelay> {
  const shown = new Map<ScriptedConnection, string[]>()
  return relay({
    onConnect: (connection) => connection.send(['AUTH', `challenge ${shown.size}`]),
    onFrame(frame, connection) {
      const event = frame[1] as NostrEvent
      const keys = shown.get(connection) ?? []
      if (frame[0] === 'AUTH') {
        if (knows === 'many keys') keys.push(event.pubkey)
        else if (knows === 'the key shown last' || keys.length === 0) keys.splice(0, 1, event.pubkey)
        shown.set(connection, keys)
        connection.send(['OK', event.id, true, ''])
        return true
      }
      if (frame[0] !== 'EVENT' || (keys.length > 0 && (!onlyAuthors || keys.includes(event.pubkey)))) return false
      connection.send(['OK', event.id, false, keys.length === 0 ? 'auth-required: log in' : 'restricted: from the author only'])
      return true
    },
  })
}

const put = (at: TestNostr, key: string, event: Parameters<typeof enqueueEvent>[0]['event'], url: string, seal?: NostrEvent) =>
  at.store
    .write(
      enqueueEvent({ key, event, relays: [url], notAfter: Date.now() + 60_000, at: Date.now(), ...(seal === undefined ? {} : { seal }) }),
    )
    .finally(() => at.nostr.nudgeOutbox())

describe('a relay of others that takes events only from who has logged in', () => {
  it.each(['many keys', 'the key shown last', 'the key shown first'] as const)(
    'takes each from its author where it knows %s',
    async (knows) => {
      const inbox = await guarded(knows, true)
      const own = await relay()
      const at = node({ relays: [own.url] })
      at.dialer.allow(inbox.url, true)
      const authors = [10, 11, 10, 11, 12].map((account) => at.keyring.account(account).pubkey)
      for (const [n, pubkey] of authors.entries()) {
        await put(at, `n:${n}`, identify(pubkey, { kind: 1, created_at: nowS(), tags: [], content: `${n}` }), inbox.url)
        await until(() => expect(deliveriesOf(at.store, `n:${n}`)[0]?.state).toBe('accepted'))
      }
      const proven = new Set(inbox.received('AUTH').map((frame) => (frame[1] as NostrEvent).pubkey))
      expect(proven).toEqual(new Set(authors))
    },
  )

  it('takes a gift wrap from whoever sealed it', async () => {
    const inbox = await guarded('the key shown first', false)
    const own = await relay()
    const at = node({ relays: [own.url] })
    at.dialer.allow(inbox.url, true)
    const agent = at.keyring.account(10)
    const [wrap] = (await buildDm17(agent, [testSigner(5).pubkey], 'hello', nowS())).wraps
    if (wrap === undefined) throw new Error('no wrap')
    await put(at, 'action:1', wrap.event, inbox.url, wrap.seal)
    await until(() => expect(deliveriesOf(at.store, 'action:1')[0]?.state).toBe('accepted'))
    expect(inbox.received('AUTH').map((frame) => (frame[1] as NostrEvent).pubkey)).toEqual([agent.pubkey])
  })

  it('refuses for good what it does not take from its author either', async () => {
    const inbox = await relay({
      onConnect: (connection) => connection.send(['AUTH', 'who']),
      onFrame(frame, connection) {
        const event = frame[1] as NostrEvent
        if (frame[0] === 'AUTH') connection.send(['OK', event.id, true, ''])
        else if (frame[0] === 'EVENT') connection.send(['OK', event.id, false, 'restricted: members only'])
        else return false
        return true
      },
    })
    const at = node({ relays: [] })
    at.dialer.allow(inbox.url, true)
    const { pubkey } = at.keyring.account(10)
    await put(at, 'k', identify(pubkey, { kind: 1, created_at: nowS(), tags: [], content: '' }), inbox.url)
    await until(() => expect(deliveriesOf(at.store, 'k')[0]).toMatchObject({ state: 'rejected', error: 'restricted: members only' }))
  })

  it.each(['without a word', 'by a notice'] as const)(
    'is understood where it refuses without naming the event, and answers AUTH %s',
    async (how) => {
      const shown = new Set<ScriptedConnection>()
      const inbox = await relay({
        onConnect: (connection) => connection.send(['AUTH', 'who']),
        onFrame(frame, connection) {
          if (frame[0] === 'AUTH') {
            if (how === 'without a word') shown.add(connection)
            else connection.send(['NOTICE', 'invalid: Wrong domain'])
            return true
          }
          if (frame[0] !== 'EVENT' || shown.has(connection)) return false
          connection.send(['OK', '', false, 'restricted: permission denied'])
          return true
        },
      })
      const own = await relay()
      const at = node({ relays: [own.url] })
      at.dialer.allow(inbox.url, true)
      const { pubkey } = at.keyring.account(10)
      await put(at, 'k', identify(pubkey, { kind: 1, created_at: nowS(), tags: [], content: '' }), inbox.url)
      const state = how === 'without a word' ? 'accepted' : 'rejected'
      await until(() => expect(deliveriesOf(at.store, 'k')[0]?.state).toBe(state))
    },
  )
})
