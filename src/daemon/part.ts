/** One part of the node: it may be off, missing or failed, and the rest goes on without it. */
import { PylonError, toPylonError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { RunningWork, Scope } from '../base/scope.ts'
import { type Health, OK } from './health.ts'

type Needs = Readonly<Record<string, Part<unknown>>>
type ValuesOf<N extends Needs> = { readonly [K in keyof N]: N[K] extends Part<infer T> ? T : never }

/** Why a part is off on purpose. */
export interface Off {
  readonly reason: string
  /** What a caller is told who asks for it. */
  readonly message: string
  readonly nextStep: string
}

export interface PartSpec<T, N extends Needs = Needs, W extends Needs = Needs> {
  /** In words, as the log has it; its scope bears it too. */
  readonly name: string
  /** It can't be built without these, and ends before them. */
  readonly needs?: N
  /** It does without these where they are not there, and ends before them. */
  readonly wants?: W
  off?(): Off | undefined
  build(found: ValuesOf<N> & Partial<ValuesOf<W>>, scope: Scope): T
  start?(value: T): void | Promise<void>
  /** Takes the configuration as it is now. */
  reload?(value: T): Promise<void>
  /** For what must be told of its end; what runs under its scope ends after that. */
  stop?(value: T, drainMs: number): Promise<void>
  /** How long running work may go on at the end; the node's own drain when left out. */
  readonly drainMs?: number
  /** Of one that runs; ok when left out. */
  health?(value: T): Health
}

export class Part<T> {
  readonly #spec: PartSpec<T>
  #scope: Scope | undefined
  #value: T | undefined
  #error: PylonError
  /** Why it is not up; undefined while it is. */
  #down: Health | undefined

  constructor(spec: PartSpec<T>) {
    this.#spec = spec
    this.#error = new PylonError('locked', `The ${spec.name} waits for the keys; run: pylon unlock`)
    this.#down = { state: 'off', reason: 'locked', nextStep: 'pylon unlock' }
  }

  /** The parts that end after this one. */
  get uses(): readonly Part<unknown>[] {
    return [...Object.values(this.#spec.needs ?? {}), ...Object.values(this.#spec.wants ?? {})]
  }

  get health(): Health {
    if (this.#down !== undefined || this.#value === undefined) return this.#down ?? OK
    return this.#spec.health?.(this.#value) ?? OK
  }

  /** The part, or undefined when it was not built. */
  peek(): T | undefined {
    return this.#value
  }

  /** The part, or undefined where it was not built or did not start. */
  up(): T | undefined {
    return this.#down === undefined ? this.#value : undefined
  }

  /** @throws why it is not there */
  get(): T {
    if (this.#value === undefined) throw this.#error
    return this.#value
  }

  /** A failure, also of what it needs, is its health, not the node's. */
  build(logger: Logger, owner: Scope): void {
    const { name, needs = {}, wants = {}, off, build } = this.#spec
    const why = off?.call(this.#spec)
    if (why !== undefined) {
      this.#error = new PylonError('conflict', why.message)
      this.#down = { state: 'off', reason: why.reason, nextStep: why.nextStep }
      return
    }
    try {
      const found = [
        ...Object.entries(needs).map(([key, part]) => [key, part.get()] as const),
        ...Object.entries(wants).map(([key, part]) => [key, part.peek()] as const),
      ]
      this.#scope = owner.child(name)
      this.#value = build.call(this.#spec, Object.fromEntries(found), this.#scope)
      this.#down = undefined
    } catch (error) {
      this.#fail(logger, error)
    }
  }

  /** @returns when it runs or has failed */
  start(logger: Logger): Promise<void> {
    return this.#try(logger, (value) => this.#spec.start?.(value))
  }

  reload(logger: Logger): Promise<void> {
    return this.#try(logger, (value) => this.#spec.reload?.(value))
  }

  /** Takes nothing new; what runs has until its own drain time or the node's. @returns what was still running then */
  async stop(logger: Logger, nodeDrainMs: number): Promise<RunningWork[]> {
    if (this.#scope === undefined) return []
    const { clock } = this.#scope
    const drainMs = Math.min(nodeDrainMs, this.#spec.drainMs ?? nodeDrainMs)
    const endAt = clock.now() + drainMs
    try {
      if (this.#value !== undefined) await this.#spec.stop?.(this.#value, drainMs)
    } catch (error) {
      logger.error({ part: this.#spec.name, err: error }, 'a part failed to end')
    }
    return await this.#scope.close(Math.max(0, endAt - clock.now()))
  }

  async #try(logger: Logger, work: (value: T) => void | Promise<void> | undefined): Promise<void> {
    if (this.#value === undefined) return
    try {
      await work(this.#value)
    } catch (error) {
      this.#fail(logger, error)
    }
  }

  #fail(logger: Logger, error: unknown): void {
    this.#error = toPylonError(error)
    this.#down = { state: 'degraded', reason: `${this.#error.code}: ${this.#error.message}`, nextStep: 'pylon doctor' }
    logger.error({ part: this.#spec.name, err: this.#error }, 'a part failed to start; the rest goes on')
  }
}
