/** One process as it can be killed: after its death no timer of it fires, and no commit of it happens. */
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { pino } from 'pino'
import { type Clock, rfc3339 } from '../../src/base/clock.ts'
import type { Logger } from '../../src/base/logger.ts'
import type { CommitHook } from '../../src/store/store.ts'
import type { VirtualClock } from './clock.ts'

/** A commit at which the process is killed. */
export interface Kill {
  /** How many commits from now on. */
  readonly commits: number
  readonly when: 'before' | 'after'
  onDead(): void
}

/** Its clock and its commits. */
export class Life implements Clock, CommitHook {
  readonly #clock: VirtualClock
  isAlive = true
  #kill: { left: number; readonly when: Kill['when']; onDead(): void } | undefined

  constructor(clock: VirtualClock) {
    this.#clock = clock
  }

  die(): void {
    this.isAlive = false
  }

  killAt({ commits, when, onDead }: Kill): void {
    this.#kill = { left: commits, when, onDead }
  }

  beforeCommit(): void {
    if (this.#kill !== undefined) this.#kill.left--
    this.#dieAt('before')
    if (!this.isAlive) throw new Error('killed')
  }

  afterCommit(): void {
    this.#dieAt('after')
  }

  #dieAt(when: Kill['when']): void {
    if (!this.isAlive || this.#kill === undefined || this.#kill.left > 0 || this.#kill.when !== when) return
    this.die()
    this.#kill.onDead()
  }

  now(): number {
    return this.#clock.now()
  }

  elapsedMs(): number {
    return this.#clock.now()
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return this.isAlive ? this.#clock.sleep(ms, signal) : new Promise(() => undefined)
  }

  after(ms: number, fn: () => void): () => void {
    return this.#clock.after(ms, () => {
      if (this.isAlive) fn()
    })
  }
}

export function loggerOf(name: string, clock: Clock, lines: string[]): Logger {
  const timestamp = () => `,"time":"${rfc3339(clock.now())}"`
  return pino({ level: 'info', base: { node: name }, timestamp }, { write: (line: string) => lines.push(line) })
}

/** In memory where the system has that: a simulation never loses power, so what it commits need not reach a disk. */
export const tempRoot = (): string => (existsSync('/dev/shm') ? '/dev/shm' : tmpdir())
