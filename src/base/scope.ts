/**
 * Running work with an owner. All that runs was started by a scope, which can say what still runs, ends it, and names
 * what did not end in time. A scope has children, as its owner has parts:
 *
 *     open --close(drainMs)--> closing --(children, last first; own work, for drainMs; then what is done `atEnd`)--> ended
 *                                 |                                                                            ^
 *                                 '-- drainMs over: `signal` aborts, GRACE_MS more ----------------------------'  what still runs is late
 *
 * While it closes nothing new starts, and what only waits (`sleep`, `hear`, `every`, `after`, a backoff) ends at once; what works
 * goes on until it is done or `signal` aborts. A failure is told once: to the caller where there is one (`run`, `once`,
 * `within`), else to the nearest `onFailure` upwards. It ends nobody else.
 */
import { type BackoffPolicy, backoffMs } from './backoff.ts'
import type { Clock } from './clock.ts'
import { isPylonError, PylonError } from './errors.ts'
import type { Random } from './random.ts'

/** What gets no further time once its signal was aborted. */
const GRACE_MS = 1000

type Work<T> = (signal: AbortSignal) => T | Promise<T>

export interface Failure {
  /** Names from the root to the task, joined by `/`. */
  readonly path: string
  readonly error: unknown
}

/** Work that runs, or that was late when its scope ended. */
export interface RunningWork {
  readonly path: string
  readonly sinceMs: number
}

export interface ScopePorts {
  readonly clock: Clock
  readonly random: Random
}

export interface ScopeOptions {
  /** Hears of failures of work without a caller, in this scope and below where nobody nearer does. */
  readonly onFailure?: (failure: Failure) => void
}

export class Scope implements AsyncDisposable {
  readonly path: string
  readonly clock: Clock
  readonly random: Random
  /** Aborts when no more time is given: for requests and loops that work. */
  readonly signal: AbortSignal
  readonly #cut = new AbortController()
  readonly #closing = new AbortController()
  readonly #parent: Scope | undefined
  readonly #onFailure: ScopeOptions['onFailure']
  readonly #children = new Set<Scope>()
  readonly #running = new Map<Promise<unknown>, RunningWork>()
  readonly #flights = new Map<string, Promise<unknown>>()
  readonly #gathering = new Set<string>()
  readonly #atEnd: { readonly name: string; readonly work: Work<unknown> }[] = []
  #isRefusing = false
  #closed: Promise<RunningWork[]> | undefined

  private constructor(path: string, ports: ScopePorts, parent: Scope | undefined, options: ScopeOptions) {
    this.path = path
    this.clock = ports.clock
    this.random = ports.random
    this.signal = this.#cut.signal
    this.#parent = parent
    this.#onFailure = options.onFailure
  }

  /** The scope of a whole process, or of a test. Its `onFailure` is the last that can hear of a failure. */
  static root(name: string, ports: ScopePorts, onFailure: (failure: Failure) => void): Scope {
    return new Scope(name, ports, undefined, { onFailure })
  }

  /** Ends with this scope, before what was made earlier. @throws shutting_down */
  child(name: string, options: ScopeOptions = {}): Scope {
    this.#assertOpen(name)
    const child = new Scope(`${this.path}/${name}`, this, this, options)
    this.#children.add(child)
    return child
  }

  /** Nothing new starts any more. */
  get isClosing(): boolean {
    return this.#isRefusing
  }

  /** Aborts as soon as waits end here, before `signal`: for work that only waits for others. */
  get closing(): AbortSignal {
    return this.#closing.signal
  }

