/** The job engine: admits orders, has them paid and run, cancels, and after a restart goes on where each job was. */

import { type Msats, msats } from '../../base/amounts.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { JobState } from '../../base/states.ts'
import { isUnheard } from '../../nostr/keys/away.ts'
import { all, type Command } from '../../store/commands.ts'
import { JOB_ID_LENGTH } from '../../store/keys.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import { claimJob } from '../../store/selling/job-steps.ts'
import {
  getJob,
  isKnownJob,
  type JobRow,
  jobsInState,
  openJobs,
  refusedResults,
  rememberCancellation,
  undeliveredJobs,
} from '../../store/selling/jobs.ts'
import type { WalletEvent } from '../../wallet/types.ts'
import { Budget } from '../budget.ts'
import { priceOf } from '../pricing.ts'
import { Sales } from '../sale/sales.ts'
import { judgeOrder, type Refusal } from './admission.ts'
import { factsOf } from './appraisal.ts'
import { type EngineDeps, newsOf, publish, step, type Ticket, tellable } from './context.ts'
import { JobProduct, type JobSale } from './job-product.ts'
import { RESULT_KEPT_MS } from './nip90.ts'
import { Occupancy } from './occupancy.ts'
import { type Order, RESULT_KEY_PREFIX } from './order.ts'
import { Payments } from './payments.ts'
import { Retention } from './retention.ts'
import { MAX_ATTEMPTS, Runner } from './runner.ts'
import { isCancellable, OPEN_STATES } from './states.ts'
import { Strangers } from './strangers.ts'

const SWEEP_MS = 5000
/** How long the first mint is waited for, and how often it is looked for. */
const MINT_WAIT_MS = 5000
const MINT_LOOK_MS = 200
/** Refusals that one key is answered with in an hour; after that it is ignored. */
const REFUSALS_PER_HOUR = 60
const HOUR_MS = 3_600_000

export class Engine {
  /** What is let in of customers who have not paid here. */
  readonly strangers: Strangers
  readonly #deps: EngineDeps
  readonly #occupancy = new Occupancy()
  readonly #claimsUnderWay = new Occupancy()
  readonly #refusals = new Budget(REFUSALS_PER_HOUR, HOUR_MS)
  /** Claims and cancel requests of one job, one after the other. */
  readonly #turns = new KeyedQueue()
  readonly #product: JobProduct
  readonly #sales: Sales<JobSale>
  readonly #payments: Payments
  readonly #runner: Runner
  readonly #retention: Retention
  /** Jobs of before the start that go on once the key answers that opens their requests, or answers their customers. */
  readonly #late = new Map<string, { readonly state: JobState; readonly go: (job: JobRow) => void | Promise<void> }>()

  constructor(deps: EngineDeps) {
    this.#deps = deps
    const onLeft = (jobId: string) => this.#onLeft(jobId)
    this.strangers = new Strangers(deps, (jobId) => deps.scope.spawn('give up a place', () => this.#giveUpPlace(jobId)))
    const isStranger = (pubkey: string) => this.strangers.is(pubkey)
    this.#product = new JobProduct(deps, {
      onPaid: (ticket) => this.#onPaid(ticket),
      onLeft,
      tokenFailed: (jobId, reason) => this.#payments.tokenFailed(jobId, reason),
    })
    this.#sales = new Sales(deps, this.#product)
    this.#payments = new Payments(deps, this.#sales, { onLeft, isStranger })
    this.#runner = new Runner(deps, this.#product, { onLeft, onRefundDue: (jobId) => this.#sales.refunds.wake(jobId), isStranger })
    this.#retention = new Retention(deps)
  }

