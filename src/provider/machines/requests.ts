/**
 * Commands as requests that run once: claimed by requester and idempotency key, joined while they run, replayed after.
 *
 *     handle --(in the turn of its requester)--> claim --> begin --> (the next of this requester) ... answer --> kept
 *                 the same key again: joins the flight, with its statuses; after its end: replay
 */
import { isPylonError, messageOf } from '../../base/errors.ts'
import { asJson, asRecord, type Json } from '../../base/json.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { Scope } from '../../base/scope.ts'
import { type ControlCommand, READING_COMMANDS } from '../../nostr/control/commands.ts'
import { type CommandEnvelope, type ControlResult, type ControlStatus, commandDigest } from '../../nostr/control/envelopes.ts'
import type { ControlError } from '../../nostr/control/vocabulary.ts'
import {
  type ControlRequestRow,
  claimRequest,
  finishRequest,
  getRequest,
  noteStatus,
  runningRequests,
} from '../../store/selling/control-requests.ts'
import { attemptIdOf, type Begun, type Claimed, claimedOf, leaseIdOf } from './claims.ts'
import type { MachineDeps } from './deps.ts'
import { fail, toControlError } from './failures.ts'
import type { Emit } from './machines.ts'

/** A command under way. */
interface Flight {
  readonly digest: string
  readonly statuses: ControlStatus[]
  readonly listeners: Set<Emit>
  /** Resolves when the next command of the same requester may begin. */
  readonly begun: PromiseWithResolvers<void>
  readonly result: PromiseWithResolvers<ControlResult>
}

export type RequestsDeps = Pick<MachineDeps, 'store' | 'logger' | 'commands' | 'views' | 'leases'>

export class Requests {
  readonly #scope: Scope
  readonly #deps: RequestsDeps
  readonly #flights = new Map<string, Flight>()
  /** Commands of one requester are taken in one after the other; what takes long then goes on beside the next. */
  readonly #turns = new KeyedQueue()

  constructor(scope: Scope, deps: RequestsDeps) {
    this.#scope = scope
    this.#deps = deps
  }

