/** The whole program on relays that nobody here wrote: provider, customer, an agent in every way that one is spoken to, and what came meanwhile. */
import { mkdirSync, writeFileSync } from 'node:fs'
import * as nip04 from 'nostr-tools/nip04'
import * as nip17 from 'nostr-tools/nip17'
import { npubEncode } from 'nostr-tools/nip19'
import { type Event, type EventTemplate, finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import WebSocket from 'ws'
import { type RealRelay, realRelays } from '../support/real-relays.ts'
import { Rig } from '../support/rig.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'

const PAID = 5999
const FREE = 5998
const WAIT = { timeout: 60_000, interval: 100 }
const SLOW_WAIT = { timeout: 60_000, interval: 700 }
const BACKLOG = 60

const nowS = () => Math.floor(Date.now() / 1000)

/** Somebody with a key, on one relay, who logs in when asked. */
class Person implements Disposable {
  readonly secret = generateSecretKey()
  readonly pubkey = getPublicKey(this.secret)
  readonly heard: Event[] = []
  readonly #url: string
  #socket: WebSocket | undefined

  private constructor(url: string) {
    this.#url = url
  }

  /** Listening for all that names it. */
  static async on(url: string): Promise<Person> {
    const person = new Person(url)
    await person.#connect()
    return person
  }

  async #connect(): Promise<void> {
    const socket = new WebSocket(this.#url)
    this.#socket = socket
    const ask = () => socket.send(JSON.stringify(['REQ', 'all', { '#p': [this.pubkey], kinds: [1, 4, 1059, 7000, FREE + 1000] }]))
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.on('open', ask)
      socket.on('message', (data) => {
        const [type, first, event] = JSON.parse(data.toString()) as [string, string, Event]
        if (type === 'AUTH') {
          socket.send(
            JSON.stringify([
              'AUTH',
              this.sign(22_242, '', [
                ['relay', this.#url],
                ['challenge', first],
              ]),
            ]),
          )
          ask()
        }
        if (type === 'EVENT' && !this.heard.some(({ id }) => id === event.id)) this.heard.push(event)
        if (type === 'EOSE') resolve()
      })
    })
  }

  sign(kind: number, content: string, tags: string[][], createdAt = nowS()): Event {
    return finalizeEvent({ kind, content, tags, created_at: createdAt } satisfies EventTemplate, this.secret)
  }

  say(event: Event): Event {
    this.#socket?.send(JSON.stringify(['EVENT', event]))
    return event
  }

  /** What of a kind answers an event (or anything, of which the sender is known). */
  answers(kind: number, about?: Event): Event[] {
    return this.heard.filter(
      (event) => event.kind === kind && (about === undefined || event.tags.some(([name, id]) => name === 'e' && id === about.id)),
    )
  }

  [Symbol.dispose](): void {
    this.#socket?.terminate()
  }
}

interface Agent {
  readonly pubkey: string
  readonly balance_sats: number
}

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

async function startNode(rig: Rig, relay: RealRelay): Promise<string> {
  mkdirSync(rig.sandboxHome.dir, { recursive: true })
  const exec = (kind: number) => `[[provider.exec]]\nkind = ${kind}\ncommand = ["tr", "a-z", "A-Z"]\n`
  const prices = `[provider.prices]\n${PAID} = { amount_msats = 5000 }\n${FREE} = { amount_msats = 0 }\n`
  writeFileSync(rig.sandboxHome.config, `[host]\ndebounce_s = 1\n[provider]\nprobe = false\n${prices}${exec(PAID)}${exec(FREE)}`)
  await rig.ok('start', '--sandbox', '--mode', 'both', '--relay', relay.url, '--mint', sandbox.mintUrl)
  await rig.ok('wallet', 'fund', '100')
  return (await rig.ok('status', '--json')).json<{ identity: { pubkey: string } }>().identity.pubkey
}

const agentOf = async (rig: Rig, name: string) => (await rig.ok('agent', 'show', name, '--json')).json<Agent>()

describe.concurrent.each(realRelays())('$title', ({ title, missing, start }) => {
  test.skipIf(missing !== undefined)(
    `sells, buys, speaks, zaps and catches up${missing === undefined ? '' : ` (skipped: ${missing})`}`,
    { timeout: 180_000 },
    async () => {
      const relay = await start()
      try {
        await using seller = new Rig()
        await using buyer = new Rig()
        const [provider] = await Promise.all([startNode(seller, relay), startNode(buyer, relay)])
        const spawn = ['agent', 'spawn', '--heartbeat', '86400', '--json']
        const { pubkey: ada } = (await seller.ok(...spawn, '--name', 'ada', '--zap-sats', '3')).json<Agent>()
        await seller.ok('agent', 'fund', 'ada', '30')

        // Provider and customer.
        const bought = await buyer.ok(
          'job',
          'submit',
          '--kind',
          String(PAID),
          '--input',
          'hello',
          '--provider',
          npubEncode(provider),
          '--wait',
          '--json',
        )
        expect(bought.stdout).toContain('HELLO')

        // Agents: what one of another node says, this one hears, and zaps.
        await buyer.ok(...spawn, '--name', 'bea', '--brain', 'exec', '--command', `echo 'POST: hello nostr:${npubEncode(ada)}'`)
        await vi.waitUntil(async () => (await agentOf(buyer, 'bea')).balance_sats === 3, SLOW_WAIT)
        using friend = await Person.on(relay.url)
        const mention = friend.say(friend.sign(1, `hello nostr:${npubEncode(ada)}`, [['p', ada]]))
        await vi.waitUntil(() => friend.answers(1, mention).length > 0, WAIT)

        // In private: sealed to who has DM relays, in the old way to who has none.
        using confidant = await Person.on(relay.url)
        confidant.say(confidant.sign(10_050, '', [['relay', relay.url]]))
        confidant.say(nip17.wrapEvent(confidant.secret, { publicKey: ada }, 'a secret'))
        using stranger = await Person.on(relay.url)
        stranger.say(stranger.sign(4, nip04.encrypt(stranger.secret, ada, 'an old secret'), [['p', ada]]))
        await vi.waitUntil(() => confidant.answers(1059).length > 0 && stranger.answers(4).length > 0, WAIT)

        // What comes while the node is away, more of it than one answer of the relay holds.
        await seller.ok('stop')
        const requests = Array.from({ length: BACKLOG }, (_, n) =>
          friend.say(
            friend.sign(
              FREE,
              '',
              [
                ['i', `job ${n}`, 'text'],
                ['p', provider],
              ],
              nowS() - 600 + Math.floor(n / 2),
            ),
          ),
        )
        const late = friend.say(friend.sign(1, `are you there? nostr:${npubEncode(ada)}`, [['p', ada]]))
        confidant.say(nip17.wrapEvent(confidant.secret, { publicKey: ada }, 'another secret'))
        await seller.ok('start', '--sandbox', '--mode', 'both')
        await vi.waitUntil(() => requests.every((request) => friend.answers(FREE + 1000, request).length > 0), WAIT)
        await vi.waitUntil(() => friend.answers(1, late).length > 0 && confidant.answers(1059).length > 1, WAIT)
        const { relays } = (await seller.ok('status', '--json')).json<{ relays: { state: string; reason: string | null }[] }>()
        expect(
          relays.map(({ state, reason }) => [state, reason ?? null]),
          title,
        ).toEqual([['connected', null]])
      } finally {
        await relay.stop()
      }
    },
  )
})
