/** Runs money operations: submits what is stored, and where the answer is missing finds out what happened before doing anything else. */
import { hash } from 'node:crypto'
import type { WalletOwner } from '../../base/accounts.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { all } from '../../store/commands.ts'
import { getOperation, moveOperation, type OperationRow, refusedWithInput } from '../../store/money/operations.ts'
import { putOwed } from '../../store/money/owed-signatures.ts'
import type { WalletContext } from '../context.ts'
import { MELT_TIMEOUT_MS, type MintReply, meltOutcomeSchema, signaturesSchema, tooMany } from '../mint/client.ts'
import { findEarlierToken } from './earlier-token.ts'
import { findOut, type Outcome } from './findings.ts'
import { gatherOutputs, lacksEssential } from './gathering.ts'
import { isOldKeyset, judge, nextTryMs, type Plan, type SendPlan } from './machine.ts'
import { firstOwedTry } from './owed.ts'
import { replan } from './requests.ts'
import { restoreWallet } from './restore.ts'
import { searchAgain } from './restores.ts'
import { adoption, completion, failure } from './settlement.ts'

/** While a request is under way nobody looks after it; after a restart all open operations are looked at anyway. */
const SUBMITTED_MS = 2 * MELT_TIMEOUT_MS
/** How long a request that was refused may still be on its way somewhere. */
const REFUSED_KEPT_MS = 3_600_000

export class Executor {
  readonly #context: WalletContext
  readonly #queue = new KeyedQueue()
  /** One payment hash is prepared by one wallet of the home at a time. */
  readonly paymentHashes = new KeyedQueue()
  /** Of each run now, for which wallet at which mint. */
  readonly #running = new Set<{ readonly place: string }>()
  readonly #waiting = new Set<(place: string) => void>()
  /** Called when a run has ended: there may be an event to tell, or a time to look again. */
  onEnd: () => void = () => {}
  /** Called when coins turned out to be spent, and nothing here knows by which request. */
  onSpentElsewhere: (owner: WalletOwner, mintUrl: string) => void = () => {}

  constructor(context: WalletContext) {
    this.#context = context
  }

