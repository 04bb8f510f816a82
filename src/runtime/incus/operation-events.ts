/** Follows operations by the event stream: whoever waits hears of the end at once, and asks when the stream is not there. */
import { parseJson } from '../../base/json.ts'
import type { Scope } from '../../base/scope.ts'
import type { WebSocket } from '../../base/service-websocket.ts'
import { isFinished, type Operation, parseOperation } from './envelope.ts'

/** Ends of operations that nobody waits for yet: the event may come before the answer to the request that began it. */
const REMEMBERED = 512
/** The stream is left alone this long after the last operation, then closed. */
const LINGER_MS = 30_000

type Waiter = (op: Operation | undefined) => void

export class OperationEvents {
  readonly #scope: Scope
  readonly #open: () => WebSocket
  readonly #ended = new Map<string, Operation>()
  readonly #waiters = new Map<string, Set<Waiter>>()
  #socket: WebSocket | undefined
  #opening: Promise<boolean> | undefined
  #cancelLinger: () => void = () => undefined

  /** @param open a new socket of `/1.0/events?type=operation`. */
  constructor(scope: Scope, open: () => WebSocket) {
    this.#scope = scope
    this.#open = open
  }

  /** Opens the stream if it is not; resolves when it listens, false when it can't. */
  listen(): Promise<boolean> {
    this.#linger()
    this.#opening ??= new Promise((resolve) => {
      const opened = this.#open()
      this.#socket = opened
      const fail = () => {
        resolve(false)
        if (this.#socket === opened) this.close()
      }
      opened.on('open', () => resolve(true))
      opened.on('message', (data: unknown) => this.#onMessage(data))
      opened.on('error', fail)
      opened.on('close', fail)
    })
    return this.#opening
  }

  /** Tells the operation once it is finished, undefined where the stream is broken. @returns what stops listening */
  onFinished(id: string, tell: Waiter): () => void {
    const known = this.#ended.get(id)
    if (known !== undefined || this.#socket === undefined) {
      tell(known)
      return () => undefined
    }
    const waiting = this.#waiters.get(id) ?? new Set<Waiter>()
    this.#waiters.set(id, waiting.add(tell))
    return () => {
      waiting.delete(tell)
      if (waiting.size === 0 && this.#waiters.get(id) === waiting) this.#waiters.delete(id)
    }
  }

  close(): void {
    this.#cancelLinger()
    this.#socket?.removeAllListeners()
    // What still comes from a socket that is given up concerns nobody.
    this.#socket?.on('error', () => undefined)
    this.#socket?.terminate()
    this.#socket = undefined
    this.#opening = undefined
    this.#ended.clear()
    for (const id of [...this.#waiters.keys()]) this.#tell(id, undefined)
  }

  #onMessage(data: unknown): void {
    const event = parseJson(String(data))
    const op = parseOperation((event as { metadata?: unknown } | undefined)?.metadata)
    // Order is not guaranteed: only an end is believed.
    if (op === undefined || !isFinished(op)) return
    this.#ended.set(op.id, op)
    const oldest = this.#ended.keys().next().value
    if (this.#ended.size > REMEMBERED && oldest !== undefined) this.#ended.delete(oldest)
    this.#tell(op.id, op)
  }

  #tell(id: string, op: Operation | undefined): void {
    const waiting = this.#waiters.get(id)
    this.#waiters.delete(id)
    for (const waiter of waiting ?? []) waiter(op)
  }

  #linger(): void {
    this.#cancelLinger()
    this.#cancelLinger = this.#scope.after('linger', LINGER_MS, () => (this.#waiters.size > 0 ? this.#linger() : this.close()))
  }
}
