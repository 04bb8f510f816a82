/** What is said with agents and other keys in the sessions of the customer key, once and in order. */
import { createHash } from 'node:crypto'
import type { Clock } from '../../base/clock.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { ManagedPhase } from '../../base/states.ts'
import { parsePubkey } from '../../nostr/nips/nip19.ts'
import { decodeEnvelope, type EnvelopeBody, encodeEnvelope, READS_ENVELOPES } from '../../session/envelope.ts'
import { NEW_TURN, type ProjectionMode, project, type Shown, type TurnView } from '../../session/projection.ts'
import type { Sessions } from '../../session/sessions.ts'
import type { Group, SessionMessage } from '../../session/types.ts'
import { findManagedAgent } from '../../store/buying/managed-agents.ts'
import { managedKey } from '../../store/keys.ts'
import type { Store } from '../../store/store.ts'
import type { DirectMessages } from './direct-messages.ts'
import { commandOf } from './managed-agent.ts'

export interface ChatDeps {
  readonly store: Store
  readonly clock: Clock
  /** Of the customer key. */
  readonly owner: {
    readonly sessions: Pick<Sessions, 'create' | 'group' | 'groups' | 'groupWith' | 'messages' | 'newest' | 'news' | 'send'>
    listen(): void
  }
  readonly relays: readonly string[]
  /** For peers without a key package. */
  readonly direct: Pick<DirectMessages, 'isKnown' | 'say' | 'messages' | 'newest' | 'news'>
  /** Of an agent that this node hosts, by name or npub; 64 hex digits. */
  hostedKey(ref: string): string | undefined
}

export interface Saying {
  readonly type: 'prompt' | 'steer' | 'follow_up' | 'abort'
  readonly text: string
}

/** One message with what of it is shown. */
export interface ShownMessage {
  readonly message: SessionMessage
  readonly type: string
  readonly shown: readonly Shown[]
  readonly isEnd: boolean
  /** Of an end: the ids of what was dealt with; undefined where it is whatever was said. */
  readonly answers?: readonly string[]
}

/** Where a conversation is: in a session, or with a key by NIP-17. */
export interface Line {
  readonly via: 'session' | 'nip17'
  /** Of the group, or of the peer. */
  readonly id: string
}

export interface SaidOn {
  readonly line: Line
  readonly said: ShownMessage
}

export interface Turn {
  readonly line: Line
  readonly said: ShownMessage
  readonly reply: string
  /** `silent`: it ended without a word. */
  readonly outcome: 'done' | 'silent' | 'error'
  /** Why nothing was said, where the agent told. */
  readonly note: string | undefined
  readonly messages: readonly ShownMessage[]
}

interface Peer {
  readonly group: Group | undefined
  /** 64 hex digits. */
  readonly pubkey: string
  readonly protocol: string | undefined
  /** By this node. */
  readonly isHosted: boolean
}

/** An agent of this node is up soon; what others have published is there or not. */
const INVITE_HOSTED_MS = 20_000
const INVITE_MS = 3_000
/** Deltas of a turn before a page are looked at so far back. */
const LOOK_BACK = 500
const PAGE = 200

export class Chat {
  readonly #deps: ChatDeps

  constructor(deps: ChatDeps) {
    this.#deps = deps
  }

