/** Follows operations by the event stream: whoever waits hears of the end at once, and asks when the stream is not there. */
import type { Clock } from '../../base/clock.ts'
import { parseJson } from '../../base/json.ts'
import type { WebSocket } from '../../base/service-websocket.ts'
import { isFinished, type Operation, parseOperation } from './envelope.ts'

/** Ends of operations that nobody waits for yet: the event may come before the answer to the request that began it. */
const REMEMBERED = 512
/** The stream is left alone this long after the last operation, then closed. */
const LINGER_MS = 30_000

export interface OperationEvents {
  /** Opens the stream if it is not; resolves when it listens, false when it can't. */
  listen(): Promise<boolean>
  /** The operation once it is finished; undefined when the stream broke meanwhile or `giveUp` was aborted. */
  finished(id: string, giveUp: AbortSignal): Promise<Operation | undefined>
  close(): void
}

type Waiter = (op: Operation | undefined) => void

/** @param open a new socket of `/1.0/events?type=operation`. */
export function createOperationEvents(open: () => WebSocket, clock: Clock): OperationEvents {
  const ended = new Map<string, Operation>()
  const waiters = new Map<string, Set<Waiter>>()
  let socket: WebSocket | undefined
  let opening: Promise<boolean> | undefined
  let cancelLinger: () => void = () => {}

  function tell(id: string, op: Operation | undefined): void {
    const waiting = waiters.get(id)
    waiters.delete(id)
    for (const waiter of waiting ?? []) waiter(op)
  }

  function onMessage(data: unknown): void {
    const event = parseJson(String(data))
    const op = parseOperation((event as { metadata?: unknown } | undefined)?.metadata)
    // Order is not guaranteed: only an end is believed.
    if (op === undefined || !isFinished(op)) return
    ended.set(op.id, op)
    const oldest = ended.keys().next().value
    if (ended.size > REMEMBERED && oldest !== undefined) ended.delete(oldest)
    tell(op.id, op)
  }

  function drop(): void {
    socket?.removeAllListeners()
    socket?.on('error', () => {})
    socket?.terminate()
    socket = undefined
    opening = undefined
    ended.clear()
    for (const id of [...waiters.keys()]) tell(id, undefined)
  }

  function linger(): void {
    cancelLinger()
    cancelLinger = clock.after(LINGER_MS, () => (waiters.size > 0 ? linger() : drop()))
  }

  return {
    listen() {
      linger()
      opening ??= new Promise((resolve) => {
        const opened = open()
        socket = opened
        const fail = () => {
          resolve(false)
          if (socket === opened) drop()
        }
        opened.on('open', () => resolve(true))
        opened.on('message', onMessage)
        opened.on('error', fail)
        opened.on('close', fail)
      })
      return opening
    },
    finished(id, giveUp) {
      const known = ended.get(id)
      if (known !== undefined) return Promise.resolve(known)
      if (socket === undefined || giveUp.aborted) return Promise.resolve(undefined)
      return new Promise((resolve) => {
        const waiter: Waiter = (op) => {
          giveUp.removeEventListener('abort', onAbort)
          resolve(op)
        }
        const onAbort = () => {
          waiters.get(id)?.delete(waiter)
          resolve(undefined)
        }
        giveUp.addEventListener('abort', onAbort, { once: true })
        const waiting = waiters.get(id) ?? new Set<Waiter>()
        waiters.set(id, waiting.add(waiter))
      })
    },
    close() {
      cancelLinger()
      drop()
    },
  }
}
