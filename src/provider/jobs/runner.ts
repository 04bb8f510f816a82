/** Runs jobs: fetches inputs, waits for a slot, runs the backend within its time, stores the result before it is sent. */
import type { Msats } from '../../base/amounts.ts'
import type { Clock } from '../../base/clock.ts'
import { isPylonError, PylonError, toPylonError } from '../../base/errors.ts'
import type { Scope } from '../../base/scope.ts'
import { untilHeard } from '../../nostr/keys/away.ts'
import type { OutboxEntry } from '../../nostr/types.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import { patchJob } from '../../store/selling/job-steps.ts'
import { getJob } from '../../store/selling/jobs.ts'
import type { Backend } from '../backends/backend.ts'
import { type EngineDeps, newsOf, publish, step, type Ticket, tellable } from './context.ts'
import { givenText, inputTypeOf, type Resolved } from './inputs.ts'
import type { JobProduct } from './job-product.ts'
import { RESULT_KEPT_MS } from './nip90.ts'
import type { Order } from './order.ts'

/** A job that was cut off so often (the node died while it ran) is taken for what kills the node. */
export const MAX_ATTEMPTS = 3
/** Jobs whose inputs are fetched at once. */
const MAX_RESOLVING = 64
/** Of them those of customers who have not paid: what they name may take long to come. */
const MAX_RESOLVING_UNPAID = 48
const [PAID, KNOWN, STRANGER] = [0, 1, 2] as const
/** Longer than any kind of input is waited for. */
const MAX_RESOLVING_MS = 120_000
/** Inline work in one turn of the loop; more waits for the next turn. */
const INLINE_BUDGET_MS = 5

export interface RunnerHooks {
  /** The job needs no place any more: its result is stored, or it failed. */
  onLeft(jobId: string): void
  /** A paid job failed; the refund is due. */
  onRefundDue(jobId: string): void
  isStranger(pubkey: string): boolean
}

/** A job that waits for its inputs, or with them for a slot. */
interface Waiting {
  readonly ticket: Ticket
}

interface Ready extends Waiting {
  readonly input: Resolved
}

type From = 'queued' | 'paid' | 'running' | 'ready'

export class Runner {
  readonly #deps: EngineDeps
  readonly #product: JobProduct
  readonly #hooks: RunnerHooks
  /** Inputs that are being fetched: nobody waits for them once the node ends. */
  readonly #inputs: Scope
  readonly #ready: Ready[] = []
  readonly #unresolved: Waiting[] = []
  /** Jobs that this process has taken, so that none is taken twice. */
  readonly #held = new Set<string>()
  /** What settling needs of those whose result is on its way. */
  readonly #awaiting = new Map<string, { id: string; customerPubkey: string; priceMsats: Msats }>()
  readonly #inline: TurnBudget
  #resolving = 0
  #slots = 0

  constructor(deps: EngineDeps, product: JobProduct, hooks: RunnerHooks) {
    this.#deps = deps
    this.#product = product
    this.#hooks = hooks
    this.#inputs = deps.scope.child('inputs')
    this.#inline = new TurnBudget(deps.scope.clock)
  }

  /** Jobs that wait for inputs or a slot. */
  get waiting(): number {
    return this.#ready.length + this.#unresolved.length + this.#resolving
  }

