/** Who waits for what on one connection: each frame of the relay goes to the request or the event that it answers. */
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { RelayFrame } from './frames.ts'

/** Notices of one connection that are logged: a relay may send them without end. */
const MAX_NOTICES = 20

export interface ReqHandler {
  onEvent(event: unknown): void
  /** @param hint of NIP-67: `finish` or `more` */
  onEose(hint: string | undefined): void
  /** The relay ended it; the request is forgotten. */
  onClosed(message: string): void
  /** The relay complained of something while this waited for its first answer: it may be meant. */
  onNotice?(message: string): void
  /** NIP-77. */
  onNegMessage?(hex: string): void
}

export type OkHandler = (ok: boolean, message: string) => void

export interface FrameRouterDeps {
  readonly url: string
  readonly logger: Logger
  onChallenge(challenge: string): void
  /** A request was answered by EOSE or CLOSED. */
  onAnswer(type: 'EOSE' | 'CLOSED'): void
  /** A request was refused, or a notice came while some waited. */
  onComplaint(message: string): void
  onNotice(message: string): void
}

interface OpenReq {
  readonly handler: ReqHandler
  answered: boolean
}

export class FrameRouter {
  readonly #deps: FrameRouterDeps
  readonly #reqs = new Map<string, OpenReq>()
  readonly #oks = new Map<string, OkHandler[]>()
  /** Events among them, in the order in which they were sent. */
  readonly #events = new Set<string>()
  #notices = 0

  constructor(deps: FrameRouterDeps) {
    this.#deps = deps
  }

  get openReqs(): number {
    return this.#reqs.size
  }

  /** Open requests that the relay has taken. */
  get answeredReqs(): number {
    let count = 0
    for (const { answered } of this.#reqs.values()) if (answered) count++
    return count
  }

  addReq(id: string, handler: ReqHandler): void {
    this.#reqs.set(id, { handler, answered: false })
  }

  /** False when the relay has ended it already. */
  dropReq(id: string): boolean {
    return this.#reqs.delete(id)
  }

  addOk(eventId: string, onOk: OkHandler, type: 'AUTH' | 'EVENT'): void {
    if (type === 'EVENT') this.#events.add(eventId)
    const waiting = this.#oks.get(eventId)
    if (waiting === undefined) this.#oks.set(eventId, [onOk])
    else waiting.push(onOk)
  }

  dropOks(eventId: string): void {
    this.#oks.delete(eventId)
    this.#events.delete(eventId)
  }

  /** Forgets all: the connection is gone. */
  clear(): void {
    this.#reqs.clear()
    this.#oks.clear()
    this.#events.clear()
    this.#notices = 0
  }

  /** A handler that throws is logged: it ends neither the connection nor what comes after. */
  route(frame: RelayFrame): void {
    const { url, logger } = this.#deps
    try {
      this.#dispatch(frame)
    } catch (error) {
      logger.error({ relay: url, error: messageOf(error) }, 'a frame of the relay could not be handled')
    }
  }

  #dispatch(frame: RelayFrame): void {
    switch (frame.type) {
      case 'EVENT':
        this.#reqs.get(frame.sub)?.handler.onEvent(frame.event)
        break
      case 'EOSE': {
        const req = this.#reqs.get(frame.sub)
        if (req === undefined) break
        req.answered = true
        this.#deps.onAnswer('EOSE')
        req.handler.onEose(frame.hint)
        break
      }
      case 'CLOSED':
      case 'NEG-ERR':
        this.#onClosed(frame.sub, frame.message)
        break
      case 'NEG-MSG':
        this.#reqs.get(frame.sub)?.handler.onNegMessage?.(frame.hex)
        break
      case 'OK': {
        // Some relays refuse without naming what; they answer in order.
        const [oldest = ''] = this.#events
        const id = frame.id === '' && !frame.ok ? oldest : frame.id
        const waiting = this.#oks.get(id)
        this.dropOks(id)
        for (const onOk of waiting ?? []) onOk(frame.ok, frame.message)
        break
      }
      case 'AUTH':
        this.#deps.onChallenge(frame.challenge)
        break
      case 'NOTICE':
        this.#onNotice(frame.message)
    }
  }

  #onClosed(id: string, message: string): void {
    const req = this.#reqs.get(id)
    if (req === undefined) return
    this.#reqs.delete(id)
    if (!req.answered) this.#deps.onComplaint(message)
    this.#deps.onAnswer('CLOSED')
    req.handler.onClosed(message)
  }

  #onNotice(message: string): void {
    if (this.#notices++ < MAX_NOTICES) this.#deps.logger.info({ relay: this.#deps.url, notice: message }, 'notice from the relay')
    this.#deps.onNotice(message)
    const waiting = [...this.#reqs.values()].filter(({ answered }) => !answered)
    if (waiting.length > 0) this.#deps.onComplaint(message)
    for (const { handler } of waiting) handler.onNotice?.(message)
  }
}
