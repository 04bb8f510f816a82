/** A conversation with an agent: in the terminal line by line, from a pipe one message a line. */
import { randomUUID } from 'node:crypto'
import { createInterface, type Interface } from 'node:readline'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { managedRoutes } from '../../control/contract/managed.ts'
import { callNode } from '../command.ts'
import { plain } from '../terminal/output.ts'
import { byteLines, textOf } from '../terminal/values.ts'
import { pause } from '../terminal/waiting.ts'
import { type OutageWatch, watchOutage } from './outage.ts'
import { joinLines, type Message, orderIn, Transcript } from './transcript.ts'

const WAIT_S = 20
/** While a turn is waited for: after so long without a word its machine is looked at. */
const QUIET_S = 3
const HISTORY = 20
/** Lines that come within this time of each other are one paste. */
const PASTE_MS = 30
const TURN_MS = 3_600_000

export interface Target {
  readonly sandbox: boolean
}

type SayType = 'prompt' | 'follow_up' | 'steer' | 'abort'

/** Talks until the person leaves, or the input ends. @throws cancelled (by SIGINT) when they left by Ctrl-C */
export async function converse(args: Target, name: string, { isNew }: { readonly isNew: boolean }): Promise<void> {
  if (process.stdin.isTTY) await new Dialogue(args, name).run(isNew)
  else await pipe(args, name)
}

/** One turn, streamed to standard output. @returns whether it ended well @throws timeout, cancelled */
export async function streamTurn(
  args: Target,
  name: string,
  text: string,
  options: { key?: string; timeoutMs: number; signal: AbortSignal },
): Promise<boolean> {
  const { key = randomUUID(), timeoutMs, signal } = options
  const until = Date.now() + timeoutMs
  const { value } = await say(args, name, 'prompt', text, key)
  if (value.via === 'nip17')
    process.stderr.write(`(${name} has no key package: it went by NIP-17 direct message, and its next message is taken for the answer)\n`)
  const transcript = new Transcript(process.stdout)
  const outage = watchOutage(args, name)
  try {
    for await (const message of messagesAfter(args, name, { seq: value.message.seq, until, signal, waitS: () => QUIET_S })) {
      if (message === undefined) await outage.look()
      if (message !== undefined && !message.own) {
        // Standard output is for what was said.
        transcript.show({ ...message, shown: message.shown.filter(({ kind }) => kind !== 'note') })
        if (message.is_end && message.answers?.includes(value.message.id) !== false) return wasAnswered(name, message, transcript)
      }
      if (Date.now() >= until) throw unanswered(name, timeoutMs)
    }
  } catch (error) {
    transcript.endLine()
    throw cutOff(name, error)
  }
  signal.throwIfAborted()
  return false
}

/** A turn of no words is told apart from an answer: nothing on standard output is not what was asked for. */
function wasAnswered(name: string, { type, shown }: Message, { isEmpty }: Transcript): boolean {
  const note = shown.find(({ kind }) => kind === 'note')?.text
  if (isEmpty && note !== undefined) {
    process.stderr.write(`${name} said nothing (${plain(note)})\n`)
    return true
  }
  if (isEmpty) process.stderr.write(`pylon: ${name} ended its turn without a word. What it does: pylon agent show ${name}\n`)
  return type !== 'error' && !isEmpty
}

/** What an end of the node in the middle of a turn means for who waits; all else as it is. */
function cutOff(name: string, error: unknown): unknown {
  if (!isPylonError(error, 'shutting_down') && !isPylonError(error, 'not_running')) return error
  const words = `The node was stopped in the middle of the turn of ${name}; what was said stays. After pylon start: pylon agent attach ${name}`
  return new PylonError('shutting_down', words, { cause: error })
}

function unanswered(name: string, timeoutMs: number): PylonError {
  return new PylonError(
    'timeout',
    `${name} did not end its turn within ${Math.round(timeoutMs / 1000)} s. The message stays; pylon agent attach ${name} shows the answer when it comes.`,
  )
}

function say(args: Target, peer: string, type: SayType, text: string, idempotencyKey: string = randomUUID()) {
  const request = type === 'abort' ? { peer, type } : { peer, type, text }
  return callNode(args, managedRoutes.say, request, { idempotencyKey, timeoutMs: 60_000 })
}

/** As they come; undefined whenever there was none for a while, and no wait goes past `until`. Ends with the signal. */
async function* messagesAfter(
  args: Target,
  peer: string,
  { seq, until = Number.POSITIVE_INFINITY, signal, waitS }: { seq: number; until?: number; signal: AbortSignal; waitS: () => number },
): AsyncGenerator<Message | undefined> {
  for (let after = seq; !signal.aborted; ) {
    const wait = Math.min(waitS(), Math.max(0, Math.ceil((until - Date.now()) / 1000)))
    const page = await callNode(args, managedRoutes.listen, { peer, after: String(after), wait: String(wait) }, { signal })
    for (const message of page.value.messages) {
      after = message.seq
      yield message
    }
    if (page.value.messages.length === 0) yield undefined
  }
}