  /** A slot for a job that could begin at once, so that its claim can say `running` right away; call it to give it back. */
  reserve(order: Order): (() => void) | undefined {
    if (this.#deps.scope.isClosing || givenText(order) === undefined) return undefined
    if (this.#isInline(order)) return () => {}
    if (this.#ready.length > 0 || !this.#hasSlot()) return undefined
    return this.#takeSlot()
  }

  /** Takes a stored job in state queued or paid, or one that was cut off while running. */
  push(ticket: Ticket): void {
    const { order } = ticket
    if (this.#held.has(order.id)) return
    this.#held.add(order.id)
    const text = givenText(order)
    if (text === undefined) this.#stand(this.#unresolved, { ticket })
    else this.#line({ ticket, input: { input: text, inputType: inputTypeOf(order) } })
    this.#pump()
    if (this.waiting > 0) this.#deps.onWaiting()
  }

  /** Takes a job whose claim was committed as `running`, with the slot that was reserved for it. */
  runNow(ticket: Ticket, release: () => void): void {
    const { order } = ticket
    this.#held.add(order.id)
    const input = { input: givenText(order) ?? '', inputType: inputTypeOf(order) }
    this.#spawn(ticket, () => this.#run(ticket, input, release).finally(release))
  }

  /** A relay accepted the result: delivered and settled, once. */
  async onDelivered(jobId: string): Promise<void> {
    const job = this.#awaiting.get(jobId) ?? getJob(this.#deps.store, jobId)
    if (job === undefined) return
    await persistIfUnmoved(this.#deps, ...this.#product.earn(job, this.#now()))
    this.#awaiting.delete(jobId)
  }

  /** Waits for the node's key where that is away and the customer is to be told. @throws shutting_down */
  async fail(ticket: Pick<Ticket, 'order'>, from: From, error: unknown): Promise<void> {
    await untilHeard(this.#deps.scope, () => this.failNow(ticket, from, error))
  }

  /** @throws bunker_unreachable where it cannot be told yet, and nothing has changed */
  async failNow({ order }: Pick<Ticket, 'order'>, from: From, error: unknown): Promise<void> {
    const { transport, logger } = this.#deps
    const { code, message } = toPylonError(error)
    const at = this.#now()
    const back = this.#product.giveBack(order.id, 'failed', at)
    const isOwed = back.length > 0
    // A paid customer hears of the failure together with the refund; who asked nobody by name hears only of work begun.
    const isTold = !isOwed && (order.directed || from === 'running')
    const moved = await persistIfUnmoved(
      this.#deps,
      step(order.id, from, 'failed', `${code}: ${message}`, at, { errorCode: code, error: message }),
      ...back,
      ...(isTold ? [publish(await transport.feedback(order, { status: 'error', code, message: tellable(code, message) }), at)] : []),
    )
    this.#held.delete(order.id)
    if (!moved) return
    logger.info({ job_id: order.id, kind: order.kind, code, error: message }, 'a job failed')
    this.#hooks.onLeft(order.id)
    if (isOwed) this.#hooks.onRefundDue(order.id)
    else this.#deps.nudge()
  }

  /** What is being fetched is dropped at once; what runs has the time of the scope. */
  dropInputs(): void {
    this.#inputs.end()
  }

  #pump(): void {
    if (this.#deps.scope.isClosing) return
    for (;;) {
      const ticket = this.#unresolved[0]?.ticket
      if (ticket === undefined || this.#resolving >= (this.#rankOf(ticket) === STRANGER ? MAX_RESOLVING_UNPAID : MAX_RESOLVING)) break
      this.#unresolved.shift()
      this.#resolving++
      this.#spawn(ticket, () => this.#resolve(ticket))
    }
    while (this.#hasSlot()) {
      const next = this.#ready.shift()
      if (next === undefined) break
      const release = this.#takeSlot()
      this.#spawn(next.ticket, () => this.#beginAndRun(next, release))
    }
  }

  /** Inline work takes no slot. */
  #line(ready: Ready): void {
    if (this.#isInline(ready.ticket.order)) this.#spawn(ready.ticket, () => this.#beginAndRun(ready, () => {}))
    else this.#stand(this.#ready, ready)
  }

  #isInline(order: Order): boolean {
    return this.#deps.backendFor(order.kind)?.inline === true
  }

  /** Who has paid comes first, then who has paid before; in each the order in which they came. */
  #rankOf({ order, isPaid }: Ticket): number {
    return isPaid ? PAID : this.#hooks.isStranger(order.customerPubkey) ? STRANGER : KNOWN
  }

  #stand<T extends Waiting>(line: T[], one: T): void {
    const rank = this.#rankOf(one.ticket)
    let at = line.length
    for (let before = line[at - 1]; before !== undefined && this.#rankOf(before.ticket) > rank; before = line[at - 1]) at--
    line.splice(at, 0, one)
  }

  #hasSlot(): boolean {
    return this.#slots < this.#deps.config().provider.concurrency
  }

  #takeSlot(): () => void {
    this.#slots++
    let isHeld = true
    return () => {
      if (!isHeld) return
      isHeld = false
      this.#slots--
      this.#pump()
    }
  }

  async #resolve(ticket: Ticket): Promise<void> {
    try {
      const input = await this.#inputs.within('fetch', MAX_RESOLVING_MS, (signal) => this.#deps.resolve(ticket.order, signal))
      this.#line({ ticket, input })
    } catch (error) {
      if (!this.#deps.scope.isClosing) await this.fail(ticket, ticket.from, error)
    } finally {
      this.#resolving--
      this.#pump()
    }
  }

  async #beginAndRun({ ticket, input }: Ready, release: () => void): Promise<void> {
    const { order, from } = ticket
    try {
      const at = this.#now()
      if (order.deadline <= at) {
        await this.fail(ticket, from, new PylonError('job_expired', 'The request expired while it waited.'))
        return
      }
      const reason = from === 'running' ? 'cut off by a restart, begins again' : 'its turn came'
      const begun = await persistIfUnmoved(
        this.#deps,
        step(order.id, from, 'running', reason, at, { attempts: ticket.attempts + 1 }),
        ...(await newsOf(this.#deps, order, { status: 'processing' }, at)),
      )
      if (!begun) {
        this.#held.delete(order.id)
        return
      }
      this.#deps.nudge()
      await this.#run(ticket, input, release)
    } finally {
      release()
    }
  }

  /** From `running` on. One that the end of the node cuts off stays so, and begins again at the next start. */
  async #run(ticket: Ticket, input: Resolved, release: () => void): Promise<void> {
    const { order } = ticket
    let output: string
    try {
      const backend = this.#deps.backendFor(order.kind)
      if (backend === undefined) throw new PylonError('backend_unavailable', 'What serves this kind was taken away.')
      output = await this.#runBackend(backend, order, input)
    } catch (error) {
      release()
      if (!isPylonError(error, 'shutting_down')) await this.fail(ticket, 'running', error)
      return
    }
    release()
    await this.#finish(ticket, output)
  }

  async #runBackend(backend: Backend, order: Order, input: Resolved): Promise<string> {
    const limitS = this.#deps.config().provider.job_timeout_s
    const work = { kind: order.kind, params: order.params, output: order.output, ...input }
    try {
      // A backend that does not listen to the signal does not hold the job.
      return await this.#deps.scope.within(nameOf(order), limitS * 1000, (signal) => {
        const start = () => backend.run(work, signal)
        return backend.inline ? this.#inline.run(start) : start()
      })
    } catch (error) {
      if (!isPylonError(error, 'timeout')) throw error
      throw new PylonError('backend_failed', `The job took longer than ${limitS} s and was stopped.`)
    }
  }