  /** @throws ControlError idempotency_conflict, shutting_down, or as the command does */
  async handle(requester: string, envelope: CommandEnvelope, emit: Emit): Promise<ControlResult> {
    const { command, idempotencyKey } = envelope
    if (READING_COMMANDS.includes(command.command)) {
      // After what the same requester sent before has been taken in.
      await this.#turns.run(requester, async () => undefined)
      return await this.#deps.commands.read(requester, command)
    }
    const { flight, isJoined } = await this.#turns.run(requester, () => this.#takeIn(requester, envelope, emit))
    if (isJoined) {
      // Where its token is refused, this one alone fails.
      await this.#redeem(getRequest(this.#deps.store, requester, idempotencyKey), command)
      for (const status of flight.statuses) if (this.#holds(status)) emit(status)
      flight.listeners.add(emit)
    }
    try {
      return await flight.result.promise
    } finally {
      flight.listeners.delete(emit)
    }
  }

  /** Goes on with those that a restart found under way, or fails them. @returns ids of the runtimes whose command makes them */
  async resume(): Promise<ReadonlySet<string>> {
    const { store, commands } = this.#deps
    const making = new Set<string>()
    for (const row of runningRequests(store)) {
      const answer = commands.resumed(row)
      if (answer === undefined) {
        await this.#finish(row, 'failed', {
          code: 'shutting_down',
          hint: 'send the command again with the same idempotency key',
          detail: 'the node was restarted meanwhile',
        })
        continue
      }
      const flight = this.#launch(row, row.digest, row.statuses as readonly Json[] as readonly ControlStatus[])
      this.#run(flight, row, () => this.#perform({ ...claimedOf(row), emit: this.#emitter(flight, row) }, answer, flight))
      if (row.command !== 'extend_lease' && row.runtimeId !== null) making.add(row.runtimeId)
    }
    return making
  }

  /** Resolves when the next of this requester may come. */
  async #takeIn(requester: string, envelope: CommandEnvelope, emit: Emit): Promise<{ flight: Flight; isJoined: boolean }> {
    const { idempotencyKey, command } = envelope
    const name = { requester, idempotencyKey }
    const digest = commandDigest(command)
    const known = this.#flights.get(keyOf(name))
    if (known !== undefined) {
      if (known.digest !== digest) throw conflict()
      return { flight: known, isJoined: true }
    }
    if (this.#scope.isClosing) throw fail('shutting_down', 'the node is shutting down')
    // Registered in this turn, so that a second call of the same key can't come in between.
    const flight = this.#launch(name, digest, [])
    flight.listeners.add(emit)
    this.#run(flight, name, () => this.#claimAndPerform(requester, envelope, flight))
    await flight.begun.promise
    return { flight, isJoined: false }
  }

  #launch(name: RequestName, digest: string, statuses: readonly ControlStatus[]): Flight {
    const flight: Flight = {
      digest,
      statuses: [...statuses],
      listeners: new Set(),
      begun: Promise.withResolvers(),
      result: Promise.withResolvers(),
    }
    this.#flights.set(keyOf(name), flight)
    return flight
  }

  #run(flight: Flight, name: RequestName, work: () => Promise<ControlResult>): void {
    const { resolve, reject, promise } = flight.result
    // Whoever rides along hears of its end; one that a restart found may have nobody.
    promise.catch(() => undefined)
    this.#scope
      .run('command', work)
      .finally(() => {
        this.#flights.delete(keyOf(name))
        flight.begun.resolve()
      })
      .then(resolve, reject)
  }

  async #claimAndPerform(requester: string, envelope: CommandEnvelope, flight: Flight): Promise<ControlResult> {
    const { store, views, commands } = this.#deps
    const { idempotencyKey, requestId, command } = envelope
    const name = { requester, idempotencyKey }
    const claim = await store
      .write(claimRequest({ ...name, command: command.command, digest: flight.digest, requestId, at: this.#now() }))
      .catch((error: unknown) => {
        throw isPylonError(error, 'idempotency_conflict') ? conflict() : toControlError(error, 'state_persist_failed')
      })
    if (claim.state === 'new') {
      const claimed = { ...name, attemptId: attemptIdOf(claim), emit: this.#emitter(flight, name) }
      return await this.#perform(claimed, (mine) => commands.begin(command, mine), flight)
    }
    // Running, yet not here: a restart has not come to it yet.
    if (claim.row.state === 'running') throw fail('shutting_down', 'the node has just started and takes this command up again')
    const { statuses, result } = views.replay(claim.row)
    for (const status of statuses) say(flight, status)
    return result
  }

  /** Runs claimed work and keeps how it ended; a shutdown leaves it running, for the next start. */
  async #perform(claimed: Claimed, begin: (claimed: Claimed) => Promise<Begun>, flight: Flight): Promise<ControlResult> {
    const { logger } = this.#deps
    let result: ControlResult
    try {
      const { answer } = await begin(claimed)
      flight.begun.resolve()
      result = await answer
    } catch (error) {
      const failure = toControlError(error, 'internal')
      if (failure.code === 'internal') logger.error({ err: error }, 'a command failed by a fault of ours')
      if (this.#scope.isClosing || failure.code === 'shutting_down') throw fail('shutting_down', 'the node is shutting down')
      try {
        await this.#finish(claimed, 'failed', asJson({ code: failure.code, hint: failure.hint, detail: failure.detail }))
      } catch (second) {
        logger.error({ error: messageOf(second) }, 'the end of a command could not be kept')
      }
      throw failure
    }
    try {
      await this.#finish(claimed, 'succeeded', asJson(result))
    } catch (error) {
      if (isPylonError(error, 'shutting_down')) throw fail('shutting_down', 'the node is shutting down')
      // The work is done: the answer goes out, only its replay is lost.
      logger.error({ error: messageOf(error) }, 'the answer of a command could not be kept')
    }
    return result
  }

  async #finish({ requester, idempotencyKey }: RequestName, state: 'succeeded' | 'failed', terminal: Json): Promise<void> {
    await this.#deps.store.write(finishRequest({ requester, idempotencyKey, state, terminal, at: this.#now() }))
  }

  /** Says a status to all who ride along, and keeps it. */
  #emitter(flight: Flight, { requester, idempotencyKey }: RequestName): Emit {
    const { store, logger } = this.#deps
    return (status) => {
      say(flight, status)
      store.write(noteStatus({ requester, idempotencyKey, status: asJson(status), at: this.#now() })).catch((error: unknown) => {
        logger.warn({ error: messageOf(error) }, 'a status of a command could not be kept')
      })
    }
  }

  /** A token that came with the repeat of a command that waits for payment. */
  async #redeem(row: ControlRequestRow | undefined, command: ControlCommand): Promise<void> {
    const token = 'lease_token' in command ? command.lease_token : undefined
    if (row !== undefined && token !== undefined) await this.#deps.leases.redeem(leaseIdOf(claimedOf(row)), token)
  }

  /** Whether a status that was said before is still so: a bill that was paid is not shown again. */
  #holds({ progress }: ControlStatus): boolean {
    const { payment_required, lease_id } = asRecord(progress)
    return payment_required !== true || typeof lease_id !== 'string' || this.#deps.leases.isDue(lease_id)
  }

  #now(): number {
    return this.#scope.clock.now()
  }
}

interface RequestName {
  readonly requester: string
  readonly idempotencyKey: string
}

const keyOf = ({ requester, idempotencyKey }: RequestName) => `${requester}\n${idempotencyKey}`

function say(flight: Flight, status: ControlStatus): void {
  flight.statuses.push(status)
  for (const listener of flight.listeners) listener(status)
}

function conflict(): ControlError {
  return fail('idempotency_conflict', 'this idempotency key came with another command', 'use a new idempotency key for a new command')
}
