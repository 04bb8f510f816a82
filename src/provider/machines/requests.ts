/** Commands as requests that run once: claimed by requester and idempotency key, joined while they run, replayed after. */
import { createHash } from 'node:crypto'
import type { Clock } from '../../base/clock.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import { asJson, type Json } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import { type CommandEnvelope, type ControlResult, type ControlStatus, commandDigest } from '../../nostr/control/envelopes.ts'
import type { ControlError } from '../../nostr/control/vocabulary.ts'
import { type ControlRequestRow, claimRequest, finishRequest, getRequest, noteStatus } from '../../store/selling/control-requests.ts'
import type { Store } from '../../store/store.ts'
import { fail, toControlError } from './failures.ts'

export type Emit = (status: ControlStatus) => void

/** A claimed command while it runs. */
export interface Claimed {
  readonly requester: string
  readonly idempotencyKey: string
  /** Sets one try apart from the next of the same key. */
  readonly attemptId: string
  readonly emit: Emit
}

interface Flight {
  readonly digest: string
  readonly statuses: ControlStatus[]
  readonly listeners: Set<Emit>
  readonly result: Promise<ControlResult>
}

export interface RequestDesk {
  /**
   * Runs a command once. @param work is called for a new one alone
   * @param replay makes the answer of one that has succeeded, as things are now
   * @param onJoin is called with a command that joins one under way; where it rejects, this one alone fails
   * @throws ControlError idempotency_conflict, shutting_down, or what the work or onJoin threw
   */
  once(
    requester: string,
    envelope: CommandEnvelope,
    emit: Emit,
    handlers: {
      work: (claimed: Claimed) => Promise<ControlResult>
      replay: (row: ControlRequestRow) => { statuses: readonly ControlStatus[]; result: ControlResult }
      onJoin: (row: ControlRequestRow | undefined) => Promise<void>
      /** Whether a status that was said before is still so: a bill that was paid is not shown again. */
      holds: (status: ControlStatus) => boolean
    },
  ): Promise<ControlResult>
  /** Goes on with one that a restart found under way. */
  resume(row: ControlRequestRow, work: (claimed: Claimed) => Promise<ControlResult>): Promise<void>
  close(): Promise<void>
}