  get #sessions() {
    return this.#deps.owner.sessions
  }

  groups(): Group[] {
    return this.#sessions.groups()
  }

  /** Once for each key; by NIP-17 to a peer without a key package. @throws agent_not_found, conflict while the agent is not ready, session_no_key_package, session_closed */
  async say(ref: string, { type, text }: Saying, key: string, signal?: AbortSignal): Promise<SaidOn> {
    const peer = this.#peer(ref)
    const group = peer.group ?? (await this.#begin(peer, signal))
    if (group === undefined) {
      if (type === 'abort') throw new PylonError('conflict', 'Messages by NIP-17 have no turns: there is nothing to abort.')
      const message = await this.#deps.direct.say(peer.pubkey, text, managedKey(key, 'say'))
      const line = { via: 'nip17', id: peer.pubkey } as const
      return { line, said: this.#show([message], 'coding', NEW_TURN)[0] as ShownMessage }
    }
    const body: EnvelopeBody = type === 'abort' ? { type } : { type, message: text }
    const sessionId = `${peer.protocol ?? 'pylon'}-${group.id.slice(0, 16)}`
    // What is said again under the caller's key has the same name inside.
    const nth = createHash('sha256').update(key).digest('hex').slice(0, 16)
    // A person may be at the other end, who is shown what was said as it is.
    const isPlain = peer.protocol === undefined && type === 'prompt'
    const said = isPlain
      ? { content: text, tags: [READS_ENVELOPES] }
      : {
          content: encodeEnvelope({
            protocol: peer.protocol ?? 'pylon',
            session_id: sessionId,
            idempotency_key: `${sessionId}:${nth}`,
            body,
          }),
        }
    const message = await this.#sessions.send(group.id, said, managedKey(key, 'say'))
    return { line: { via: 'session', id: group.id }, said: this.#show([message], 'coding', NEW_TURN)[0] as ShownMessage }
  }

  /** @throws agent_not_found, session_not_found */
  lineOf(ref: string): Line {
    const { group, pubkey } = this.#peer(ref)
    if (group !== undefined) return { via: 'session', id: group.id }
    if (this.#deps.direct.isKnown(pubkey)) return { via: 'nip17', id: pubkey }
    throw new PylonError('session_not_found', `There is no session with ${ref} yet; begin one with: pylon agent chat ${ref} "hello"`)
  }

  /** Oldest first; waits for one more where there is none, at most `waitMs`. */
  async after(
    line: Line,
    page: { after: number; limit: number; waitMs: number; mode: ProjectionMode },
    signal: AbortSignal,
  ): Promise<ShownMessage[]> {
    const { after, limit, waitMs, mode } = page
    const from = this.#talkOf(line)
    if (waitMs > 0 && from.messages(line.id, { after, limit: 1 }).length === 0) await from.news.next(line.id, waitMs, signal)
    return this.#show(from.messages(line.id, { after, limit }), mode, this.#viewAt(line, after))
  }

  /** The newest, oldest first. */
  last(line: Line, count: number, mode: ProjectionMode): ShownMessage[] {
    return this.#show(this.#talkOf(line).newest(line.id, count), mode, NEW_TURN)
  }

  /** Says it and waits for the end of the turn. @throws as say does; timeout */
  async turn(ref: string, text: string, key: string, timeoutMs: number, signal: AbortSignal): Promise<Turn> {
    const { line, said } = await this.say(ref, { type: 'prompt', text }, key, signal)
    const { seq, id } = said.message
    const until = this.#deps.clock.now() + timeoutMs
    const heard: ShownMessage[] = []
    for (let after = seq; ; ) {
      signal.throwIfAborted()
      const leftMs = until - this.#deps.clock.now()
      if (leftMs <= 0) throw this.#unanswered(ref, line, seq, timeoutMs)
      const page = await this.after(line, { after, limit: PAGE, waitMs: leftMs, mode: 'coding' }, signal)
      for (const one of page) {
        after = one.message.seq
        if (one.message.isOwn) continue
        heard.push(one)
        // What was said before ends now: its words are no part of this turn.
        if (one.isEnd && one.answers?.includes(id) === false) heard.length = 0
        else if (one.isEnd) return { line, said, ...endOf(one, heard), messages: heard }
      }
    }
  }

  #unanswered(ref: string, line: Line, seq: number, timeoutMs: number): PylonError {
    const [own] = this.#talkOf(line).messages(line.id, { after: seq - 1, limit: 1 })
    const seconds = Math.round(timeoutMs / 1000)
    if (own?.state === 'refused') return new PylonError('relay_refused', `No relay took what was said: ${own.reason ?? 'no reason'}`)
    const words = own?.state === 'sending' ? 'no relay took what was said yet' : 'a relay took what was said'
    return new PylonError(
      'timeout',
      `${ref} did not end its turn within ${seconds} s; ${words}. What comes later: pylon agent attach ${ref}`,
    )
  }

  #peer(ref: string): Peer {
    const { store, hostedKey } = this.#deps
    const sessions = this.#sessions
    const byId = sessions.group(ref)
    if (byId !== undefined) return { group: byId, pubkey: ref, protocol: undefined, isHosted: false }
    const agent = findManagedAgent(store, ref)
    if (agent !== undefined) {
      const group = agent.groupId === null ? undefined : sessions.group(agent.groupId)
      if (group === undefined) throw notReady(agent.name, agent.phase)
      return { group, pubkey: agent.botPubkey ?? '', protocol: commandOf(agent).protocol, isHosted: false }
    }
    const hosted = hostedKey(ref)
    const pubkey = hosted ?? pubkeyIn(ref)
    if (pubkey === undefined) throw new PylonError('agent_not_found', `There is no agent ${ref}; pylon agent list shows them.`)
    return { group: sessions.groupWith(pubkey), pubkey, protocol: undefined, isHosted: hosted !== undefined }
  }

  #talkOf({ via }: Line): Pick<DirectMessages, 'messages' | 'newest' | 'news'> {
    return via === 'nip17' ? this.#deps.direct : this.#sessions
  }

  /** Undefined for a peer without a key package. */
  async #begin({ pubkey, isHosted }: Peer, signal: AbortSignal | undefined): Promise<Group | undefined> {
    const { owner, relays } = this.#deps
    const { sessions } = owner
    owner.listen()
    // One that ended is followed by another.
    const nth = sessions.groups().filter(({ members }) => members.includes(pubkey)).length
    const order = {
      peers: [pubkey],
      name: 'Chat',
      relays,
      timeoutMs: isHosted ? INVITE_HOSTED_MS : INVITE_MS,
      ...(signal === undefined ? {} : { signal }),
    }
    try {
      return (await sessions.create({ ...order, key: managedKey(pubkey, `chat:${nth}`) })).group
    } catch (error) {
      // One that hosts no session may read NIP-17.
      if (!isPylonError(error, 'session_no_key_package')) throw error
      return undefined
    }
  }

  /** What the deltas before a page have shown already. */
  #viewAt(line: Line, after: number): TurnView {
    if (line.via === 'nip17') return NEW_TURN
    const before = this.#sessions.messages(line.id, { after: Math.max(0, after - LOOK_BACK), limit: LOOK_BACK })
    let view = NEW_TURN
    for (const { seq, isOwn, content } of before) if (seq <= after && !isOwn) view = project('chat', content, view).view
    return view
  }

  #show(messages: readonly SessionMessage[], mode: ProjectionMode, from: TurnView): ShownMessage[] {
    let view = from
    return messages.map((message) => {
      const type = decodeEnvelope(message.content)?.body.type ?? 'text'
      const projected = project(mode, message.content, message.isOwn ? NEW_TURN : view)
      if (!message.isOwn) view = projected.view
      // Who speaks plain text says all of it at once.
      const isEnd = !message.isOwn && (projected.isEnd || type === 'text')
      return { message, type, shown: projected.shown, isEnd, ...given({ answers: projected.answers }) }
    })
  }
}

function endOf(end: ShownMessage, heard: readonly ShownMessage[]): Pick<Turn, 'reply' | 'outcome' | 'note'> {
  const reply = replyOf(heard)
  const note = end.shown.find(({ kind }) => kind === 'note')?.text
  return { reply, outcome: end.type === 'error' ? 'error' : reply.trim() === '' ? 'silent' : 'done', note }
}

/** All that was answered in words. */
function replyOf(heard: readonly ShownMessage[]): string {
  const words = heard.flatMap(({ shown, type }) =>
    type === 'error' ? [] : shown.filter(({ kind }) => kind === 'text' || kind === 'delta'),
  )
  return words.reduce((text, { kind, text: more }) => (kind === 'delta' || text === '' ? text + more : `${text}\n${more}`), '')
}

function notReady(name: string, phase: ManagedPhase): PylonError {
  return new PylonError('conflict', `The agent ${name} cannot be talked to: it is ${phase}. To see why: pylon agent show ${name}`)
}

function pubkeyIn(ref: string): string | undefined {
  try {
    return parsePubkey(ref)
  } catch {
    // No key: a name that nobody has.
    return undefined
  }
}