/** Each line is a message; the next is sent when the turn of the last has ended. */
async function pipe(args: Target, name: string): Promise<void> {
  const over = new AbortController()
  const stop = () => over.abort(new PylonError('cancelled', `You left ${name}.`, { details: { signal: 'SIGINT' } }))
  process.once('SIGINT', stop)
  const lines = byteLines(process.stdin)
  over.signal.addEventListener('abort', () => lines.close(), { once: true })
  try {
    for await (const bytes of lines) {
      const line = textOf(Buffer.from(bytes, 'latin1'), 'standard input')
      if (line.trim() === '') continue
      if (!(await streamTurn(args, name, line, { timeoutMs: TURN_MS, signal: over.signal }))) process.exitCode = 1
    }
    over.signal.throwIfAborted()
  } finally {
    process.off('SIGINT', stop)
    process.stdin.pause()
  }
}

class Dialogue {
  readonly #args: Target
  readonly #name: string
  readonly #over = new AbortController()
  readonly #transcript = new Transcript(process.stdout)
  readonly #terminal: Interface
  readonly #outage: OutageWatch
  /** Said and not answered yet. */
  #waiting = 0
  /** A turn that somebody else began, or that was begun before. */
  #mayRun = false
  #wasAborted = false
  #lines: string[] = []
  #paste = 0

  constructor(args: Target, name: string) {
    this.#args = args
    this.#name = name
    this.#outage = watchOutage(args, name)
    this.#terminal = createInterface({ input: process.stdin, output: process.stdout, prompt: '> ', historySize: 500 })
  }

  async run(isNew: boolean): Promise<void> {
    const last = await this.#tellHistory(isNew)
    process.stderr.write(
      `You talk to ${this.#name}. A line ending in \\ goes on; /steer TEXT, /abort, /quit; Ctrl-C ends its turn, a second one leaves.\n`,
    )
    this.#terminal.on('line', (line) => this.#onLine(line))
    this.#terminal.on('SIGINT', () => this.#onInterrupt())
    this.#terminal.on('close', () => this.#over.abort())
    this.#terminal.prompt()
    try {
      const waitS = () => (this.#waiting > 0 ? QUIET_S : WAIT_S)
      for await (const message of messagesAfter(this.#args, this.#name, { seq: last, signal: this.#over.signal, waitS })) {
        if (message !== undefined) this.#onMessage(message)
        else if (this.#waiting > 0) await this.#outage.look()
      }
    } catch (error) {
      if (!this.#over.signal.aborted) throw error
    } finally {
      this.#terminal.close()
      process.stdin.pause()
    }
    const { reason } = this.#over.signal
    if (isPylonError(reason)) throw reason
  }

  /** @returns the number of the newest message */
  async #tellHistory(isNew: boolean): Promise<number> {
    const { value } = await callNode(this.#args, managedRoutes.listen, { peer: this.#name, last: String(HISTORY) })
    const { messages } = value
    if (!isNew) for (const message of messages) this.#transcript.show(message)
    this.#mayRun = messages.at(-1)?.is_end === false
    const own = messages.filter((message) => message.own).flatMap(({ shown }) => shown.map(({ text }) => text))
    const lines = this.#terminal as Interface & { history?: string[] }
    lines.history = own.filter((text) => !text.includes('\n')).reverse()
    return messages.at(-1)?.seq ?? 0
  }

  #onLine(line: string): void {
    this.#lines.push(line)
    const mine = ++this.#paste
    // What was pasted comes as many lines at once.
    pause(PASTE_MS, this.#over.signal).then(
      () => (mine === this.#paste ? this.#onPiece() : undefined),
      () => undefined,
    )
  }

  #onPiece(): void {
    const { text, isOpen } = joinLines(this.#lines)
    if (isOpen) return
    this.#lines = []
    const order = orderIn(text, { isRunning: this.#waiting > 0 || this.#mayRun, isWaitedFor: this.#waiting > 0 })
    if (order.kind === 'quit') {
      this.#terminal.close()
      return
    }
    if (order.kind === 'note' && order.text !== '') process.stderr.write(`(${order.text})\n`)
    if (order.kind === 'prompt' || order.kind === 'follow_up') this.#wasAborted = false
    if (order.kind !== 'note') this.#say(order.kind, order.text)
    if (order.kind === 'note' || (order.kind === 'abort' && this.#waiting === 0)) this.#terminal.prompt()
  }

  #say(type: SayType, text: string): void {
    if (type === 'prompt' || type === 'follow_up') this.#waiting++
    say(this.#args, this.#name, type, text).catch((error: unknown) => {
      if (type === 'prompt' || type === 'follow_up') this.#waiting--
      process.stderr.write(`! not said: ${error instanceof Error ? error.message : String(error)}\n`)
      this.#terminal.prompt()
    })
  }

  #onInterrupt(): void {
    if (this.#waiting > 0 && !this.#wasAborted) {
      this.#wasAborted = true
      process.stderr.write('\n(its turn is ended; Ctrl-C once more leaves)\n')
      this.#say('abort', '')
      return
    }
    this.#over.abort(new PylonError('cancelled', `You left ${this.#name}.`, { details: { signal: 'SIGINT' } }))
    this.#terminal.close()
  }

  #onMessage(message: Message): void {
    this.#mayRun = !message.is_end && (!message.own || message.type !== 'abort')
    if (message.own) return
    this.#transcript.show(message)
    if (!message.is_end) return
    this.#waiting = Math.max(0, this.#waiting - 1)
    if (this.#waiting === 0) this.#terminal.prompt()
  }
}
