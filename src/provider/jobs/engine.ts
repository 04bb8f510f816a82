/** The job engine: admits orders, has them paid and run, cancels, and after a restart goes on where each job was. */
import { type Msats, msats } from '../../base/amounts.ts'
import { isPylonError, messageOf, PylonError, toPylonError } from '../../base/errors.ts'
import { all, type Command } from '../../store/commands.ts'
import { JOB_ID_LENGTH } from '../../store/keys.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import { claimJob } from '../../store/selling/job-steps.ts'
import {
  countFreeJobsSince,
  countRefundsCaused,
  getJob,
  isKnownJob,
  type JobRow,
  refusedResults,
  rememberCancellation,
  sweepJobs,
  undeliveredJobs,
  wasCancelled,
} from '../../store/selling/jobs.ts'
import { boundUnpaidBytes, sweepJobMessages, sweepStrangersQuotes, sweepUnpaidJobs } from '../../store/selling/unpaid-jobs.ts'
import type { WalletEvent } from '../../wallet/types.ts'
import { maxTokensOf } from '../backends/openai.ts'
import { priceOf, quote, REFERENCED_INPUT_CHARS } from '../pricing.ts'
import { judgeOrder, type OrderFacts, type Refusal } from './admission.ts'
import { type EngineDeps, publish, step, tellable } from './context.ts'
import { givenText } from './inputs.ts'
import { RESULT_KEPT_MS } from './nip90.ts'
import { createBudget, createOccupancy } from './occupancy.ts'
import { type Order, RESULT_KEY_PREFIX } from './order.ts'
import { createPayments } from './payments.ts'
import { createJobRefunds, PAYERS_CODES } from './refunds.ts'
import { resume } from './resume.ts'
import { createRunner } from './runner.ts'
import { refundKey } from './settlement.ts'
import { isCancellable } from './states.ts'
import { createStrangers, type Strangers } from './strangers.ts'

const SWEEP_MS = 5000
const RETENTION_EVERY_MS = 3_600_000
const RETENTION_BATCH = 200
const UNPAID_EVERY_MS = 60_000
/** How long the first mint is waited for, and how often it is looked for. */
const MINT_WAIT_MS = 5000
const MINT_LOOK_MS = 200
/** Free jobs that were done and stay as one line each. */
const DONE_KEPT = 1000
const HOUR_MS = 3_600_000
const DAY_MS = 86_400_000
/** Refusals that one key is answered with in an hour; after that it is ignored. */
const REFUSALS_PER_HOUR = 60

export interface Engine {
  /** Runs `open` at most once at a time for an id that was not claimed yet. */
  once(id: string, open: () => Promise<void>): Promise<void>
  /** Claims the order as what it becomes: refused, cancelled, queued, running, or received and to be paid. Resolves once that is on disk. */
  admit(order: Order): Promise<void>
  /** Stores and answers a refusal, where the request named us. @param relays finds where to answer, only when it is answered */
  refuse(order: Order, refusal: Refusal, relays?: () => Promise<readonly string[]>): Promise<void>
  /** Says that there is no room, and stores nothing: the same request may come again. */
  turnAway(order: Order, refusal: Refusal): Promise<void>
  /** What is let in of customers who have not paid here. */
  readonly strangers: Strangers
  /** Gives back the place of a request that did not become an open job. */
  settleDoor(jobId: string): void
  /** Cancels by the customer's own word; remembered when the job is not here yet. */
  cancel(jobIds: readonly string[], pubkey: string, eventId: string): Promise<void>
  onWalletEvent(event: WalletEvent): Promise<void>
  /** The outbox's word that a relay accepted an entry of this key. */
  onPublished(key: string): Promise<void>
  /** Its word that no relay takes an entry of this key, with theirs. */
  onGivenUp(key: string, why: string): Promise<void>
  /** Goes on with every job that has not ended. */
  start(): Promise<void>
  close(drainTimeoutMs: number): Promise<void>
}