  /** Work with a caller: resolves or rejects as the work does. @throws shutting_down (as a rejection) */
  run<T>(name: string, work: Work<T>): Promise<T> {
    if (this.#isRefusing) return Promise.reject(this.#ended(name))
    return this.#start(name, work)
  }

  /** Work without a caller; a failure is told to the owner. Does nothing once this scope closes. */
  spawn(name: string, work: Work<unknown>): void {
    if (this.#isRefusing) return
    this.#start(name, work).catch((error: unknown) => this.#tell({ path: `${this.path}/${name}`, error }))
  }

  /** Does the work again and again, `ms` after its last end, until this scope closes; one failure does not end it. */
  every(name: string, ms: number | (() => number), work: Work<unknown>): void {
    const tell = (error: unknown) => this.#tell({ path: `${this.path}/${name}`, error })
    // Between two turns nothing runs: only a turn is waited for and listed.
    const loop = async () => {
      while ((await this.#pause(typeof ms === 'number' ? ms : ms())) && !this.#isRefusing) await this.#start(name, work).catch(tell)
    }
    loop().catch(tell)
  }

  /** Does the work once, `ms` from now. @returns cancels it while it waits */
  after(name: string, ms: number, work: Work<unknown>): () => void {
    if (this.#isRefusing) return () => {}
    const end = () => {
      cancel()
      this.#closing.signal.removeEventListener('abort', end)
    }
    const cancel = this.clock.after(ms, () => {
      end()
      this.spawn(name, work)
    })
    this.#closing.signal.addEventListener('abort', end, { once: true })
    return end
  }

  /** Does the work once for all who ask within `ms` of the first; 0: in the same turn of the event loop. */
  gather(name: string, ms: number, work: Work<unknown>): void {
    if (this.#gathering.has(name)) return
    this.#gathering.add(name)
    const begin: Work<unknown> = (signal) => {
      this.#gathering.delete(name)
      return work(signal)
    }
    if (ms === 0) setImmediate(() => this.spawn(name, begin))
    else this.after(name, ms, begin)
  }

  /** Does the work when this scope closes, after all else in it has ended: the last that was asked for first. GRACE_MS are left for it whatever else took long. */
  atEnd(name: string, work: Work<unknown>): void {
    this.#assertOpen(name)
    this.#atEnd.push({ name, work })
  }

  /** @throws shutting_down when this scope closes meanwhile */
  async sleep(ms: number): Promise<void> {
    await this.hear(ms, () => () => {})
  }

  /**
   * Waits for what others bring about: `listen` gets what ends the wait, and returns what stops listening.
   * @returns undefined when `ms` were over first @throws shutting_down when this scope closes meanwhile
   */
  hear<T>(ms: number, listen: (tell: (heard: T) => void) => () => void): Promise<T | undefined> {
    const closing = this.#closing.signal
    if (closing.aborted) return Promise.reject(this.#ended('waiting'))
    return new Promise((resolve, reject) => {
      let unlisten: (() => void) | undefined
      let isOver = false
      const finish = (settle: () => void) => {
        if (isOver) return
        isOver = true
        cancel()
        closing.removeEventListener('abort', end)
        unlisten?.()
        settle()
      }
      const end = () => finish(() => reject(this.#ended('waiting')))
      const cancel = this.clock.after(ms, () => finish(() => resolve(undefined)))
      closing.addEventListener('abort', end, { once: true })
      unlisten = listen((heard) => finish(() => resolve(heard)))
      if (isOver) unlisten()
    })
  }

  /**
   * Waits for what somebody else answers for: `ms` at most, and no longer than the signal and this scope let waits last.
   * @returns whether it ended, well or not
   */
  async patience(ms: number, ended: Promise<unknown>, signal?: AbortSignal): Promise<boolean> {
    const settled = ended.then(
      () => true,
      () => true,
    )
    try {
      const isEnd = await this.hear<boolean>(ms, (tell) => {
        const giveUp = () => tell(false)
        settled.then(tell, giveUp)
        signal?.addEventListener('abort', giveUp, { once: true })
        if (signal?.aborted === true) giveUp()
        return () => signal?.removeEventListener('abort', giveUp)
      })
      return isEnd === true
    } catch {
      // This scope closes: nobody waits any longer.
      return false
    }
  }

  /**
   * The work's own outcome, or `late` after `ms`: its signal aborts then, and it stays ours until it ends.
   * @throws what `late` makes (timeout), shutting_down
   */
  async within<T>(name: string, ms: number, work: Work<T>, late = () => lateError(name, ms)): Promise<T> {
    const limit = new AbortController()
    const cancel = this.clock.after(ms, () => limit.abort(late()))
    try {
      return await this.until(name, limit.signal, work)
    } finally {
      cancel()
    }
  }

  /** The same with an end that somebody else decides. @throws the reason of `end`, shutting_down */
  async until<T>(name: string, end: AbortSignal, work: Work<T>): Promise<T> {
    end.throwIfAborted()
    const both = new AbortController()
    const cut = () => both.abort(end.aborted ? end.reason : this.signal.reason)
    const sources = [end, this.signal]
    for (const source of sources) source.addEventListener('abort', cut, { once: true })
    try {
      return await Promise.race([this.run(name, () => work(both.signal)), whenAborted(both.signal)])
    } finally {
      for (const source of sources) source.removeEventListener('abort', cut)
    }
  }

  /** One at a time for each key: who asks while it is under way gets the same outcome. */
  once<T>(key: string, work: Work<T>): Promise<T> {
    const flying = this.#flights.get(key) as Promise<T> | undefined
    if (flying !== undefined) return flying
    const flight = this.run(key, work)
    this.#flights.set(key, flight)
    const land = () => this.#flights.delete(key)
    flight.then(land, land)
    return flight
  }

  /** `spawn`, unless work of this name that was begun with this, or `once`, is still under way. */
  spawnOnce(name: string, work: Work<unknown>): void {
    if (this.#isRefusing || this.#flights.has(name)) return
    this.once(name, work).catch((error: unknown) => this.#tell({ path: `${this.path}/${name}`, error }))
  }

  /** Waits that grow from failure to failure. */
  backoff(policy: BackoffPolicy): Backoff {
    return new Backoff(this, policy)
  }

  /** What runs now, here and below; the oldest first. */
  running(): RunningWork[] {
    const below = [...this.#children].flatMap((child) => child.running())
    return [...this.#running.values(), ...below].sort((a, b) => a.sinceMs - b.sinceMs)
  }

  /**
   * Children end in reverse order, then own work. All of it gets `drainMs`, after which signals abort.
   * @returns what was still running after that; the same for every caller
   */
  close(drainMs = 0): Promise<RunningWork[]> {
    this.#closed ??= this.#close(this.clock.now() + drainMs)
    return this.#closed
  }

  /** Closes where nobody waits for it: what is late is told to the owner. */
  end(drainMs = 0): void {
    const tell = (late: readonly RunningWork[]) => {
      for (const { path } of late) this.#tell({ path, error: new PylonError('timeout', `${path} did not end in time.`) })
    }
    this.close(drainMs).then(tell, (error: unknown) => this.#tell({ path: this.path, error }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #close(deadlineMs: number): Promise<RunningWork[]> {
    const leftMs = () => Math.max(0, deadlineMs - this.clock.now())
    this.#isRefusing = true
    const late: RunningWork[] = []
    for (const child of [...this.#children].reverse()) late.push(...(await child.close(leftMs())))
    this.#closing.abort(this.#ended('work'))
    if (!(await this.#settledWithin(leftMs(), this.#running.keys()))) {
      this.#cut.abort(this.#ended('work'))
      await this.#settledWithin(GRACE_MS, this.#running.keys())
    }
    if (this.#atEnd.length > 0) {
      const last = this.#start('end', (signal) => this.#doLast(signal))
      await this.#settledWithin(Math.max(leftMs(), GRACE_MS), [last])
    }
    this.#cut.abort(this.#ended('work'))
    if (this.#parent !== undefined) this.#parent.#children.delete(this)
    return [...late, ...this.#running.values()]
  }

  #start<T>(name: string, work: Work<T>): Promise<T> {
    // Never in the caller's own turn: what it throws is a rejection, and the caller may go on first.
    const running = Promise.resolve().then(() => work(this.signal))
    this.#running.set(running, { path: `${this.path}/${name}`, sinceMs: this.clock.now() })
    const end = () => this.#running.delete(running)
    running.then(end, end)
    return running
  }

  async #doLast(signal: AbortSignal): Promise<void> {
    for (const { name, work } of this.#atEnd.reverse()) {
      try {
        await work(signal)
      } catch (error) {
        this.#tell({ path: `${this.path}/${name}`, error })
      }
    }
  }

  /** Whether all of these have ended, at the latest after `ms`. */
  #settledWithin(ms: number, works: Iterable<Promise<unknown>>): Promise<boolean> {
    const running = [...works]
    if (running.length === 0 || ms <= 0) return Promise.resolve(running.length === 0)
    const ended = Promise.allSettled(running)
    return new Promise((resolve) => {
      const cancel = this.clock.after(ms, () => resolve(false))
      ended.then(cancel).then(() => resolve(true), resolve)
    })
  }

  /** @returns true after `ms`, false as soon as this scope lets waits end */
  #pause(ms: number): Promise<boolean> {
    return this.sleep(ms).then(
      () => true,
      () => false,
    )
  }

  #tell(failure: Failure): void {
    // What ended because it was told to end did not fail.
    if (this.#closing.signal.aborted && isPylonError(failure.error, 'shutting_down')) return
    if (this.#onFailure !== undefined) this.#onFailure(failure)
    else if (this.#parent !== undefined) this.#parent.#tell(failure)
  }

  #assertOpen(name: string): void {
    if (this.#isRefusing) throw this.#ended(name)
  }

  #ended(name: string): PylonError {
    return new PylonError('shutting_down', `${name} of ${this.path} was not done: it is ending.`)
  }
}

/** Waits that grow from failure to failure and start over after a success. */
export class Backoff {
  readonly #scope: Scope
  readonly #policy: BackoffPolicy
  #failures = 0

  constructor(scope: Scope, policy: BackoffPolicy) {
    this.#scope = scope
    this.#policy = policy
  }

  /** Call after each failure. @throws shutting_down when the scope closes meanwhile */
  async wait(): Promise<void> {
    await this.#scope.sleep(this.nextMs())
  }

  /** Counts a failure. @returns how long to wait now, for who waits by other means */
  nextMs(): number {
    this.#failures++
    return backoffMs(this.#policy, this.#failures, this.#scope.random)
  }

  /** Call after a success. */
  reset(): void {
    this.#failures = 0
  }
}

function lateError(name: string, ms: number): PylonError {
  return new PylonError('timeout', `${name} took longer than ${ms / 1000} s.`)
}

/** Rejects with the signal's reason; never resolves. */
function whenAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason)
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
}
