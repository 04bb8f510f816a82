/** Writes what a guest says of itself: status.json, events.jsonl and result.json, each whole or not at all, in this order. */
import { closeSync, constants, fstatSync, fsyncSync, mkdirSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Clock, rfc3339 } from '../base/clock.ts'
import { writeFileAtomic } from '../base/files.ts'
import { parseJson } from '../base/json.ts'
import { bootId } from '../base/process-identity.ts'
import {
  type GuestState,
  LIFECYCLE_SCHEMA_VERSION,
  type LifecycleDetails,
  type LifecycleState,
  mayFollow,
  type RuntimeEvent,
  type RuntimeStatusSnapshot,
  type RuntimeTerminalResult,
} from '../runtime/contract/lifecycle.ts'
import type { RuntimePaths } from '../runtime/contract/paths.ts'
import { openForAppend } from './log-sink.ts'

/** Past this no event is written: a guest that restarts for ever must not fill its disk with its own story. */
const MAX_EVENTS_BYTES = 2 * 1024 * 1024
const MAX_MESSAGE = 2000
/** Enough of the file's end to hold its last line. */
const TAIL_BYTES = 64 * 1024
/** What runs inside may put a pipe or a link in the place of any file here: neither is waited for nor followed. */
const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants

export interface Terminal {
  readonly state: 'completed' | 'failed'
  readonly message: string
  readonly exitCode?: number
  readonly details?: LifecycleDetails
}

export class LifecycleWriter {
  readonly #paths: RuntimePaths
  readonly #clock: Clock
  readonly #bootId: string | null
  #seq: number
  #state: GuestState | undefined
  #finished = false

  /** Makes the folders, forgets the result of an earlier run, goes on counting where its events ended. */
  constructor(paths: RuntimePaths, clock: Clock) {
    this.#paths = paths
    this.#clock = clock
    this.#bootId = bootId()
    for (const file of [paths.status_path, paths.events_path, paths.result_path, paths.guest_log_path]) {
      mkdirSync(dirname(file), { recursive: true })
    }
    for (const dir of [paths.logs_dir, paths.artifacts_dir]) mkdirSync(dir, { recursive: true })
    rmSync(paths.result_path, { recursive: true, force: true })
    this.#seq = lastSeq(paths.events_path) + 1
  }

  booted(message: string): void {
    this.#write('booted', message, undefined)
  }

  /** @throws Error for a move that the lifecycle does not have: a fault of the caller */
  enter(state: 'starting' | 'ready', message: string, details?: LifecycleDetails): void {
    this.#move(state)
    this.#write(state, message, details)
  }

  /** The last word; calls after the first do nothing. A status that cannot be written keeps no result back. */
  finish(terminal: Terminal): void {
    if (this.#finished) return
    this.#finished = true
    // A guest may end before it began: failing is always allowed.
    if (this.#state !== undefined) this.#move(terminal.state)
    const exit = terminal.exitCode === undefined ? {} : { exit_code: terminal.exitCode }
    const details = terminal.details === undefined && terminal.exitCode === undefined ? undefined : { ...terminal.details, ...exit }
    try {
      this.#write(terminal.state, terminal.message, details)
    } catch {
      // The result says the same.
    }
    const result: RuntimeTerminalResult = {
      schema_version: LIFECYCLE_SCHEMA_VERSION,
      status: terminal.state,
      finished_at: rfc3339(this.#clock.now()),
      message: terminal.message.slice(0, MAX_MESSAGE),
      ...exit,
      ...(terminal.details === undefined ? {} : { details: terminal.details }),
    }
    replaceFile(this.#paths.result_path, `${JSON.stringify(result)}\n`)
  }

  #move(state: GuestState): void {
    if (this.#state !== undefined && !mayFollow(this.#state, state)) throw new Error(`A guest does not go from ${this.#state} to ${state}.`)
    this.#state = state
  }

  #write(state: LifecycleState, message: string, details: LifecycleDetails | undefined): void {
    const at = rfc3339(this.#clock.now())
    const common = {
      message: message.slice(0, MAX_MESSAGE),
      ...(this.#bootId === null ? {} : { boot_id: this.#bootId }),
      ...(details === undefined ? {} : { details }),
    }
    const status: RuntimeStatusSnapshot = { schema_version: LIFECYCLE_SCHEMA_VERSION, state, updated_at: at, ...common }
    replaceFile(this.#paths.status_path, `${JSON.stringify(status)}\n`)
    this.#append({ schema_version: LIFECYCLE_SCHEMA_VERSION, seq: this.#seq, timestamp: at, kind: state, ...common })
  }

  /** An event that cannot be written is lost; status and result are not. */
  #append(event: RuntimeEvent): void {
    const fd = openForAppend(this.#paths.events_path)
    if (fd === undefined) return
    try {
      if (fstatSync(fd).size > MAX_EVENTS_BYTES) return
      writeSync(fd, `${JSON.stringify(event)}\n`)
      fsyncSync(fd)
      this.#seq++
    } catch {
      // A full disk.
    } finally {
      closeSync(fd)
    }
  }
}

/** Whole or not at all, also where something else has taken the place. */
function replaceFile(path: string, text: string): void {
  try {
    writeFileAtomic(path, text, 0o644)
  } catch {
    rmSync(path, { recursive: true, force: true })
    writeFileAtomic(path, text, 0o644)
  }
}

/** The seq of the last whole line, or 0. */
function lastSeq(path: string): number {
  let fd: number
  try {
    fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  } catch {
    return 0
  }
  try {
    const stat = fstatSync(fd)
    if (!stat.isFile()) return 0
    const { size } = stat
    const tail = Buffer.alloc(Math.min(size, TAIL_BYTES))
    readSync(fd, tail, 0, tail.length, size - tail.length)
    for (const line of tail.toString('utf8').trimEnd().split('\n').reverse()) {
      const value = parseJson(line)
      const seq = typeof value === 'object' && value !== null && 'seq' in value ? value.seq : undefined
      if (typeof seq === 'number' && Number.isSafeInteger(seq)) return seq
    }
    return 0
  } finally {
    closeSync(fd)
  }
}