export function createEngine(deps: EngineDeps): Engine {
  const { store, clock, transport, logger } = deps
  const occupancy = createOccupancy()
  const refusals = createBudget(REFUSALS_PER_HOUR, 3_600_000)
  const claiming = new Map<string, Promise<void>>()
  const tasks = new Set<Promise<void>>()
  const strangers = createStrangers(deps, (jobId) => track(giveUpPlace(jobId)))
  const onLeft = (jobId: string) => {
    occupancy.remove(jobId)
    strangers.leave(jobId)
  }
  const refunds = createJobRefunds(deps)
  const runner = createRunner(deps, { onLeft, onRefundDue: refunds.wake, isStranger: strangers.is })
  const payments = createPayments(deps, {
    onPaid: runner.push,
    onOpen(jobId, customerPubkey) {
      occupancy.add(jobId, customerPubkey)
      strangers.leave(jobId)
      strangers.paid(customerPubkey)
    },
    isStranger: strangers.is,
    onLeft,
    onRefundDue: refunds.wake,
  })
  let closing = false
  let cancelSweep: (() => void) | undefined
  let nextRetentionAt = 0
  let nextUnpaidAt = 0

  function track(work: Promise<void>): void {
    const task = work.finally(() => tasks.delete(task))
    tasks.add(task)
  }

  function factsOf(order: Order): OrderFacts {
    const config = deps.config()
    const { provider } = config
    const backend = deps.backendFor(order.kind)
    const health = backend?.health()
    const priced = priceFor(order)
    const priceMsats = 'priceMsats' in priced ? priced.priceMsats : msats(0)
    const now = clock.now()
    return {
      nowMs: now,
      backend: backend === undefined ? 'none' : health?.state === 'ok' ? 'ok' : { down: health?.reason ?? 'unknown' },
      fault: 'fault' in priced ? priced.fault : undefined,
      priceMsats,
      hasMint: priceMsats > 0n && deps.hasMint(),
      expectsMint: deps.expectsMint(),
      cancelled: wasCancelled(store, order.id, order.customerPubkey),
      openOfCustomer: occupancy.of(order.customerPubkey),
      freeToday:
        provider.free_per_day > 0
          ? countFreeJobsSince(store, order.customerPubkey, now - (now % DAY_MS)) + claimsUnderWay.of(order.customerPubkey)
          : 0,
      refundsCaused:
        priceMsats > 0n
          ? countRefundsCaused(store, { customerPubkey: order.customerPubkey, since: now - HOUR_MS, codes: PAYERS_CODES })
          : 0,
      waiting: runner.waiting(),
      perCustomerLimit: provider.per_customer_limit,
      freePerDay: provider.free_per_day,
      queueLimit: provider.queue_limit,
    }
  }

  const claimsUnderWay = createOccupancy()

  /** What the order costs, or what is wrong with it. */
  function priceFor(order: Order): { priceMsats: Msats } | { fault: Refusal } {
    const config = deps.config()
    const input = givenText(order)
    try {
      if (order.inputs.length === 0 && Object.keys(order.params).length === 0) {
        throw new PylonError('input_invalid', 'There is no input: send an i tag, or the text as content.')
      }
      if (input !== undefined && Buffer.byteLength(input) > config.provider.max_input_bytes) {
        throw new PylonError('input_invalid', `The inputs are over ${config.provider.max_input_bytes} bytes together.`)
      }
      deps.backendFor(order.kind)?.check({ kind: order.kind, params: order.params, output: order.output, input })
      const price = priceOf(config, order.kind)
      const inputChars = order.inputs.reduce((sum, i) => sum + (i.type === 'text' ? i.data.length : REFERENCED_INPUT_CHARS), 0)
      return { priceMsats: quote(price, { inputChars, maxOutputTokens: price.unit === '1k_tokens' ? maxTokensOf(order.params) : 0 }) }
    } catch (error) {
      const { code, message } = toPylonError(error)
      return { fault: { code, message } }
    }
  }

  function claim(order: Order, priceMsats: Msats, paymentMethod: JobRow['paymentMethod'], stored = true): Command<void> {
    return claimJob({
      job: { ...order, transport: 'nip90', request: stored ? order.request : null, priceMsats, paymentMethod },
      at: clock.now(),
      reason: order.directed ? 'ordered from us' : 'ordered from anyone',
    })
  }

  function mayAnswer(order: Order, code: string): boolean {
    const { customerPubkey } = order
    const may = order.directed && refusals.take(customerPubkey, clock.now()) && (!strangers.is(customerPubkey) || strangers.mayAnswer())
    if (!may) logger.debug({ job_id: order.id, kind: order.kind, code }, 'a request was passed over')
    return may
  }

  async function refuse(asked: Order, { code, message }: Refusal, relays?: () => Promise<readonly string[]>): Promise<void> {
    if (!mayAnswer(asked, code)) return
    const order = relays === undefined ? asked : { ...asked, answerRelays: await relays() }
    const at = clock.now()
    await persistIfUnmoved(
      deps,
      claim(order, msats(0), 'none', false),
      step(order.id, 'received', 'refused', `${code}: ${message}`, at, { errorCode: code, error: message }),
      publish(transport.feedback(order, { status: 'error', code, message: tellable(code, message) }), at),
    )
    logger.info({ job_id: order.id, kind: order.kind, code }, 'a job was refused')
    deps.nudge()
  }

  async function turnAway(order: Order, { code, message }: Refusal): Promise<void> {
    if (!mayAnswer(order, code)) return
    await store.write(publish(transport.feedback(order, { status: 'error', code, message }), clock.now()))
    deps.nudge()
  }

  /** An invoice that nobody paid for a while makes room for another. It stays good: who pays it is served as one who pays late. */
  async function giveUpPlace(jobId: string): Promise<void> {
    const moved = await persistIfUnmoved(deps, step(jobId, 'quoted', 'expired', 'its place was needed for others', clock.now()))
    if (moved) onLeft(jobId)
  }

  async function runFree(order: Order, priceMsats: Msats): Promise<void> {
    const at = clock.now()
    const ticket = { order, from: 'queued' as const, attempts: 0, priceMsats, paidMsats: msats(0) }
    const queued = [claim(order, priceMsats, 'none'), step(order.id, 'received', 'queued', 'free', at)]
    const release = runner.reserve(order)
    if (release === undefined) {
      await store.write(all(...queued))
      runner.push(ticket)
      return
    }
    const claimed = store.write(
      all(
        ...queued,
        step(order.id, 'queued', 'running', 'its turn came', at, { attempts: 1 }),
        publish(transport.feedback(order, { status: 'processing' }), at),
      ),
    )
    // Inline work touches nothing outside: it begins while the claim waits in the queue, so that its result, which stands
    // behind the claim there, shares the commit and its fsync. Without the claim the result is not written either.
    const inline = deps.backendFor(order.kind)?.inline === true
    if (inline) runner.runNow({ ...ticket, attempts: 1 }, release)
    try {
      await claimed
    } catch (error) {
      release()
      throw error
    }
    if (!inline) runner.runNow({ ...ticket, attempts: 1 }, release)
    deps.nudge()
  }

  /** A node that has just been started with a mint knows it in a moment: who asks for paid work waits so long. */
  async function mintSoon(kind: number): Promise<void> {
    if (priceOf(deps.config(), kind).amount_msats === 0) return
    const until = clock.now() + MINT_WAIT_MS
    while (!closing && !deps.hasMint() && deps.expectsMint() && clock.now() < until) await clock.sleep(MINT_LOOK_MS)
  }

  async function admit(order: Order): Promise<void> {
    await mintSoon(order.kind)
    const facts = factsOf(order)
    const verdict = judgeOrder(order, facts)
    if (verdict.type === 'refuse') return refuse(order, verdict)
    if (verdict.type === 'cancelled') {
      const cancelled = step(order.id, 'received', 'cancelled', 'the cancel request came first', clock.now())
      await store.write(all(claim(order, facts.priceMsats, 'none', false), cancelled))
      if (order.token !== undefined) await payments.sayLeftAlone(order)
      return
    }
    occupancy.add(order.id, order.customerPubkey)
    claimsUnderWay.add(order.id, order.customerPubkey)
    try {
      if (verdict.type === 'run') await runFree(order, facts.priceMsats)
      else await store.write(claim(order, facts.priceMsats, verdict.type === 'redeem' ? 'token' : 'invoice'))
    } catch (error) {
      // Somebody else's claim of the same id keeps its own place in the count.
      if (!isPylonError(error, 'conflict')) occupancy.remove(order.id)
      throw error
    } finally {
      claimsUnderWay.remove(order.id)
    }
    if (verdict.type === 'redeem') track(payments.redeem(order, facts.priceMsats, 'received'))
    if (verdict.type === 'quote') track(payments.quote(order, facts.priceMsats, verdict.underBid))
  }

  async function cancelOne(job: JobRow): Promise<void> {
    const at = clock.now()
    const commands = [step(job.id, job.status, 'cancelled', 'the customer cancelled', at)]
    if (job.paidMsats > 0n) commands.push(step(job.id, 'cancelled', 'refunding', 'what was paid goes back', at))
    if (!(await persistIfUnmoved(deps, ...commands))) return
    onLeft(job.id)
    if (job.paidMsats > 0n) refunds.wake(job.id)
  }

  async function cancel(jobIds: readonly string[], pubkey: string, eventId: string): Promise<void> {
    const unknown: string[] = []
    for (const id of jobIds) {
      // A claim under way is waited for, so that the cancel request meets the job or is there before it.
      await claiming.get(id)?.catch(() => undefined)
      const job = getJob(store, id)
      if (job === undefined) unknown.push(id)
      else if (job.customerPubkey === pubkey && isCancellable(job.status)) await cancelOne(job)
    }
    if (unknown.length > 0) await store.write(rememberCancellation({ jobIds: unknown, pubkey, eventId, at: clock.now() }))
  }

  /** No relay takes the result: the customer may have named more, else the job has failed and the payment goes back. */
  async function onResultRefused(job: JobRow, key: string, why: string): Promise<void> {
    const again = key === `${RESULT_KEY_PREFIX}${job.id}` ? transport.resultElsewhere(job) : undefined
    if (again !== undefined) {
      await store.write(publish(again, clock.now()))
      deps.nudge()
      return
    }
    await failDelivery(job, `No relay took the result: ${why}`)
  }

  const failDelivery = (job: JobRow, why: string) =>
    runner.fail({ order: transport.restore(job), paidMsats: job.paidMsats }, 'ready', new PylonError('relay_unreachable', why))

  /** What only time brings about. */
  async function sweep(): Promise<void> {
    const now = clock.now()
    await payments.expire()
    await refunds.run()
    for (const job of undeliveredJobs(store, now - RESULT_KEPT_MS)) await failDelivery(job, 'No relay took the result in time.')
    // Those that cannot be reached may come back, but nobody waits for them any more.
    for (const job of refusedResults(store, now)) await failDelivery(job, 'The relays that could be reached refused the result.')
    await bound()
    if (now >= nextUnpaidAt) {
      nextUnpaidAt = now + UNPAID_EVERY_MS
      await sweepUnpaid(now)
    }
    if (now >= nextRetentionAt) {
      nextRetentionAt = now + RETENTION_EVERY_MS
      const before = now - deps.config().retention.finished_jobs_days * DAY_MS
      const cancelsBefore = now - 2 * deps.config().provider.max_age_s * 1000
      while (!closing && (await store.write(sweepJobs({ before, cancelsBefore, limit: RETENTION_BATCH }))) === RETENTION_BATCH);
    }
  }

  /** Work that nobody paid for has little room, whatever its age. */
  async function bound(): Promise<void> {
    const { unpaid_bytes: maxBytes } = deps.config().provider
    while (!closing && (await store.write(boundUnpaidBytes({ maxBytes }))) > 0);
  }

  /** And is forgotten soon, with what was said about it. */
  async function sweepUnpaid(now: number): Promise<void> {
    const before = now - deps.config().retention.unpaid_jobs_minutes * 60_000
    const limit = RETENTION_BATCH
    const sweeps = [
      () => sweepUnpaidJobs({ before, keepDone: DONE_KEPT, limit }),
      () => sweepJobMessages({ before, limit }),
      () => sweepStrangersQuotes({ limit }),
    ]
    for (const sweepSome of sweeps) while (!closing && (await store.write(sweepSome())) >= limit);
    if (!closing) await store.shrink()
  }

  function scheduleSweep(): void {
    if (closing) return
    cancelSweep = clock.after(SWEEP_MS, () => {
      track(
        sweep()
          .catch((error: unknown) => {
            if (!closing) logger.warn({ error: messageOf(error) }, 'the job sweep failed; it runs again')
          })
          .finally(scheduleSweep),
      )
    })
  }

  return {
    async once(id, open) {
      if (closing) throw new PylonError('shutting_down', 'The node is shutting down; the request is taken up at the next start.')
      const underWay = claiming.get(id)
      if (underWay !== undefined) return underWay
      if (isKnownJob(store, id)) return
      const work = open()
        .catch((error: unknown) => {
          if (!isPylonError(error, 'conflict')) throw error
        })
        .finally(() => claiming.delete(id))
      claiming.set(id, work)
      return work
    },

    admit,
    refuse,
    turnAway,
    cancel,
    strangers,
    settleDoor(jobId) {
      if (!occupancy.has(jobId)) strangers.leave(jobId)
    },

    async onWalletEvent(event) {
      if (event.type === 'sent_claimed') {
        if (event.idempotencyKey === refundKey(event.cause.id)) await refunds.onClaimed(event.cause.id)
      } else await payments.onWalletEvent(event)
    },

    async onPublished(key) {
      if (key.startsWith(RESULT_KEY_PREFIX)) await runner.onDelivered(jobIn(key))
    },

    async onGivenUp(key, why) {
      const job = getJob(store, jobIn(key))
      if (job?.status === 'ready') await onResultRefused(job, key, why)
    },

    async start() {
      await resume(deps, { runner, payments, refunds, occupancy, strangers, track })
      await sweep()
      deps.nudge()
      scheduleSweep()
    },

    async close(drainTimeoutMs) {
      closing = true
      cancelSweep?.()
      await Promise.allSettled([...claiming.values()])
      await runner.close(drainTimeoutMs)
      await refunds.close()
      await Promise.allSettled([...tasks])
    },
  }
}

const jobIn = (resultKey: string): string => resultKey.slice(RESULT_KEY_PREFIX.length, RESULT_KEY_PREFIX.length + JOB_ID_LENGTH)
