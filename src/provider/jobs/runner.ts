/** Runs jobs: fetches inputs, waits for a slot, runs the backend within its time, stores the result before it is sent. */
import { type Msats, msats } from '../../base/amounts.ts'
import type { Clock } from '../../base/clock.ts'
import { messageOf, PylonError, toPylonError } from '../../base/errors.ts'
import type { Command } from '../../store/commands.ts'
import { postEntry } from '../../store/money/ledger.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import { getJob } from '../../store/selling/jobs.ts'
import type { Backend } from '../backends/backend.ts'
import { type EngineDeps, publish, step, type Ticket, tellable } from './context.ts'
import { givenText, inputTypeOf, type Resolved } from './inputs.ts'
import type { Order } from './order.ts'
import { settleEntry } from './settlement.ts'

/** A job that was cut off so often (the node died while it ran) is taken for what kills the node. */
export const MAX_ATTEMPTS = 3
/** Jobs whose inputs are fetched at once. */
const MAX_RESOLVING = 64
/** Of them those of customers who have not paid: what they name may take long to come. */
const MAX_RESOLVING_UNPAID = 48
const [PAID, KNOWN, STRANGER] = [0, 1, 2] as const
/** Inline work in one turn of the loop; more waits for the next turn. */
const INLINE_BUDGET_MS = 5

/** After the drain time, for what was parked to wind up. */
const CLOSE_GRACE_MS = 1000

/** Why a running job is given up at shutdown: it stays `running` and begins again at the next start. */
const PARKED = new PylonError('shutting_down', 'The node is shutting down; the job begins again at the next start.')

export interface RunnerHooks {
  /** The job needs no place any more: its result is stored, or it failed. */
  onLeft(jobId: string): void
  /** A paid job failed; the refund is due. */
  onRefundDue(jobId: string): void
  isStranger(pubkey: string): boolean
}

export interface Runner {
  /** Jobs that wait for inputs or a slot. */
  waiting(): number
  /** A slot for a job that could begin at once, so that its claim can say `running` right away; call it to give it back. */
  reserve(order: Order): (() => void) | undefined
  /** Takes a stored job in state queued or paid, or one that was cut off while running. */
  push(ticket: Ticket): void
  /** Takes a job whose claim was committed as `running`, with the slot that was reserved for it. */
  runNow(ticket: Ticket, release: () => void): void
  /** A relay accepted the result: delivered and settled, once. */
  onDelivered(jobId: string): Promise<void>
  fail(ticket: Pick<Ticket, 'order' | 'paidMsats'>, from: 'queued' | 'paid' | 'running' | 'ready', error: unknown): Promise<void>
  /** Starts nothing new, lets what runs finish until the time is over, parks the rest. */
  close(drainTimeoutMs: number): Promise<void>
}