  /** Takes the operation as far as it goes now: completed, failed or unknown. One run at a time for each. */
  async run(id: string): Promise<OperationRow> {
    const { scope } = this.#context
    // What is stored is gone on with at the next start.
    if (scope.isClosing) return this.#get(id)
    const running = { place: placeOf(this.#get(id)) }
    this.#running.add(running)
    try {
      return await scope.run(`operation ${id}`, () => this.#queue.run(id, () => this.#advance(id)))
    } finally {
      this.#running.delete(running)
      for (const tell of [...this.#waiting]) tell(running.place)
      this.onEnd()
    }
  }

  /** Resolves when what runs now has ended, or nothing does. */
  settled(): Promise<void> {
    return this.#queue.idle()
  }

  /** Waits until the next of this wallet's operations at this mint has ended, for `ms` at most. @returns false when none runs @throws shutting_down */
  async nextEnd(owner: WalletOwner, mintUrl: string, ms: number): Promise<boolean> {
    const place = placeOf({ owner, mintUrl })
    if (![...this.#running].some((running) => running.place === place)) return false
    await this.#context.scope.hear(ms, (tell) => {
      const hear = (ended: string) => ended === place && tell(ended)
      this.#waiting.add(hear)
      return () => this.#waiting.delete(hear)
    })
    return true
  }

  async #advance(id: string): Promise<OperationRow> {
    let looked = false
    for (;;) {
      const operation = this.#get(id)
      if (operation.state === 'completed' || operation.state === 'failed' || this.#context.scope.isClosing) return operation
      if (operation.state === 'prepared') {
        await this.#submit(operation)
      } else if (operation.state === 'submitted') {
        await this.#toUnknown(operation, 'the process ended before the answer came', 0)
      } else {
        // An unanswered request is looked into once at once; after that by the clock.
        if (looked) return operation
        looked = true
        await this.#investigate(operation, undefined)
      }
    }
  }

  #get(id: string): OperationRow {
    const operation = getOperation(this.#context.store, id)
    if (operation === undefined) throw new PylonError('internal', `There is no operation ${id}.`)
    return operation
  }

  /** Sends the stored bytes. */
  async #submit(operation: OperationRow): Promise<void> {
    const { store, clock, mints } = this.#context
    const plan = operation.plan as Plan
    const attempts = operation.attempts + 1
    const at = clock.now()
    await store.write(
      moveOperation({
        id: operation.id,
        to: 'submitted',
        reason: 'sent to the mint',
        attempts,
        at,
        nextTryAt: at + SUBMITTED_MS,
      }),
    )
    const reply = await this.#post(operation, plan)
    await mints.note(operation.mintUrl, reply)
    if (reply.kind === 'unknown') return this.#toUnknown(operation, reply.reason, operation.tries)
    if (reply.kind === 'rejected') return this.#refused({ ...operation, attempts }, reply)
    if (reply.value === 'pending') return this.#toUnknown(operation, 'the payment is on its way', operation.tries, acknowledged(plan))
    await this.#complete(operation, reply.value, 'the mint did it')
  }

  async #post(operation: OperationRow, plan: Plan): Promise<MintReply<Outcome | 'pending'>> {
    const client = this.#context.mints.client(operation.mintUrl)
    if (plan.kind !== 'melt') {
      const reply = await client.post(plan.path, plan.body, signaturesSchema)
      if (reply.kind !== 'ok') return reply
      const { signatures } = reply.value
      if (signatures.length !== plan.outputs.length) {
        return { kind: 'unknown', reason: `the mint gave ${signatures.length} signatures for ${plan.outputs.length} outputs` }
      }
      return { kind: 'ok', value: { signatures } }
    }
    const reply = await client.post(plan.path, plan.body, meltOutcomeSchema, MELT_TIMEOUT_MS)
    if (reply.kind !== 'ok') return reply
    const { state, change, payment_preimage } = reply.value
    if (state !== 'PAID') return { kind: 'ok', value: 'pending' }
    return { kind: 'ok', value: { signatures: change ?? [], preimage: payment_preimage ?? undefined } }
  }

  async #refused(operation: OperationRow, reply: { code: number; detail: string }): Promise<void> {
    const reason = `${reply.detail} (code ${reply.code})`
    const plan = operation.plan as Plan
    const limit = tooMany(reply.code, reply.detail)
    if (limit !== undefined && plan.inputs.length > 1)
      await this.#context.mints.noteTooMany(operation.mintUrl, plan.inputs.length, limit.most)
    const isFirst = operation.attempts === 1
    if (isFirst && isOldKeyset(reply.code) && (await this.#replanned(operation, plan, 'refused for an old keyset: planned again'))) return
    // A refusal is not the last word: a proxy may say it of what the mint has done, or is doing.
    await this.#toUnknown(operation, reason, operation.tries)
    await this.#investigate(this.#get(operation.id), reason, reply.code)
  }

  /** New outputs of the keyset that is active now, once for each keyset; false when that cannot be. */
  async #replanned(operation: OperationRow, plan: Plan, reason: string): Promise<boolean> {
    const { mints, store, clock } = this.#context
    try {
      const keyset = await mints.activeKeyset(operation.mintUrl, { refresh: true })
      if (plan.replanned === true && plan.outputs.every((output) => output.id === keyset.id)) return false
      const fresh = await replan(this.#context, operation, keyset)
      if (fresh === undefined) return false
      const at = clock.now()
      await store.write(
        moveOperation({
          id: operation.id,
          to: 'prepared',
          reason,
          attempts: 0,
          plan: fresh,
          at,
          nextTryAt: at,
        }),
      )
      return true
    } catch (error) {
      this.#context.logger.warn({ err: messageOf(error), operation: operation.id }, 'could not plan again')
      return false
    }
  }

  /** Asks the mint what happened and acts on what that proves. */
  async #investigate(operation: OperationRow, refusal: string | undefined, code = 0): Promise<void> {
    const plan = operation.plan as Plan
    const found = await findOut(this.#context, operation, { refusal, code })
    await this.#context.mints.note(operation.mintUrl, found)
    if (found.kind !== 'ok') {
      const reason = found.kind === 'unknown' ? found.reason : found.detail
      return this.#toUnknown(operation, reason, operation.tries + 1)
    }
    const { evidence, outcome, spentYs } = found.value
    const verdict = judge(plan.kind, evidence)
    if (verdict.do === 'wait')
      return this.#toUnknown(operation, verdict.reason, operation.tries + 1, evidence.quote === 'PENDING' ? acknowledged(plan) : undefined)
    if (verdict.do === 'complete') return this.#complete(operation, outcome, 'recovered')
    if (verdict.do === 'fail') return this.#fail(operation, verdict.reason, spentYs, code)
    if (verdict.do === 'resubmit') return this.#submit(operation)
    if (isOldKeyset(code)) return this.#leaveOldKeyset(operation, plan, refusal ?? '')
    if (plan.kind === 'send' && (await this.#foundEarlier(operation, plan))) return
    await this.#skipUsedOutputs(operation, plan, refusal ?? '')
  }

  /** The keyset went while the answer to an earlier try was missing, and nothing was done. */
  async #leaveOldKeyset(operation: OperationRow, plan: Plan, refusal: string): Promise<void> {
    if (await this.#replanned(operation, plan, 'refused for an old keyset: planned again')) return
    if (plan.kind === 'mint') return this.#toUnknown(operation, refusal, operation.tries + 1)
    await this.#fail(operation, refusal, new Set(), 0)
  }

  /** Whether the token was made before: then it is this one, and our inputs stay ours. Also true while that cannot be said. */
  async #foundEarlier(operation: OperationRow, plan: SendPlan): Promise<boolean> {
    try {
      const found = await findEarlierToken(this.#context, operation, plan)
      if (found.kind === 'ok' && found.value.length === 0) return false
      if (found.kind === 'ok') await this.#context.store.write(all(...adoption(operation, plan, found.value, this.#context.clock.now())))
      else await this.#toUnknown(operation, found.kind === 'unknown' ? found.reason : found.detail, operation.tries + 1)
    } catch (error) {
      await this.#toUnknown(operation, messageOf(error), operation.tries + 1)
    }
    return true
  }

  /** The seed made these outputs before, in a database that is lost: finds what it made, which moves the counters up, and plans again. */
  async #skipUsedOutputs(operation: OperationRow, plan: Plan, refusal: string): Promise<void> {
    try {
      await restoreWallet(this.#context, operation.owner, operation.mintUrl, operation.id)
    } catch (error) {
      return this.#toUnknown(operation, messageOf(error), operation.tries + 1)
    }
    if (await this.#replanned(operation, plan, 'the outputs were used before: planned again')) return
    if (plan.kind === 'mint') return this.#toUnknown(operation, refusal, operation.tries + 1)
    await this.#fail(operation, refusal, new Set(), 0)
  }

  /** Unblinds and commits all that the operation brings. Where what it was for is missing it stays unknown; what came beside that is collected later. */
  async #complete(operation: OperationRow, outcome: Outcome, reason: string): Promise<void> {
    const { store, clock, logger, mints } = this.#context
    const plan = operation.plan as Plan
    const { proofs, missing, owedSats, fault } = await gatherOutputs(this.#context, operation, outcome)
    if (lacksEssential(operation, missing, proofs.length)) {
      logger.error({ operation: operation.id, mint: operation.mintUrl, err: fault }, 'the mint gave wrong signatures')
      await mints.note(operation.mintUrl, { kind: 'unknown', reason: fault })
      return this.#toUnknown(operation, fault, operation.tries + 1)
    }
    const preimage = this.#checkedPreimage(operation, outcome.preimage)
    const at = clock.now()
    const ending = { operation, proofs, owedSats, reason, at, ...(preimage === undefined ? {} : { preimage }) }
    const { id: operationId, owner, mintUrl } = operation
    const owed = {
      operationId,
      owner,
      mintUrl,
      owedSats,
      outputs: missing,
      reason: fault,
      tries: 0,
      nextTryAt: firstOwedTry(at),
      createdAt: at,
    }
    await store.write(all(...completion(ending), ...(missing.length === 0 ? [] : [putOwed(owed)])))
    if (missing.length > 0)
      logger.warn(
        { operation: operationId, kind: plan.kind, mint: mintUrl, owed_sats: Number(owedSats), err: fault },
        "signatures can't be used: asked for again",
      )
  }

  #checkedPreimage(operation: OperationRow, preimage: string | undefined): string | undefined {
    const plan = operation.plan as Plan
    if (plan.kind !== 'melt') return undefined
    if (preimage !== undefined && /^[0-9a-f]{64}$/i.test(preimage) && hash('sha256', Buffer.from(preimage, 'hex')) === plan.paymentHash)
      return preimage
    this.#context.logger.warn(
      { operation: operation.id, mint: operation.mintUrl },
      'the mint says that it paid but gives no valid preimage',
    )
    return undefined
  }

  async #fail(operation: OperationRow, reason: string, spentYs: ReadonlySet<string>, code: number): Promise<void> {
    const plan = operation.plan as Plan
    const spent = code === 11001 || spentYs.size > 0
    const errorCode = plan.kind === 'melt' ? 'payment_failed' : plan.kind === 'receive' && spent ? 'token_spent' : 'mint_rejected'
    const { store, clock, logger } = this.#context
    const at = clock.now()
    const { owner, mintUrl } = operation
    const search = this.#mayBeOurs(plan, spentYs) ? [searchAgain(owner, mintUrl, at)] : []
    await store.write(all(...failure(operation, { code: errorCode, reason, spentYs, at }), ...search))
    logger.warn({ operation: operation.id, kind: operation.kind, reason }, 'money operation failed')
    if (search.length > 0) this.onSpentElsewhere(owner, mintUrl)
  }

  /** Whether an earlier request of ours may have spent them, which its mint did after it had refused it, as a proxy that sends twice brings about. */
  #mayBeOurs(plan: Plan, spentYs: ReadonlySet<string>): boolean {
    if (plan.kind !== 'receive') return spentYs.size > 0
    return [...spentYs].some((y) => refusedWithInput(this.#context.store, { y, since: this.#context.clock.now() - REFUSED_KEPT_MS }))
  }

  /** @param plan where something was learnt that is to be kept */
  async #toUnknown(operation: OperationRow, reason: string, tries: number, plan?: Plan): Promise<void> {
    const at = this.#context.clock.now()
    const nextTryAt = at + nextTryMs(tries, this.#context.random)
    await this.#context.store.write(
      moveOperation({
        id: operation.id,
        to: 'unknown',
        reason,
        tries,
        at,
        nextTryAt,
        ...(plan === undefined ? {} : { plan }),
        error: { code: 'payment_unknown', message: reason },
      }),
    )
  }
}

/** The plan with the mint's word that the payment is on its way; undefined where it is in there already. */
const acknowledged = (plan: Plan): Plan | undefined =>
  plan.kind === 'melt' && plan.acknowledged !== true ? { ...plan, acknowledged: true } : undefined

const placeOf = ({ owner, mintUrl }: { readonly owner: WalletOwner; readonly mintUrl: string }): string => `${owner.pubkey} ${mintUrl}`
