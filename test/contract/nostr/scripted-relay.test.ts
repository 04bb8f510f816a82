/** What the relay that tests script does by itself must be what the sandbox's relay does. */
import { finalizeEvent, generateSecretKey, getPublicKey, type NostrEvent } from 'nostr-tools/pure'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import WebSocket from 'ws'
import { startSandbox } from '../../support/sandbox.ts'
import { ScriptedRelay } from '../../support/scripted-relay.ts'

type Frame = readonly [string, ...unknown[]]

class Client {
  readonly frames: Frame[] = []
  readonly #socket: WebSocket

  private constructor(socket: WebSocket) {
    this.#socket = socket
    socket.on('message', (data) => this.frames.push(JSON.parse(String(data)) as Frame))
  }

  static async open(url: string): Promise<Client> {
    const socket = new WebSocket(url)
    onTestFinished(() => socket.terminate())
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
    return new Client(socket)
  }

  send(...frame: Frame): void {
    this.#socket.send(JSON.stringify(frame))
  }

  async publish(event: NostrEvent): Promise<Frame> {
    const before = this.frames.length
    this.send('EVENT', event)
    return await vi.waitFor(() => {
      const ok = this.frames.slice(before).find((frame) => frame[0] === 'OK' && frame[1] === event.id)
      if (ok === undefined) throw new Error('no answer yet')
      return ok
    }, 10_000)
  }

  /** Ids of what is stored, in the order it came; the subscription stays open. */
  async ask(sub: string, ...filters: object[]): Promise<string[]> {
    this.send('REQ', sub, ...filters)
    await vi.waitFor(() => expect(this.frames).toContainEqual(['EOSE', sub]), 10_000)
    return this.heard(sub)
  }

  heard(sub: string): string[] {
    return this.frames.filter((frame) => frame[0] === 'EVENT' && frame[1] === sub).map((frame) => (frame[2] as NostrEvent).id)
  }
}

const secret = generateSecretKey()
const other = generateSecretKey()
const nowS = Math.floor(Date.now() / 1000)
const note = (agoS: number, more: Partial<NostrEvent> = {}, by = secret) =>
  finalizeEvent({ kind: 1, content: `${agoS}`, tags: [], created_at: nowS - agoS, ...more }, by)

async function sandboxRelay(): Promise<string> {
  const sandbox = await startSandbox()
  onTestFinished(() => sandbox.stop())
  return sandbox.relayUrl
}

async function scriptedRelay(): Promise<string> {
  const relay = await ScriptedRelay.start()
  onTestFinished(() => relay.stop())
  return relay.url
}

describe.each([
  ['the relay of the sandbox', sandboxRelay],
  ['the scripted relay', scriptedRelay],
] as const)('%s', (_name, open) => {
  it('takes an event once, and says so each time', async () => {
    const client = await Client.open(await open())
    const event = note(1)
    expect((await client.publish(event)).slice(0, 3)).toEqual(['OK', event.id, true])
    expect((await client.publish(event)).slice(0, 3)).toEqual(['OK', event.id, true])
    expect(await client.ask('all', { kinds: [1] })).toEqual([event.id])
  })

  it('finds by ids, kinds, authors, tags and time, the newest first, as many as are asked for', async () => {
    const client = await Client.open(await open())
    const tagged = note(10, { tags: [['t', 'x']] })
    const [old, young, foreign, job] = [note(30), note(2), note(5, {}, other), note(7, { kind: 5001 })]
    for (const event of [young, tagged, foreign, old, job]) await client.publish(event)
    expect(await client.ask('kinds', { kinds: [1] })).toEqual([young.id, foreign.id, tagged.id, old.id])
    expect(await client.ask('limit', { kinds: [1], limit: 2 })).toEqual([young.id, foreign.id])
    expect(await client.ask('ids', { ids: [old.id] })).toEqual([old.id])
    expect(await client.ask('authors', { authors: [getPublicKey(other)] })).toEqual([foreign.id])
    expect(await client.ask('tags', { '#t': ['x', 'y'] })).toEqual([tagged.id])
    expect(await client.ask('none', { '#t': ['y'] })).toEqual([])
    expect(await client.ask('time', { kinds: [1], since: nowS - 10, until: nowS - 5 })).toEqual([foreign.id, tagged.id])
    expect(new Set(await client.ask('two', { ids: [old.id] }, { kinds: [5001] }))).toEqual(new Set([old.id, job.id]))
    expect(await client.ask('both', { ids: [old.id] }, { kinds: [1], until: nowS - 30 })).toEqual([old.id])
  })

  it('sends what comes to the subscriptions that it fits while they are open, and keeps nothing ephemeral', async () => {
    const url = await open()
    const [writer, reader] = [await Client.open(url), await Client.open(url)]
    await reader.ask('notes', { kinds: [1, 20_001] })
    await reader.ask('else', { kinds: [5001] })
    const [first, passing, last] = [note(3), note(2, { kind: 20_001 }), note(1)]
    await writer.publish(first)
    await writer.publish(passing)
    await vi.waitFor(() => expect(reader.heard('notes')).toEqual([first.id, passing.id]), 10_000)
    reader.send('CLOSE', 'notes')
    // What was sent before it is handled before it.
    await reader.ask('fence', { ids: ['0'.repeat(64)] })
    await writer.publish(last)
    expect(await reader.ask('again', { kinds: [1, 20_001] })).toEqual([last.id, first.id])
    expect(reader.heard('notes')).toEqual([first.id, passing.id])
    expect(reader.heard('else')).toEqual([])
  })
})