export function createRunner(deps: EngineDeps, hooks: RunnerHooks): Runner {
  const { store, clock, transport, logger } = deps
  const ready: { ticket: Ticket; input: Resolved }[] = []
  const unresolved: { ticket: Ticket }[] = []
  /** Jobs that this process has taken, so that none is taken twice. */
  const held = new Set<string>()
  const running = new Map<string, AbortController>()
  const awaiting = new Map<string, { customerPubkey: string; priceMsats: Msats; paidMsats: Msats }>()
  const resolving = new AbortController()
  const tasks = new Set<Promise<void>>()
  const inline = createTurnBudget(clock)
  let resolvingCount = 0
  let slots = 0
  let closing = false

  function track(work: Promise<void>, jobId: string): void {
    const task = work
      .catch((error: unknown) => {
        if (!closing) logger.error({ job_id: jobId, error: messageOf(error) }, 'the job was left as it is; it goes on at the next start')
      })
      .finally(() => tasks.delete(task))
    tasks.add(task)
  }

  async function allDone(): Promise<void> {
    while (tasks.size > 0) await Promise.allSettled([...tasks])
  }

  function pump(): void {
    if (closing) return
    for (;;) {
      const ticket = unresolved[0]?.ticket
      if (ticket === undefined || resolvingCount >= (rankOf(ticket) === STRANGER ? MAX_RESOLVING_UNPAID : MAX_RESOLVING)) break
      unresolved.shift()
      track(resolve(ticket), ticket.order.id)
    }
    while (ready.length > 0 && slots < deps.config().provider.concurrency) {
      const next = ready.shift()
      if (next === undefined) break
      slots++
      track(beginAndRun(next.ticket, next.input, releaseOnce()), next.ticket.order.id)
    }
  }

  /** Who has paid comes first, then who has paid before; in each the order in which they came. */
  function rankOf({ order, paidMsats }: Ticket): number {
    return paidMsats > 0n ? PAID : hooks.isStranger(order.customerPubkey) ? STRANGER : KNOWN
  }

  function stand<T extends { readonly ticket: Ticket }>(line: T[], one: T): void {
    const rank = rankOf(one.ticket)
    let at = line.length
    for (let before = line[at - 1]; before !== undefined && rankOf(before.ticket) > rank; before = line[at - 1]) at--
    line.splice(at, 0, one)
  }

  function releaseOnce(): () => void {
    let held = true
    return () => {
      if (!held) return
      held = false
      slots--
      pump()
    }
  }

  async function resolve(ticket: Ticket): Promise<void> {
    resolvingCount++
    try {
      const input = await orAborted(deps.resolve(ticket.order, resolving.signal), resolving.signal)
      if (deps.backendFor(ticket.order.kind)?.inline === true)
        track(
          beginAndRun(ticket, input, () => undefined),
          ticket.order.id,
        )
      else stand(ready, { ticket, input })
    } catch (error) {
      if (!closing) await fail(ticket, ticket.from, error)
    } finally {
      resolvingCount--
      pump()
    }
  }

  async function beginAndRun(ticket: Ticket, input: Resolved, release: () => void): Promise<void> {
    try {
      if (ticket.order.deadline <= clock.now()) {
        await fail(ticket, ticket.from, new PylonError('job_expired', 'The request expired while it waited.'))
        return
      }
      const at = clock.now()
      const reason = ticket.from === 'running' ? 'cut off by a restart, begins again' : 'its turn came'
      const begun = await persistIfUnmoved(
        deps,
        step(ticket.order.id, ticket.from, 'running', reason, at, { attempts: ticket.attempts + 1 }),
        publish(transport.feedback(ticket.order, { status: 'processing' }), at),
      )
      if (!begun) {
        held.delete(ticket.order.id)
        return
      }
      deps.nudge()
      await run(ticket, input, release)
    } finally {
      release()
    }
  }

  /** From `running` on. */
  async function run(ticket: Ticket, input: Resolved, release: () => void): Promise<void> {
    const { order } = ticket
    let output: string
    try {
      const backend = deps.backendFor(order.kind)
      if (backend === undefined) throw new PylonError('backend_unavailable', 'What serves this kind was taken away.')
      output = await runBackend(backend, ticket, input)
    } catch (error) {
      release()
      if (error !== PARKED) await fail(ticket, 'running', error)
      return
    }
    release()
    await finish(ticket, output)
  }

  async function runBackend(backend: Backend, ticket: Ticket, input: Resolved): Promise<string> {
    const { order } = ticket
    const controller = new AbortController()
    const limitS = deps.config().provider.job_timeout_s
    running.set(order.id, controller)
    const cancelTimeout = clock.after(limitS * 1000, () => {
      controller.abort(new PylonError('backend_failed', `The job took longer than ${limitS} s and was stopped.`))
    })
    try {
      if (closing) throw PARKED
      const work = { kind: order.kind, params: order.params, output: order.output, ...input }
      const start = () => backend.run(work, controller.signal)
      // A backend that does not listen to the signal must not hold the job.
      return await orAborted(backend.inline ? inline.run(start) : start(), controller.signal)
    } finally {
      cancelTimeout()
      running.delete(order.id)
    }
  }

  async function finish(ticket: Ticket, output: string): Promise<void> {
    const { order } = ticket
    let commands: Command<unknown>[]
    const at = clock.now()
    try {
      const entry = transport.result(order, output)
      commands = [
        step(order.id, 'running', 'ready', 'the result is stored', at, { result: output, resultEvent: entry.event }),
        publish(entry, at),
      ]
    } catch (error) {
      await fail(ticket, 'running', error)
      return
    }
    awaiting.set(order.id, { customerPubkey: order.customerPubkey, priceMsats: ticket.priceMsats, paidMsats: ticket.paidMsats })
    const stored = await persistIfUnmoved(deps, ...commands)
    held.delete(order.id)
    if (!stored) {
      awaiting.delete(order.id)
      return
    }
    hooks.onLeft(order.id)
    deps.nudge()
  }

  async function fail(
    ticket: Pick<Ticket, 'order' | 'paidMsats'>,
    from: 'queued' | 'paid' | 'running' | 'ready',
    error: unknown,
  ): Promise<void> {
    const { order, paidMsats } = ticket
    const { code, message } = toPylonError(error)
    const at = clock.now()
    const commands: Command<unknown>[] = [step(order.id, from, 'failed', `${code}: ${message}`, at, { errorCode: code, error: message })]
    // A paid customer hears of the failure together with the refund; who asked nobody by name hears only of work begun.
    if (paidMsats > 0n) commands.push(step(order.id, 'failed', 'refunding', 'what was paid goes back', at))
    else if (order.directed || from === 'running')
      commands.push(publish(transport.feedback(order, { status: 'error', code, message: tellable(code, message) }), at))
    const moved = await persistIfUnmoved(deps, ...commands)
    held.delete(order.id)
    if (!moved) return
    logger.info({ job_id: order.id, kind: order.kind, code, error: message }, 'a job failed')
    hooks.onLeft(order.id)
    if (paidMsats > 0n) hooks.onRefundDue(order.id)
    else deps.nudge()
  }

  return {
    waiting: () => ready.length + unresolved.length + resolvingCount,

    reserve(order) {
      if (closing || givenText(order) === undefined) return undefined
      if (deps.backendFor(order.kind)?.inline === true) return () => undefined
      if (ready.length > 0 || slots >= deps.config().provider.concurrency) return undefined
      slots++
      return releaseOnce()
    },

    push(ticket) {
      if (held.has(ticket.order.id)) return
      held.add(ticket.order.id)
      const input = givenText(ticket.order)
      if (input === undefined) stand(unresolved, { ticket })
      else if (deps.backendFor(ticket.order.kind)?.inline === true) {
        track(
          beginAndRun(ticket, { input, inputType: inputTypeOf(ticket.order) }, () => undefined),
          ticket.order.id,
        )
      } else stand(ready, { ticket, input: { input, inputType: inputTypeOf(ticket.order) } })
      pump()
      if (ready.length + unresolved.length + resolvingCount > 0) deps.onWaiting()
    },

    runNow(ticket, release) {
      held.add(ticket.order.id)
      const input = { input: givenText(ticket.order) ?? '', inputType: inputTypeOf(ticket.order) }
      track(run(ticket, input, release).finally(release), ticket.order.id)
    },

    async onDelivered(jobId) {
      const known = awaiting.get(jobId) ?? getJob(store, jobId)
      if (known === undefined) return
      const at = clock.now()
      const entry = settleEntry({
        id: jobId,
        priceMsats: msats(known.priceMsats),
        paidMsats: known.paidMsats,
        internal: known.paidMsats > 0n && deps.owns(known.customerPubkey),
        at,
      })
      await persistIfUnmoved(
        deps,
        step(jobId, 'ready', 'delivered', 'a relay accepted the result', at),
        step(jobId, 'delivered', 'settled', entry === undefined ? 'nothing to settle' : 'the payment is earned', at),
        ...(entry === undefined ? [] : [postEntry(entry)]),
      )
      awaiting.delete(jobId)
    },

    fail,

    async close(drainTimeoutMs) {
      closing = true
      resolving.abort(PARKED)
      const park = () => {
        for (const controller of running.values()) controller.abort(PARKED)
      }
      if (drainTimeoutMs <= 0) park()
      const cancel = clock.after(drainTimeoutMs, park)
      // A commit that waits for disk space must not hold the shutdown: the job is where the database says.
      const given = new AbortController()
      const over = clock.sleep(drainTimeoutMs + CLOSE_GRACE_MS, given.signal).catch(() => undefined)
      await Promise.race([allDone(), over])
      given.abort()
      cancel()
    },
  }
}

/** Lets short work run at once while the turn has time left, else in a later turn, in order. */
function createTurnBudget(clock: Clock): { run<T>(start: () => Promise<T>): Promise<T> } {
  let spentMs = 0
  let resetScheduled = false
  const scheduleReset = () => {
    if (resetScheduled) return
    resetScheduled = true
    setImmediate(() => {
      resetScheduled = false
      spentMs = 0
    })
  }
  return {
    async run(start) {
      while (spentMs >= INLINE_BUDGET_MS) await new Promise((resolve) => setImmediate(resolve))
      scheduleReset()
      const startedAtMs = clock.elapsedMs()
      const outcome = start()
      spentMs += clock.elapsedMs() - startedAtMs
      return outcome
    },
  }
}

/** The outcome of the work, or the signal's reason as soon as it is aborted. */
async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort = () => {}
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