  /** Runs `open` at most once at a time for an id that was not claimed yet. @throws shutting_down */
  once(id: string, open: () => Promise<void>): Promise<void> {
    return this.#deps.scope.run('claim', () =>
      this.#turns.run(id, async () => {
        if (isKnownJob(this.#deps.store, id)) return
        try {
          await open()
        } catch (error) {
          if (!isPylonError(error, 'conflict')) throw error
        }
      }),
    )
  }

  /** Claims the order as what it becomes: refused, cancelled, queued, running, or received and to be paid. Resolves once that is on disk. */
  async admit(order: Order): Promise<void> {
    const { store, scope } = this.#deps
    await this.#mintSoon(order.kind)
    const { id, customerPubkey } = order
    const facts = factsOf(this.#deps, order, {
      open: this.#occupancy.of(customerPubkey),
      claims: this.#claimsUnderWay.of(customerPubkey),
      waiting: this.#runner.waiting,
    })
    const { priceMsats } = facts
    const verdict = judgeOrder(order, facts)
    if (verdict.type === 'refuse') return await this.refuse(order, verdict)
    if (verdict.type === 'cancelled') {
      const cancelled = step(id, 'received', 'cancelled', 'the cancel request came first', scope.clock.now())
      await store.write(all(this.#claim(order, priceMsats, 'none', false), cancelled))
      if (order.token !== undefined) await this.#payments.sayLeftAlone(order)
      return
    }
    this.#occupancy.add(id, customerPubkey)
    this.#claimsUnderWay.add(id, customerPubkey)
    try {
      if (verdict.type === 'run') await this.#runFree(order, priceMsats)
      else await store.write(this.#claim(order, priceMsats, verdict.type === 'redeem' ? 'token' : 'invoice'))
    } catch (error) {
      // Somebody else's claim of the same id keeps its own place in the count.
      if (!isPylonError(error, 'conflict')) this.#occupancy.remove(id)
      throw error
    } finally {
      this.#claimsUnderWay.remove(id)
    }
    if (verdict.type === 'redeem') scope.spawn('redeem', () => this.#payments.redeem(order, priceMsats, 'received'))
    if (verdict.type === 'quote') scope.spawn('quote', () => this.#payments.quote(order, priceMsats, verdict.underBid))
  }

  /** Stores and answers a refusal, where the request named us. @param relays finds where to answer, only when it is answered */
  async refuse(asked: Order, { code, message }: Refusal, relays?: () => Promise<readonly string[]>): Promise<void> {
    const { scope, transport, logger } = this.#deps
    if (!this.#mayAnswer(asked, code)) return
    const order = relays === undefined ? asked : { ...asked, answerRelays: await relays() }
    const at = scope.clock.now()
    await persistIfUnmoved(
      this.#deps,
      this.#claim(order, msats(0), 'none', false),
      step(order.id, 'received', 'refused', `${code}: ${message}`, at, { errorCode: code, error: message }),
      publish(await transport.feedback(order, { status: 'error', code, message: tellable(code, message) }), at),
    )
    logger.info({ job_id: order.id, kind: order.kind, code }, 'a job was refused')
    this.#deps.nudge()
  }

  /** Says that there is no room, and stores nothing: the same request may come again. */
  async turnAway(order: Order, { code, message }: Refusal): Promise<void> {
    if (!this.#mayAnswer(order, code)) return
    const { store, transport, scope } = this.#deps
    await store.write(publish(await transport.feedback(order, { status: 'error', code, message }), scope.clock.now()))
    this.#deps.nudge()
  }

  /** Gives back the place of a request that did not become an open job. */
  settleDoor(jobId: string): void {
    if (!this.#occupancy.has(jobId)) this.strangers.leave(jobId)
  }

  /** Cancels by the customer's own word; remembered when the job is not here yet. */
  async cancel(jobIds: readonly string[], pubkey: string, eventId: string): Promise<void> {
    const { store, scope } = this.#deps
    const unknown: string[] = []
    for (const id of jobIds) {
      // After a claim under way: the cancel request meets the job or is there before it.
      await this.#turns.run(id, async () => {
        const job = getJob(store, id)
        if (job === undefined) unknown.push(id)
        else if (job.customerPubkey === pubkey && isCancellable(job.status)) await this.#cancelOne(job)
      })
    }
    if (unknown.length > 0) await store.write(rememberCancellation({ jobIds: unknown, pubkey, eventId, at: scope.clock.now() }))
  }

  onWalletEvent = (event: WalletEvent): Promise<void> => this.#sales.onWalletEvent(event)

  /** The outbox's word that a relay accepted an entry of this key. */
  onPublished = async (key: string): Promise<void> => {
    if (key.startsWith(RESULT_KEY_PREFIX)) await this.#runner.onDelivered(jobIn(key))
  }

  /** Its word that no relay takes an entry of this key, with theirs: the customer may have named more, else the job has failed. */
  onGivenUp = async (key: string, why: string): Promise<void> => {
    const { store, transport, scope } = this.#deps
    const job = getJob(store, jobIn(key))
    if (job?.status !== 'ready') return
    const again = key === `${RESULT_KEY_PREFIX}${job.id}` ? await transport.resultElsewhere(job) : undefined
    if (again === undefined) return await this.#failDelivery(job, `No relay took the result: ${why}`)
    await store.write(publish(again, scope.clock.now()))
    this.#deps.nudge()
  }

  /** Goes on with every job that has not ended. */
  async start(): Promise<void> {
    const { scope } = this.#deps
    await this.#resume()
    await this.#sweep()
    this.#deps.nudge()
    scope.every('sweep', SWEEP_MS, () => this.#sweep())
  }

  /** Before its scope closes, which lets finish what runs and parks the rest. */
  dropInputs(): void {
    this.#runner.dropInputs()
  }

  #onLeft(jobId: string): void {
    this.#occupancy.remove(jobId)
    this.strangers.leave(jobId)
  }

  #onPaid(ticket: Ticket): void {
    const { id, customerPubkey } = ticket.order
    this.#occupancy.add(id, customerPubkey)
    this.strangers.leave(id)
    this.strangers.paid(customerPubkey)
    this.#runner.push(ticket)
  }

  #claim(order: Order, priceMsats: Msats, paymentMethod: JobRow['paymentMethod'], stored = true): Command<void> {
    return claimJob({
      job: { ...order, transport: 'nip90', request: stored ? order.request : null, priceMsats, paymentMethod },
      at: this.#deps.scope.clock.now(),
      reason: order.directed ? 'ordered from us' : 'ordered from anyone',
    })
  }

  #mayAnswer(order: Order, code: string): boolean {
    const { customerPubkey } = order
    const isInBudget = order.directed && this.#refusals.take(customerPubkey, this.#deps.scope.clock.now())
    const may = isInBudget && (!this.strangers.is(customerPubkey) || this.strangers.mayAnswer())
    if (!may) this.#deps.logger.debug({ job_id: order.id, kind: order.kind, code }, 'a request was passed over')
    return may
  }

  /** An invoice that nobody paid for a while makes room for another. It stays good: who pays it is served as one who pays late. */
  async #giveUpPlace(jobId: string): Promise<void> {
    const expired = step(jobId, 'quoted', 'expired', 'its place was needed for others', this.#deps.scope.clock.now())
    if (await persistIfUnmoved(this.#deps, expired)) this.#onLeft(jobId)
  }

  async #runFree(order: Order, priceMsats: Msats): Promise<void> {
    const { store, scope } = this.#deps
    const at = scope.clock.now()
    const ticket = { order, from: 'queued' as const, attempts: 0, priceMsats, isPaid: false }
    const queued = [this.#claim(order, priceMsats, 'none'), step(order.id, 'received', 'queued', 'free', at)]
    const release = this.#runner.reserve(order)
    if (release === undefined) {
      await store.write(all(...queued))
      this.#runner.push(ticket)
      return
    }
    const claimed = store.write(
      all(
        ...queued,
        step(order.id, 'queued', 'running', 'its turn came', at, { attempts: 1 }),
        ...(await newsOf(this.#deps, order, { status: 'processing' }, at)),
      ),
    )
    // Inline work touches nothing outside: it begins while the claim waits in the queue, so that its result, which stands
    // behind the claim there, shares the commit and its fsync. Without the claim the result is not written either.
    const inline = this.#deps.backendFor(order.kind)?.inline === true
    if (inline) this.#runner.runNow({ ...ticket, attempts: 1 }, release)
    try {
      await claimed
    } catch (error) {
      release()
      throw error
    }
    if (!inline) this.#runner.runNow({ ...ticket, attempts: 1 }, release)
    this.#deps.nudge()
  }

  /** A node that has just been started with a mint knows it in a moment: who asks for paid work waits so long. */
  async #mintSoon(kind: number): Promise<void> {
    const { scope, hasMint, expectsMint } = this.#deps
    if (priceOf(this.#deps.config(), kind).amount_msats === 0) return
    const until = scope.clock.now() + MINT_WAIT_MS
    while (!hasMint() && expectsMint() && scope.clock.now() < until) await scope.sleep(MINT_LOOK_MS)
  }

  async #cancelOne(job: JobRow): Promise<void> {
    const at = this.#deps.scope.clock.now()
    const back = this.#product.giveBack(job.id, 'cancelled', at)
    const cancelled = step(job.id, job.status, 'cancelled', 'the customer cancelled', at)
    if (!(await persistIfUnmoved(this.#deps, cancelled, ...back))) return
    this.#onLeft(job.id)
    if (back.length > 0) this.#sales.refunds.wake(job.id)
  }

  async #failDelivery(job: JobRow, why: string): Promise<void> {
    await this.#runner.failNow({ order: await this.#deps.transport.restore(job) }, 'ready', new PylonError('relay_unreachable', why))
  }

  /** While the node's key is away its customer cannot be told, nor be given back what was paid: the next sweep does it. */
  async #failInTime(job: JobRow, why: string): Promise<void> {
    try {
      await this.#failDelivery(job, why)
    } catch (error) {
      if (!isUnheard(error)) throw error
    }
  }

  /** What only time brings about. */
  async #sweep(): Promise<void> {
    const { store, scope } = this.#deps
    const now = scope.clock.now()
    await this.#sales.expire()
    await this.#sales.reconcile()
    await this.#sales.refunds.run()
    await this.#goOnLate()
    for (const job of undeliveredJobs(store, now - RESULT_KEPT_MS)) await this.#failInTime(job, 'No relay took the result in time.')
    // Those that cannot be reached may come back, but nobody waits for them any more.
    for (const job of refusedResults(store, now)) await this.#failInTime(job, 'The relays that could be reached refused the result.')
    await this.#retention.run()
  }

  /**
   * running: begins again, up to MAX_ATTEMPTS times (an exec or model backend may see the same work twice); queued, paid:
   * wait for their turn; received: quoted or redeemed; quoted: the wallet is asked; ready: the same result goes to the
   * outbox again; what is owed or was paid meanwhile: the sweep sees to it.
   */
  async #resume(): Promise<void> {
    const { store, scope, transport } = this.#deps
    for (const { id, customerPubkey } of openJobs(store, OPEN_STATES)) this.#occupancy.add(id, customerPubkey)
    const push = async (job: JobRow, from: Ticket['from']) =>
      this.#runner.push({
        order: await transport.restore(job),
        from,
        attempts: job.attempts,
        priceMsats: job.priceMsats,
        isPaid: job.paidMsats > 0n,
      })
    const redeem = async (job: JobRow, from: 'received' | 'quoted') => {
      const order = await transport.restore(job)
      scope.spawn('redeem', () => this.#payments.redeem(order, job.priceMsats, from))
    }

    await this.#each('running', async (job) => {
      if (job.result !== null) {
        const ticket = { from: 'running' as const, attempts: job.attempts, priceMsats: job.priceMsats, isPaid: job.paidMsats > 0n }
        return this.#runner.finishStored({ order: await transport.restore(job), ...ticket }, job.result, job.updatedAt)
      }
      if (job.attempts < MAX_ATTEMPTS) return await push(job, 'running')
      const error = new PylonError('backend_failed', `The job was cut off ${job.attempts} times and is given up.`)
      return await this.#runner.failNow({ order: await transport.restore(job) }, 'running', error)
    })
    await this.#each('paid', (job) => push(job, 'paid'))
    await this.#each('queued', async (job) => {
      this.strangers.restore(job)
      await push(job, 'queued')
    })
    await this.#each('received', async (job) => {
      this.strangers.restore(job)
      if (job.paymentMethod === 'token') return await redeem(job, 'received')
      const order = await transport.restore(job)
      const underBid = job.bidMsats !== null && job.bidMsats < job.priceMsats
      scope.spawn('quote', () => this.#payments.quote(order, job.priceMsats, underBid))
    })
    await this.#each('quoted', async (job) => {
      this.strangers.restore(job)
      if (job.paymentMethod === 'token') await redeem(job, 'quoted')
    })
    await this.#each('ready', async (job) => void (await store.write(publish(transport.resultAgain(job), scope.clock.now()))))
    await this.#each('refunding', (job) => this.#sales.refunds.onClaimed(job.id))
  }

  async #goOnLate(): Promise<void> {
    for (const [id, { state, go }] of this.#late) {
      const job = getJob(this.#deps.store, id)
      try {
        if (job?.status === state) await go(job)
      } catch (error) {
        if (isUnheard(error)) return
        this.#deps.logger.error({ job_id: id, status: state, err: error }, 'a job could not go on after the restart')
      }
      this.#late.delete(id)
    }
  }

  /** One job that cannot go on must not stop the others. */
  async #each(state: JobState, go: (job: JobRow) => void | Promise<void>): Promise<void> {
    for (const job of jobsInState(this.#deps.store, state)) {
      try {
        await go(job)
      } catch (error) {
        if (isUnheard(error)) this.#late.set(job.id, { state, go })
        else this.#deps.logger.error({ job_id: job.id, status: state, err: error }, 'a job could not go on after the restart')
      }
    }
  }
}

const jobIn = (resultKey: string): string => resultKey.slice(RESULT_KEY_PREFIX.length, RESULT_KEY_PREFIX.length + JOB_ID_LENGTH)
