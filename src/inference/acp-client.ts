/** The client's side of the Agent Client Protocol (v1) over the stdio of a process, through the protocol's published SDK. */
import { type Readable, Writable } from 'node:stream'
import {
  type ClientConnection,
  client,
  type McpServer,
  methods,
  ndJsonStream,
  type PermissionOptionKind,
  PROTOCOL_VERSION,
  type RequestPermissionRequest,
  type SessionNotification,
  type StopReason,
  type ToolCallUpdate,
} from '@agentclientprotocol/sdk'
import { PylonError } from '../base/errors.ts'
import type { Json } from '../base/json.ts'
import type { ProcessGroup } from '../base/processes.ts'
import { VERSION } from '../base/version.ts'

/** Hears what an agent tells of a turn while it runs. */
export interface AcpListener {
  text(text: string): void
  thought(text: string): void
  toolCall(callId: string, title: string, input: Json): void
  toolUpdate?(callId: string, status: 'in_progress' | 'completed' | 'failed', output?: Json): void
}

interface AcpClientOptions {
  /** Of every session. */
  readonly cwd: string
  /** Servers of tools, which the agent starts for every session. */
  readonly mcpServers?: McpServer[]
  /** Which kinds of answer to a question of the agent are given, the first that it offers; none of them: the question is cancelled. */
  readonly permit: (request: RequestPermissionRequest) => readonly PermissionOptionKind[]
  /** Whom updates of a session are for; nobody: they are dropped. */
  readonly listener: (sessionId: string) => AcpListener | undefined
  /** One message of the agent may be this long. */
  readonly maxMessageBytes: number
  /** Gives up a cancelled turn when the agent has had its time to end it; what it returns stops that. Left out: at once. */
  readonly cancelGrace?: (giveUp: () => void) => () => void
}

export class AcpClient {
  readonly #agent: ClientConnection['agent']
  readonly #options: AcpClientOptions
  #canLoad = false

  /** @throws backend_unavailable where the process has no stdio */
  constructor({ process: { stdin, stdout } }: ProcessGroup, options: AcpClientOptions) {
    if (stdin === null || stdout === null) throw new PylonError('backend_unavailable', 'The agent has no standard input and output.')
    this.#options = options
    const connection = client({ name: 'pylon' })
      .onNotification(methods.client.session.update, ({ params }) => this.#onUpdate(params))
      .onRequest(methods.client.session.requestPermission, ({ params }) => {
        const [option] = options.permit(params).flatMap((kind) => params.options.filter((one) => one.kind === kind))
        return { outcome: option === undefined ? { outcome: 'cancelled' } : { outcome: 'selected', optionId: option.optionId } }
      })
      .connect(ndJsonStream(Writable.toWeb(stdin), readableOf(stdout), { maxMessageBytes: options.maxMessageBytes }))
    // Its end is seen as the exit of the process.
    connection.closed.catch(() => undefined)
    this.#agent = connection.agent
  }

  /** Offers the agent nothing of ours: no files, no terminal. @throws backend_failed where it speaks another version; RequestError with its words */
  async initialize(signal: AbortSignal): Promise<void> {
    const { protocolVersion, agentCapabilities } = await this.#agent.request(
      methods.agent.initialize,
      { protocolVersion: PROTOCOL_VERSION, clientCapabilities: {}, clientInfo: { name: 'pylon', version: VERSION } },
      until(signal),
    )
    if (protocolVersion !== PROTOCOL_VERSION)
      throw new PylonError('backend_failed', `The agent speaks version ${protocolVersion} of its protocol, not ${PROTOCOL_VERSION}.`)
    this.#canLoad = agentCapabilities?.loadSession === true
  }

  /** @param known one of an earlier life of the agent, which goes on where it can @returns the agent's name for it @throws RequestError with its words */
  async openSession(signal: AbortSignal, known?: string): Promise<string> {
    const { cwd, mcpServers = [] } = this.#options
    if (known !== undefined && this.#canLoad) {
      try {
        await this.#agent.request(methods.agent.session.load, { sessionId: known, cwd, mcpServers }, until(signal))
        return known
      } catch {
        signal.throwIfAborted()
        // It has forgotten it: a new one is begun.
      }
    }
    return (await this.#agent.request(methods.agent.session.new, { cwd, mcpServers }, until(signal))).sessionId
  }

  /**
   * One turn. After an abort the agent is told to end it, which it may do by itself within its grace.
   * @throws the signal's reason when the grace is over; RequestError with the agent's words
   */
  async prompt(sessionId: string, text: string, signal: AbortSignal): Promise<StopReason> {
    signal.throwIfAborted()
    const turn = this.#agent.request(methods.agent.session.prompt, { sessionId, prompt: [{ type: 'text', text }] })
    // A turn that was given up may still fail; nobody waits for it.
    turn.catch(() => undefined)
    const givenUp = Promise.withResolvers<never>()
    const giveUp = () => givenUp.reject(signal.reason)
    let endGrace = () => {}
    const onAbort = () => {
      this.#agent.notify(methods.agent.session.cancel, { sessionId }).catch(giveUp)
      if (this.#options.cancelGrace === undefined) giveUp()
      else endGrace = this.#options.cancelGrace(giveUp)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      return (await Promise.race([turn, givenUp.promise])).stopReason
    } finally {
      signal.removeEventListener('abort', onAbort)
      endGrace()
    }
  }

  #onUpdate({ sessionId, update }: SessionNotification): void {
    const listener = this.#options.listener(sessionId)
    if (listener === undefined) return
    switch (update.sessionUpdate) {
      case 'agent_message_chunk':
        if (update.content.type === 'text') listener.text(update.content.text)
        break
      case 'agent_thought_chunk':
        if (update.content.type === 'text') listener.thought(update.content.text)
        break
      case 'tool_call':
        listener.toolCall(update.toolCallId, update.title, (update.rawInput ?? null) as Json)
        if (update.status === 'completed' || update.status === 'failed') listener.toolUpdate?.(update.toolCallId, update.status)
        break
      case 'tool_call_update':
        if (update.status === 'completed' || update.status === 'failed' || update.status === 'in_progress')
          listener.toolUpdate?.(update.toolCallId, update.status, outputOf(update))
        break
      default:
    }
  }
}

/** Waits no longer than the signal says, and tells the agent so. */
const until = (signal: AbortSignal) => ({ cancellationSignal: signal, stopWaitingOnCancel: true })

/** What a tool gave: as it is, or the text of what was shown of it. */
function outputOf({ rawOutput, content }: ToolCallUpdate): Json | undefined {
  if (rawOutput !== undefined && rawOutput !== null) return rawOutput as Json
  const text = (content ?? [])
    .flatMap((one) => (one.type === 'content' && one.content.type === 'text' ? [one.content.text] : []))
    .join('\n')
  return text === '' ? undefined : text
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