export function createRequestDesk(deps: { store: Store; clock: Clock; logger: Logger }): RequestDesk {
  const { store, clock, logger } = deps
  const flights = new Map<string, Flight>()
  let closing = false
  const keyOf = (requester: string, idempotencyKey: string) => `${requester}\n${idempotencyKey}`

  /** Registers synchronously, so that a second call of the same key can't come in between. */
  function launch(
    name: { requester: string; idempotencyKey: string; digest: string },
    first: readonly ControlStatus[],
    run: (emit: Emit, say: Emit) => Promise<ControlResult>,
  ): Flight {
    const key = keyOf(name.requester, name.idempotencyKey)
    const statuses = [...first]
    const listeners = new Set<Emit>()
    const say: Emit = (status) => {
      statuses.push(status)
      for (const listener of listeners) listener(status)
    }
    const emit: Emit = (status) => {
      say(status)
      const { requester, idempotencyKey } = name
      store.write(noteStatus({ requester, idempotencyKey, status: asJson(status), at: clock.now() })).catch((error: unknown) => {
        logger.warn({ error: messageOf(error) }, 'a status of a command could not be kept')
      })
    }
    // A turn later, so that the flight is known before anything runs.
    const result = Promise.resolve()
      .then(() => run(emit, say))
      .finally(() => flights.delete(key))
    result.catch(() => undefined)
    const flight: Flight = { digest: name.digest, statuses, listeners, result }
    flights.set(key, flight)
    return flight
  }

  async function ride(flight: Flight, emit: Emit, holds: (status: ControlStatus) => boolean): Promise<ControlResult> {
    for (const status of flight.statuses) if (holds(status)) emit(status)
    flight.listeners.add(emit)
    try {
      return await flight.result
    } finally {
      flight.listeners.delete(emit)
    }
  }

  /** Runs claimed work and keeps how it ended; a shutdown leaves it running, for the next start. */
  async function perform(claimed: Claimed, work: (claimed: Claimed) => Promise<ControlResult>): Promise<ControlResult> {
    const { requester, idempotencyKey } = claimed
    const finish = async (state: 'succeeded' | 'failed', terminal: Json) =>
      await store.write(finishRequest({ requester, idempotencyKey, state, terminal, at: clock.now() }))
    let result: ControlResult
    try {
      result = await work(claimed)
    } catch (error) {
      const failure = toControlError(error, 'internal')
      if (failure.code === 'internal') logger.error({ err: error }, 'a command failed by a fault of ours')
      if (closing || failure.code === 'shutting_down') throw fail('shutting_down', 'the node is shutting down')
      await finish('failed', asJson({ code: failure.code, hint: failure.hint, detail: failure.detail })).catch((second: unknown) => {
        logger.error({ error: messageOf(second) }, 'the end of a command could not be kept')
      })
      throw failure
    }
    await finish('succeeded', asJson(result)).catch((error: unknown) => {
      if (isPylonError(error, 'shutting_down')) throw fail('shutting_down', 'the node is shutting down')
      // The work is done: the answer goes out, only its replay is lost.
      logger.error({ error: messageOf(error) }, 'the answer of a command could not be kept')
    })
    return result
  }

  return {
    async once(requester, envelope, emit, handlers) {
      const { idempotencyKey, requestId, command } = envelope
      const digest = commandDigest(command)
      const known = flights.get(keyOf(requester, idempotencyKey))
      if (known !== undefined) {
        if (known.digest !== digest) throw conflict()
        await handlers.onJoin(getRequest(store, requester, idempotencyKey))
        return await ride(known, emit, handlers.holds)
      }
      if (closing) throw fail('shutting_down', 'the node is shutting down')
      const flight = launch({ requester, idempotencyKey, digest }, [], async (tell, say) => {
        const at = clock.now()
        const claim = await store
          .write(claimRequest({ requester, idempotencyKey, command: command.command, digest, requestId, at }))
          .catch((error: unknown) => {
            throw isPylonError(error, 'idempotency_conflict') ? conflict() : toControlError(error, 'state_persist_failed')
          })
        if (claim.state === 'new') {
          return await perform({ requester, idempotencyKey, attemptId: attemptIdOf(claim), emit: tell }, handlers.work)
        }
        // Running, yet not here: a restart has not come to it yet.
        if (claim.row.state === 'running') throw fail('shutting_down', 'the node has just started and takes this command up again')
        const { statuses, result } = handlers.replay(claim.row)
        for (const status of statuses) say(status)
        return result
      })
      return await ride(flight, emit, handlers.holds)
    },

    async resume(row, work) {
      const name = { requester: row.requester, idempotencyKey: row.idempotencyKey, digest: row.digest }
      const said = row.statuses as readonly Json[] as readonly ControlStatus[]
      const flight = launch(name, said, (emit) => perform({ ...name, attemptId: attemptIdOf(row), emit }, work))
      await flight.result.catch(() => undefined)
    },

    async close() {
      closing = true
      await Promise.allSettled([...flights.values()].map((flight) => flight.result))
    },
  }
}

function conflict(): ControlError {
  return fail('idempotency_conflict', 'this idempotency key came with another command', 'use a new idempotency key for a new command')
}

export const attemptIdOf = (row: Pick<ControlRequestRow, 'createdAt' | 'attempts'>): string => `${row.createdAt}.${row.attempts}`

/** The same for the same try of the same command, so that a restart, and a repeat, find the lease again. */
export function leaseIdOf(claimed: Omit<Claimed, 'emit'>): string {
  const name = [claimed.requester, claimed.idempotencyKey, claimed.attemptId].join('\n')
  return createHash('sha256').update(`pylon lease\n${name}`).digest('hex').slice(0, 32)
}
