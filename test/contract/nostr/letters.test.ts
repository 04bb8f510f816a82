/** Letters of the node over a real relay: it says where it is written to, hears a client of others, and answers where that one reads. */
import { wrapEvent } from 'nostr-tools/nip17'
import { finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { expect, it, onTestFinished, vi } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { systemRandom } from '../../../src/base/random.ts'
import { Letters } from '../../../src/daemon/letters/letters.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { unwrap } from '../../../src/nostr/nips/nip59.ts'
import { createVerifier } from '../../../src/nostr/reading/verify.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { letterOut } from '../../../src/store/nostr/letters.ts'
import { startNostr } from '../../support/nostr-node.ts'
import { startSandbox } from '../../support/sandbox.ts'

it('go both ways between the node and a person with a client of others', async () => {
  const sandbox = await startSandbox()
  onTestFinished(() => sandbox.stop())
  const relay = await Client.open(sandbox.relayUrl)
  onTestFinished(() => relay.close())
  const secret = generateSecretKey()
  const person = getPublicKey(secret)
  const now = Math.floor(Date.now() / 1000)
  await relay.publish(finalizeEvent({ kind: 10_050, created_at: now, tags: [['relay', sandbox.relayUrl]], content: '' }, secret))

  const node = startNostr({ relays: [sandbox.relayUrl] })
  onTestFinished(() => node.stop())
  node.dialer.allow(sandbox.relayUrl, true)
  const { nostr, store, scope, keyring } = node
  const signer = keyring.node()
  const letters = new Letters({
    ...{ nostr, store, signer, clock: scope.clock, logger: silentLogger, isIntroduced: false },
    scope: scope.child('letters'),
  })
  letters.handle('echo', async ({ from, content, rumorId }) => {
    await letters.send(from, `you said: ${content}`, `echo:${rumorId}`, { replyTo: rumorId })
    return true
  })
  letters.start()

  await vi.waitFor(async () => expect(await relay.read({ kinds: [10_050], authors: [signer.pubkey] })).toHaveLength(1), { timeout: 10_000 })
  const wrap = wrapEvent(secret, { publicKey: signer.pubkey }, 'hello')
  await relay.publish(wrap)
  const answers = async () =>
    await Promise.all(
      (await relay.read({ kinds: [1059], '#p': [person] })).map((event) =>
        unwrap(createSigner(secret, systemRandom), event, createVerifier()),
      ),
    )
  await vi.waitFor(async () => expect((await answers()).map(({ content }) => content)).toEqual(['you said: hello']), { timeout: 10_000 })
  const [answer] = await answers()
  const asked = answer?.tags.find(([name]) => name === 'e')?.[1] ?? ''
  await vi.waitFor(() => expect(letterOut(store, `echo:${asked}`)?.state).toBe('sent'), { timeout: 10_000 })
}, 30_000)

/** A relay as a plain client has it. */
class Client {
  readonly #socket: WebSocket
  readonly #heard: ((frame: unknown[]) => void)[] = []

  private constructor(socket: WebSocket) {
    this.#socket = socket
    socket.onmessage = ({ data }) => {
      for (const hear of this.#heard) hear(JSON.parse(String(data)) as unknown[])
    }
  }

  static async open(url: string): Promise<Client> {
    const socket = new WebSocket(url)
    await new Promise((resolve) => {
      socket.onopen = resolve
    })
    return new Client(socket)
  }

  publish(event: object): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#heard.push(([type, , ok, why]) => type === 'OK' && (ok === true ? resolve() : reject(new Error(String(why)))))
      this.#socket.send(JSON.stringify(['EVENT', event]))
    })
  }

  read(filter: object): Promise<NostrEvent[]> {
    const id = Math.random().toString(36).slice(2)
    const events: NostrEvent[] = []
    return new Promise((resolve) => {
      this.#heard.push(([type, sub, event]) => {
        if (sub !== id) return
        if (type === 'EVENT') events.push(event as NostrEvent)
        if (type === 'EOSE') resolve(events)
      })
      this.#socket.send(JSON.stringify(['REQ', id, filter]))
    })
  }

  close(): void {
    this.#socket.close()
  }
}
