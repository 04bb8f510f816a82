/** Who waits for what on one connection: each frame of the relay goes to the request or the event that it answers. */
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { RelayFrame } from './relay-frames.ts'

/** Notices of one connection that are logged: a relay may send them without end. */
const MAX_NOTICES = 20

export interface ReqHandler {
  onEvent(event: unknown): void
  /** @param hint of NIP-67: `finish` or `more` */
  onEose(hint: string | undefined): void
  /** The relay ended it; the request is forgotten. */
  onClosed(message: string): void
}

export type OkHandler = (ok: boolean, message: string) => void

export interface FrameRouterDeps {
  readonly url: string
  readonly logger: Logger
  onChallenge(challenge: string): void
}

export class FrameRouter {
  readonly #deps: FrameRouterDeps
  readonly #reqs = new Map<string, ReqHandler>()
  readonly #oks = new Map<string, OkHandler[]>()
  #notices = 0

  constructor(deps: FrameRouterDeps) {
    this.#deps = deps
  }

  get openReqs(): number {
    return this.#reqs.size
  }

  addReq(id: string, handler: ReqHandler): void {
    this.#reqs.set(id, handler)
  }

  /** False when the relay has ended it already. */
  dropReq(id: string): boolean {
    return this.#reqs.delete(id)
  }

  addOk(eventId: string, onOk: OkHandler): void {
    const waiting = this.#oks.get(eventId)
    if (waiting === undefined) this.#oks.set(eventId, [onOk])
    else waiting.push(onOk)
  }

  dropOks(eventId: string): void {
    this.#oks.delete(eventId)
  }

  /** Forgets all: the connection is gone. */
  clear(): void {
    this.#reqs.clear()
    this.#oks.clear()
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
        this.#reqs.get(frame.sub)?.onEvent(frame.event)
        break
      case 'EOSE':
        this.#reqs.get(frame.sub)?.onEose(frame.hint)
        break
      case 'CLOSED': {
        const handler = this.#reqs.get(frame.sub)
        this.#reqs.delete(frame.sub)
        handler?.onClosed(frame.message)
        break
      }
      case 'OK': {
        const waiting = this.#oks.get(frame.id)
        this.#oks.delete(frame.id)
        for (const onOk of waiting ?? []) onOk(frame.ok, frame.message)
        break
      }
      case 'AUTH':
        this.#deps.onChallenge(frame.challenge)
        break
      case 'NOTICE':
        if (this.#notices++ >= MAX_NOTICES) break
        this.#deps.logger.info({ relay: this.#deps.url, notice: frame.message }, 'notice from the relay')
    }
  }
}
