/**
 * The owner speaks, the agent answers.
 *
 *     message --> prompt -----------> turn: deltas, tools --> assistant_text --> done | error
 *             --> steer, follow_up -> into the turn that runs, else a prompt
 *             --> abort ------------> ends the turn that runs
 *             --> anything else ----> nothing
 *
 * A message is handled in the commit that ends its turn. A guest that is killed before runs the turn again.
 */
import { messageOf, PylonError } from '../../base/errors.ts'
import { randomHex } from '../../base/random.ts'
import type { Scope } from '../../base/scope.ts'
import type { Protocol } from '../../runtime/contract/prompt.ts'
import { decodeEnvelope, type EnvelopeBody, encodeEnvelope, envelopeKey } from '../../session/envelope.ts'
import type { Sessions } from '../../session/sessions.ts'
import type { SessionMessage } from '../../session/types.ts'
import type { AgentSeat } from '../agents/seat.ts'
import { Speech } from './speech.ts'
import type { TurnLog } from './turn-log.ts'

const CHAT_KIND = 9
/** An agent may work for so long on one prompt. */
const TURN_MS = 3_600_000
/** For an agent that is being started again. */
const SEAT_MS = 120_000
/** Lives of the guest that one prompt may take. */
const MAX_ATTEMPTS = 3
/** Messages that are read at once while a turn runs, and how often without news. */
const PAGE = 50
/** Until a guest that is told to end knows it. */
const ENDING_MS = 500
const LISTEN_MS = 30_000
const STARTED_AGAIN = '\n\n(the agent was started again, and begins anew)\n\n'

export interface ConversationsDeps {
  readonly scope: Scope
  readonly sessions: Pick<Sessions, 'send' | 'answer' | 'onMessage' | 'messages' | 'news'>
  readonly seat: AgentSeat
  readonly log: TurnLog
  readonly protocol: Protocol
  readonly owner: string
  /** The owner was heard in a group; resolves when what is to be said before any answer was said. */
  onOwner(groupId: string): Promise<void>
}

interface Prompt {
  readonly message: SessionMessage
  readonly text: string
  /** As the owner calls the conversation. */
  readonly sessionId: string
  /** The same thing said twice is answered once. */
  readonly key: string
}

export class Conversations {
  readonly #deps: ConversationsDeps
  #said = 0

  constructor(deps: ConversationsDeps) {
    this.#deps = deps
  }

  start(): void {
    this.#deps.sessions.onMessage((message) => this.#hear(message))
  }