  /** Of a job whose result was stored while the key that is to encrypt it was away. @param storedAt since when it waits */
  finishStored(ticket: Ticket, output: string, storedAt: number): void {
    const { id } = ticket.order
    if (this.#held.has(id)) return
    this.#held.add(id)
    this.#spawn(ticket, () => this.#finish(ticket, output, storedAt))
  }

  /** Of the result as it is to be sent. Whatever ends the node while a bunker is asked, the work is not lost. @throws output_too_large, shutting_down */
  async #entryOf(order: Order, output: string, storedAt: number | undefined): Promise<OutboxEntry> {
    const { transport, scope } = this.#deps
    const until = (storedAt ?? this.#now()) + RESULT_KEPT_MS
    // As one that no relay took so long.
    if (until <= this.#now()) throw new PylonError('bunker_unreachable', 'The bunker did not encrypt the result in time.')
    if (storedAt === undefined && transport.isAskedElsewhere(order))
      await persistIfUnmoved(this.#deps, patchJob({ id: order.id, status: 'running', patch: { result: output }, at: this.#now() }))
    return await untilHeard(scope, () => transport.result(order, output), until)
  }

  async #finish(ticket: Ticket, output: string, storedAt?: number): Promise<void> {
    const { order, priceMsats } = ticket
    let entry: OutboxEntry
    try {
      entry = await this.#entryOf(order, output, storedAt)
    } catch (error) {
      if (!isPylonError(error, 'shutting_down')) await this.fail(ticket, 'running', error)
      return
    }
    const at = this.#now()
    this.#awaiting.set(order.id, { id: order.id, customerPubkey: order.customerPubkey, priceMsats })
    const stored = await persistIfUnmoved(
      this.#deps,
      step(order.id, 'running', 'ready', 'the result is stored', at, { result: output, resultEvent: entry.event }),
      publish(entry, at),
    )
    this.#held.delete(order.id)
    if (!stored) {
      this.#awaiting.delete(order.id)
      return
    }
    this.#hooks.onLeft(order.id)
    this.#deps.nudge()
  }

  /** Where it fails the job stays as it is, and goes on at the next start. */
  #spawn({ order }: Ticket, work: () => Promise<void>): void {
    this.#deps.scope.spawn(nameOf(order), work)
  }

  #now(): number {
    return this.#deps.scope.clock.now()
  }
}

const nameOf = ({ id }: Order): string => `job ${id.slice(0, 8)}`

/** Lets short work run at once while the turn has time left, else in a later turn, in order. */
class TurnBudget {
  readonly #clock: Clock
  #spentMs = 0
  #isResetDue = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  async run<T>(start: () => Promise<T>): Promise<T> {
    while (this.#spentMs >= INLINE_BUDGET_MS) await new Promise((resolve) => setImmediate(resolve))
    this.#resetSoon()
    const startedAt = this.#clock.elapsedMs()
    const outcome = start()
    this.#spentMs += this.#clock.elapsedMs() - startedAt
    return outcome
  }

  #resetSoon(): void {
    if (this.#isResetDue) return
    this.#isResetDue = true
    setImmediate(() => {
      this.#isResetDue = false
      this.#spentMs = 0
    })
  }
}
