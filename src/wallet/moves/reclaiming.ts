/** Takes back tokens that nobody claimed: only the mint decides whether they are still there. */
import { PylonError } from '../../base/errors.ts'
import { reclaimKey } from '../../store/keys.ts'
import { insertOperation, type OperationRow, operationByKey } from '../../store/money/operations.ts'
import { proofsOfOperation } from '../../store/money/proofs.ts'
import { newId, requestDigest } from '../context.ts'
import { inputFee, sumOf } from '../ecash/coins.ts'
import type { SendPlan } from '../operations/machine.ts'
import { asSentToken, storedError, unknownOutcome } from '../operations/outcomes.ts'
import type { SentToken } from '../types.ts'
import type { Funds } from './funds.ts'
import type { Receiving } from './receiving.ts'
import type { SentTokens } from './sent-tokens.ts'

export class Reclaiming {
  readonly #funds: Funds
  readonly #receiving: Receiving
  readonly #sentTokens: SentTokens

  constructor(funds: Funds, receiving: Receiving, sentTokens: SentTokens) {
    this.#funds = funds
    this.#receiving = receiving
    this.#sentTokens = sentTokens
  }

  async reclaim(idempotencyKey: string): Promise<SentToken> {
    const send = operationByKey(this.#funds.context.store, idempotencyKey)
    if (send?.kind !== 'send' || send.state !== 'completed' || send.owner.pubkey !== this.#funds.owner.pubkey) {
      throw new PylonError('not_found', 'This wallet sent no token under that key.')
    }
    return this.#funds.keys.run(reclaimKey.of(send.id), async () => {
      await this.#sentTokens.check([send.id])
      const now = operationByKey(this.#funds.context.store, idempotencyKey) ?? send
      if (now.tokenState !== 'pending') return asSentToken(now)
      const key = reclaimKey.of(send.id)
      // A refusal of an earlier try (the mint's clock was behind ours) must not keep the token from us for ever.
      const digest = requestDigest('reclaim', { send: send.id })
      const before = await this.#funds.existing({ idempotencyKey: key, retryFailed: true }, digest)
      const id = before?.id ?? (await this.#prepareReclaim(now, key, digest))
      const operation = await this.#funds.executor.run(id)
      if (operation.state === 'failed') await this.#sentTokens.check([send.id])
      if (operation.state !== 'completed' && operation.state !== 'failed') throw unknownOutcome(operation, 'The token is being taken back')
      const after = operationByKey(this.#funds.context.store, idempotencyKey) ?? now
      if (after.tokenState === 'pending') throw storedError(operation)
      return asSentToken(after)
    })
  }

  async #prepareReclaim(send: OperationRow, idempotencyKey: string, digest: string): Promise<string> {
    const { store, clock } = this.#funds.context
    const { lockTo, refundAfter, debitAccount, amountSats } = send.plan as SendPlan
    if (lockTo !== undefined && (refundAfter === undefined || refundAfter > clock.now())) {
      const when = refundAfter === undefined ? 'it has no refund time' : `not before ${new Date(refundAfter).toISOString()}`
      throw new PylonError('conflict', `The token is locked to its receiver and cannot be taken back: ${when}.`)
    }
    const rows = proofsOfOperation(store, send.id, 'sent')
    const coins = this.#funds.withFees(send.mintUrl, rows)
    const net = sumOf(coins) - inputFee(coins)
    if (net <= 0n) throw new PylonError('token_amount', 'The token is worth less than the fee of taking it back.')
    const proofs = rows.map(({ keysetId, amountSats: amount, secret, c }) => ({ id: keysetId, amount: Number(amount), secret, C: c }))
    const ys = rows.map((row) => row.y)
    const plan = await this.#receiving.planReceive(send.mintUrl, proofs, ys, net, {
      creditAccount: debitAccount,
      faceSats: amountSats,
      reclaims: send.id,
    })
    const id = newId(this.#funds.context)
    const base = this.#funds.base(id, { idempotencyKey, cause: send.cause }, digest, send.mintUrl)
    await store.write(insertOperation({ ...base, kind: 'receive', amountSats: net, heldSats: 0n, plan, at: clock.now() }))
    return id
  }
}