  /** One at a time of each group. */
  async #hear(message: SessionMessage): Promise<void> {
    const said = this.#read(message)
    if (said === undefined || !isPrompting(said.body)) return await this.#end(message)
    await this.#deps.onOwner(message.groupId)
    await this.#turn({ ...said, message, text: said.body.message })
  }

  /** Undefined for what is not the owner's to say. */
  #read(message: SessionMessage): { body: EnvelopeBody; sessionId: string; key: string } | undefined {
    const { owner, protocol } = this.#deps
    if (message.sender !== owner || message.isOwn || message.kind !== CHAT_KIND) return undefined
    const envelope = decodeEnvelope(message.content)
    return {
      body: envelope?.body ?? { type: 'prompt', message: message.content },
      sessionId: envelope?.session_id ?? `${protocol}-${message.groupId.slice(0, 16)}`,
      key: envelope?.idempotency_key ?? message.id,
    }
  }

  async #turn(prompt: Prompt): Promise<void> {
    const { log, scope } = this.#deps
    const { message } = prompt
    if (log.isAnswered(message.groupId, prompt.key)) return await this.#end(message)
    const attempt = await log.begin(message.id)
    if (attempt > MAX_ATTEMPTS) {
      const words = `the agent ended ${MAX_ATTEMPTS} times while it worked on this; say it in another way`
      return await this.#finish(prompt, [{ type: 'error', message: words }])
    }
    const stop = new AbortController()
    const over = new AbortController()
    scope.spawn(`listen during ${message.id}`, () => this.#listenMeanwhile(prompt, stop, over.signal))
    try {
      await this.#finish(prompt, await this.#answer(prompt, attempt > 1, stop))
    } finally {
      over.abort()
    }
  }

  /** While a turn runs, what is said into it does not wait for its end. */
  async #listenMeanwhile({ message }: Prompt, stop: AbortController, over: AbortSignal): Promise<void> {
    const { sessions, scope } = this.#deps
    let after = message.seq
    while (!over.aborted && !scope.isClosing) {
      const page = sessions.messages(message.groupId, { after, limit: PAGE })
      for (const heard of page) {
        if (over.aborted) return
        after = heard.seq
        if (heard.state === 'new') await this.#interject(heard, stop)
      }
      if (page.length < PAGE) await sessions.news.next(message.groupId, LISTEN_MS, over)
    }
  }

  /** What cannot be said into it is a prompt of its own afterwards; steering ends the turn then. */
  async #interject(message: SessionMessage, stop: AbortController): Promise<void> {
    const { seat, scope } = this.#deps
    const body = this.#read(message)?.body
    if (body?.type === 'abort') {
      stop.abort(new Stopped())
      return await this.#end(message)
    }
    if (body?.type !== 'steer' && body?.type !== 'follow_up') return
    const isSaid = await seat.agent?.interject?.(message.groupId, body.type, body.message, scope.closing).catch(() => false)
    if (isSaid === true) return await this.#end(message)
    if (body.type === 'steer') stop.abort(new Stopped())
  }

  /** @returns what is left to say, and how it ended @throws shutting_down; what keeps a word from being said */
  async #answer(prompt: Prompt, isAgain: boolean, stop: AbortController): Promise<EnvelopeBody[]> {
    const { scope, seat } = this.#deps
    const { groupId } = prompt.message
    const life = randomHex(scope.random, 4)
    let told = 0
    const speech = new Speech({ scope, say: (body) => this.#say(prompt, body, `${life}:${told++}`) })
    const signal = AbortSignal.any([stop.signal, scope.closing])
    const cancel = scope.after('turn limit', TURN_MS, () => stop.abort(new PylonError('timeout', 'the agent took longer than an hour')))
    try {
      const agent = await seat.wait(scope, SEAT_MS)
      if (agent === undefined) return [{ type: 'error', message: 'the agent does not start; look at the logs of its runtime' }]
      if (isAgain) speech.hear({ type: 'text', text: STARTED_AGAIN })
      const turn = await agent.prompt(groupId, prompt.text, signal, { onEvent: (event) => speech.hear(event) })
      const whole = await speech.finish(turn.reply)
      const isDone = turn.stopReason === 'end_turn' || turn.stopReason === 'cancelled' || turn.reply !== ''
      return [...whole, isDone ? { type: 'done' } : { type: 'error', message: `the agent ended with ${turn.stopReason}` }]
    } catch (error) {
      const isStopped = stop.signal.aborted && stop.signal.reason instanceof Stopped
      // An agent that is ended together with this guest has not failed.
      if (!isStopped) await scope.sleep(ENDING_MS)
      await speech.breakOff()
      return [isStopped ? { type: 'done' } : { type: 'error', message: wordsOf(error) }]
    } finally {
      cancel()
    }
  }

  async #say({ message, sessionId }: Prompt, body: EnvelopeBody, nth: string): Promise<void> {
    await this.#deps.sessions.send(message.groupId, { content: this.#encode(sessionId, body) }, `turn:${message.id}:${nth}`)
  }

  /** One commit, so that whoever is killed says the whole of an answer once. */
  async #finish({ message, sessionId, key }: Prompt, bodies: readonly EnvelopeBody[]): Promise<void> {
    const { sessions, log } = this.#deps
    const said = bodies.map((body) => ({ content: this.#encode(sessionId, body) }))
    await sessions.answer(message, said, `end:${message.id}`, ...log.end(message, key))
  }

  async #end(message: SessionMessage): Promise<void> {
    await this.#deps.sessions.answer(message, [], `end:${message.id}`)
  }

  #encode(sessionId: string, body: EnvelopeBody): string {
    const { protocol, scope } = this.#deps
    // Rises from life to life without anything kept.
    const seq = scope.clock.now() * 1024 + (this.#said++ % 1024)
    return encodeEnvelope({ protocol, session_id: sessionId, idempotency_key: envelopeKey(sessionId, seq), body })
  }
}

function isPrompting(body: EnvelopeBody): body is Extract<EnvelopeBody, { readonly message: string }> {
  return body.type === 'prompt' || body.type === 'steer' || body.type === 'follow_up'
}

/** By its owner. */
class Stopped extends Error {}

function wordsOf(error: unknown): string {
  return messageOf(error).slice(0, 2000) || 'the agent failed'
}
