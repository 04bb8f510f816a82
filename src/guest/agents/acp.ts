/** An agent that speaks the Agent Client Protocol (v1) over its stdio, through the protocol's published SDK. */
import { type Readable, Writable } from 'node:stream'
import {
  type ClientConnection,
  client,
  methods,
  ndJsonStream,
  PROTOCOL_VERSION,
  type SessionNotification,
  type ToolCallUpdate,
} from '@agentclientprotocol/sdk'
import type { Json } from '../../base/json.ts'
import type { ProcessGroup } from '../../base/processes.ts'
import { VERSION } from '../../base/version.ts'
import { type Agent, MAX_AGENT_MESSAGE_BYTES, type PromptOptions, type Turn, TurnRecord } from './agent.ts'
import { ConversationBook } from './conversation-book.ts'

/** How long an agent may take to answer a cancel. */
const CANCEL_GRACE_MS = 3000

export class AcpAgent implements Agent {
  readonly #connection: ClientConnection
  readonly #cwd: string
  readonly #book: ConversationBook
  /** Of the agent's sessions those that it has open in this life. */
  readonly #open = new Set<string>()
  #canLoad = false
  /** The agent's session id to the turn that runs in it. */
  readonly #turns = new Map<string, TurnRecord>()

  constructor(child: ProcessGroup, cwd: string, book = new ConversationBook()) {
    const { stdin, stdout } = child.process
    if (stdin === null || stdout === null) throw new Error('The agent process has no stdio.')
    this.#cwd = cwd
    this.#book = book
    const stream = ndJsonStream(Writable.toWeb(stdin), readableOf(stdout), { maxMessageBytes: MAX_AGENT_MESSAGE_BYTES })
    this.#connection = client({ name: 'pylon' })
      .onNotification(methods.client.session.update, ({ params }) => this.#onUpdate(params))
      // Nobody sits there to be asked, and the runtime is the fence: what the agent may reach, it may do.
      .onRequest(methods.client.session.requestPermission, ({ params }) => {
        const allowed = params.options.find((o) => o.kind === 'allow_once') ?? params.options.find((o) => o.kind === 'allow_always')
        if (allowed === undefined) return { outcome: { outcome: 'cancelled' } }
        return { outcome: { outcome: 'selected', optionId: allowed.optionId } }
      })
      .connect(stream)
    // Its end is seen as the exit of the process.
    this.#connection.closed.catch(() => undefined)
  }

  async start(signal: AbortSignal): Promise<void> {
    const answer = await this.#connection.agent.request(
      methods.agent.initialize,
      { protocolVersion: PROTOCOL_VERSION, clientCapabilities: {}, clientInfo: { name: 'pylon', version: VERSION } },
      { cancellationSignal: signal, stopWaitingOnCancel: true },
    )
    if (answer.protocolVersion !== PROTOCOL_VERSION)
      throw new Error(`the agent speaks version ${answer.protocolVersion} of the protocol, not ${PROTOCOL_VERSION}`)
    this.#canLoad = answer.agentCapabilities?.loadSession === true
  }

  async prompt(sessionId: string, message: string, signal: AbortSignal, options?: PromptOptions): Promise<Turn> {
    try {
      const session = await this.#session(sessionId, signal)
      signal.throwIfAborted()
      const turn = await this.#turn(session, message, signal, new TurnRecord(options))
      // The answer to a cancelled turn says `cancelled`; what the caller hears is why it was.
      if (turn.stopReason === 'cancelled') signal.throwIfAborted()
      return turn
    } catch (error) {
      signal.throwIfAborted()
      throw error
    }
  }

