/** The owner of a runtime on their side of a session: hears its hello, brings its agent into a group, talks to it. */
import { vi } from 'vitest'
import { silentLogger } from '../../src/base/logger.ts'
import { decodeEnvelope, type EnvelopeBody, encodeEnvelope } from '../../src/session/envelope.ts'
import { decodeHello, isProven } from '../../src/session/hello.ts'
import { Sessions } from '../../src/session/sessions.ts'
import type { Created } from '../../src/session/types.ts'
import { startNostr, type TestNostr } from './nostr-node.ts'

const patience = { timeout: 30_000, interval: 20 }

export class SessionOwner {
  readonly node: TestNostr
  readonly sessions: Sessions
  readonly #relayUrl: string
  readonly #hellos = new Map<string, string>()

  constructor(relayUrl: string, node = startNostr({ relays: [relayUrl] })) {
    this.#relayUrl = relayUrl
    this.node = node
    const { nostr, store, scope, keyring } = this.node
    this.sessions = new Sessions({
      scope: scope.child('owner'),
      store,
      nostr,
      signer: keyring.customer(),
      logger: silentLogger,
      relays: [relayUrl],
      mayInvite: () => false,
      onRumor: async (rumor) => {
        const hello = decodeHello(rumor)
        if (hello !== undefined && isProven(hello, this.token, rumor.pubkey)) this.#hellos.set(hello.runtimeId, rumor.pubkey)
      },
    })
    this.sessions.start()
  }

  readonly token = 'c0'.repeat(32)

  get pubkey(): string {
    return this.node.keyring.customer().pubkey
  }

  /** The key of the agent in this runtime, once it has said hello. */
  async hello(runtimeId: string): Promise<string> {
    return await vi.waitFor(() => {
      const bot = this.#hellos.get(runtimeId)
      if (bot === undefined) throw new Error('no hello yet')
      return bot
    }, patience)
  }

  async create(bot: string, key = bot): Promise<Created> {
    return await this.sessions.create({ key, peers: [bot], name: 'Agent Chat', relays: [this.#relayUrl], timeoutMs: 30_000 })
  }

  async meet(runtimeId: string): Promise<SessionTalk> {
    return this.talk((await this.create(await this.hello(runtimeId), runtimeId)).group.id)
  }

  talk(groupId: string): SessionTalk {
    return new SessionTalk(this.sessions, groupId)
  }
}

export class SessionTalk {
  readonly groupId: string
  readonly #sessions: Sessions
  #said = 0

  constructor(sessions: Sessions, groupId: string) {
    this.#sessions = sessions
    this.groupId = groupId
  }

  /** All that the agent said by now, envelopes opened. */
  heard(after = 0): readonly { readonly seq: number; readonly body: EnvelopeBody; readonly sessionId: string }[] {
    return this.#sessions
      .messages(this.groupId, { after, limit: 1000 })
      .filter(({ isOwn }) => !isOwn)
      .map(({ seq, content }) => {
        const envelope = decodeEnvelope(content)
        if (envelope === undefined) throw new Error(`no envelope: ${content}`)
        return { seq, body: envelope.body, sessionId: envelope.session_id }
      })
  }

  async say(
    said: string | EnvelopeBody,
    key = `k${process.pid}-${this.groupId.slice(0, 8)}-${this.#said++}-${Math.random()}`,
  ): Promise<number> {
    const content =
      typeof said === 'string'
        ? said
        : encodeEnvelope({ protocol: 'acp', session_id: 'acp-0123456789abcdef', idempotency_key: key, body: said })
    return (await this.#sessions.send(this.groupId, { content }, key)).seq
  }

  /** What the agent says after this, to the end of a turn. */
  async answer(after: number, timeout = patience.timeout): Promise<readonly EnvelopeBody[]> {
    return await vi.waitFor(
      () => {
        const bodies = this.heard(after).map(({ body }) => body)
        const end = bodies.findIndex(({ type }) => type === 'done' || type === 'error')
        if (end < 0) throw new Error(`no end among ${JSON.stringify(bodies).slice(0, 500)}`)
        return bodies.slice(0, end + 1)
      },
      { timeout, interval: 20 },
    )
  }

  async ask(said: string | EnvelopeBody): Promise<readonly EnvelopeBody[]> {
    return await this.answer(await this.say(said))
  }
}

/** The whole text of an answer. */
export const textOf = (bodies: readonly EnvelopeBody[]): string | undefined => bodies.find((body) => body.type === 'assistant_text')?.text