  async #turn(session: string, message: string, signal: AbortSignal, record: TurnRecord): Promise<Turn> {
    this.#turns.set(session, record)
    const turn = this.#connection.agent
      .request(methods.agent.session.prompt, { sessionId: session, prompt: [{ type: 'text', text: message }] })
      .then((answer) => record.turn(stopReasonOf(answer.stopReason)))
    try {
      return await Promise.race([turn, this.#cancelled(session, turn, signal)])
    } finally {
      // A turn that was given up may still fail; nobody waits for it.
      turn.catch(() => undefined)
      this.#turns.delete(session)
    }
  }

  /** Rejects after an abort, once the agent has ended the turn or its grace is over. */
  #cancelled(session: string, turn: Promise<Turn>, signal: AbortSignal): Promise<never> {
    return new Promise((_resolve, reject) => {
      const onAbort = () => {
        const giveUp = () => reject(signal.reason)
        this.#connection.agent.notify(methods.agent.session.cancel, { sessionId: session }).catch(giveUp)
        turn.then(giveUp, giveUp)
        setTimeout(giveUp, CANCEL_GRACE_MS).unref()
      }
      signal.addEventListener('abort', onAbort, { once: true })
      turn.then(
        () => signal.removeEventListener('abort', onAbort),
        () => signal.removeEventListener('abort', onAbort),
      )
    })
  }

  async #session(sessionId: string, signal: AbortSignal): Promise<string> {
    const known = this.#book.get(sessionId)
    if (known !== undefined && (this.#open.has(known) || (await this.#load(known, signal)))) {
      this.#book.note(sessionId, known)
      return known
    }
    const opened = await this.#connection.agent.request(
      methods.agent.session.new,
      { cwd: this.#cwd, mcpServers: [] },
      { cancellationSignal: signal, stopWaitingOnCancel: true },
    )
    this.#open.add(opened.sessionId)
    this.#book.note(sessionId, opened.sessionId)
    return opened.sessionId
  }

  /** One of an earlier life of the agent; what it tells again of it is nobody's turn. @returns false where it has none such any more */
  async #load(session: string, signal: AbortSignal): Promise<boolean> {
    if (!this.#canLoad) return false
    try {
      await this.#connection.agent.request(
        methods.agent.session.load,
        { sessionId: session, cwd: this.#cwd, mcpServers: [] },
        { cancellationSignal: signal, stopWaitingOnCancel: true },
      )
      this.#open.add(session)
      return true
    } catch {
      signal.throwIfAborted()
      // It has forgotten it: a new one is begun.
      return false
    }
  }

  #onUpdate({ sessionId, update }: SessionNotification): void {
    const record = this.#turns.get(sessionId)
    if (record === undefined) return
    switch (update.sessionUpdate) {
      case 'agent_message_chunk':
        if (update.content.type === 'text') record.text(update.content.text)
        break
      case 'agent_thought_chunk':
        if (update.content.type === 'text') record.thought(update.content.text)
        break
      case 'tool_call':
        record.toolCall(update.toolCallId, update.title, (update.rawInput ?? null) as Json)
        if (update.status === 'completed' || update.status === 'failed') record.toolUpdate(update.toolCallId, update.status)
        break
      case 'tool_call_update':
        if (update.status === 'completed' || update.status === 'failed' || update.status === 'in_progress')
          record.toolUpdate(update.toolCallId, update.status, outputOf(update))
        break
      default:
    }
  }
}

/** What a tool gave: as it is, or the text of what was shown of it. */
function outputOf({ rawOutput, content }: ToolCallUpdate): Json | undefined {
  if (rawOutput !== undefined && rawOutput !== null) return rawOutput as Json
  const text = (content ?? [])
    .flatMap((one) => (one.type === 'content' && one.content.type === 'text' ? [one.content.text] : []))
    .join('\n')
  return text === '' ? undefined : text
}

function stopReasonOf(reason: string): Turn['stopReason'] {
  switch (reason) {
    case 'end_turn':
    case 'max_tokens':
    case 'max_turn_requests':
    case 'refusal':
    case 'cancelled':
      return reason
    default:
      return 'end_turn'
  }
}

function readableOf(stream: Readable): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      stream.on('data', (chunk: Buffer) => {
        controller.enqueue(chunk)
        if ((controller.desiredSize ?? 0) <= 0) stream.pause()
      })
      stream.once('close', () => {
        try {
          controller.close()
        } catch {
          // The reader has gone first.
        }
      })
    },
    pull: () => void stream.resume(),
    cancel: () => void stream.destroy(),
  })
}
