/** Tokens that we gave away: asked about until their receiver has spent them. */
import { backoffMs } from '../../base/backoff.ts'
import { reclaimKey } from '../../store/keys.ts'
import { dueTokens, getOperation, type OperationRow, operationByKey, setTokenState } from '../../store/money/operations.ts'
import { moveProofs, type ProofRow, proofsOfOperation } from '../../store/money/proofs.ts'
import { insertWalletEvent } from '../../store/money/wallet-events.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import type { WalletContext } from '../context.ts'
import type { WalletEvent } from '../types.ts'

const CHECKS = { minMs: 4000, maxMs: 600_000 }

export class SentTokens {
  readonly #context: WalletContext

  constructor(context: WalletContext) {
    this.#context = context
  }

  /** Looks at those whose time has come; one question per mint. */
  async checkDue(): Promise<void> {
    await this.check(dueTokens(this.#context.store, this.#context.clock.now()).map((operation) => operation.id))
  }

  /** Asks the mints whether these sent tokens were spent. What a mint does not answer stays pending; several may ask at once. */
  async check(ids: readonly string[]): Promise<void> {
    const { store } = this.#context
    const pending = ids.flatMap((id) => {
      const operation = getOperation(store, id)
      return operation?.tokenState === 'pending' ? [operation] : []
    })
    const mintUrls = new Set(pending.map((operation) => operation.mintUrl))
    await Promise.all(
      [...mintUrls].map((mintUrl) =>
        this.#checkAt(
          mintUrl,
          pending.filter((operation) => operation.mintUrl === mintUrl),
        ),
      ),
    )
  }

  async #checkAt(mintUrl: string, operations: readonly OperationRow[]): Promise<void> {
    const { store, mints } = this.#context
    const tokens = operations.map((operation) => ({ operation, proofs: proofsOfOperation(store, operation.id, 'sent') }))
    const reply = await mints.client(mintUrl).checkStates(tokens.flatMap(({ proofs }) => proofs.map((proof) => proof.y)))
    await mints.note(mintUrl, reply)
    const states = reply.kind === 'ok' ? [...reply.value] : undefined
    for (const { operation, proofs } of tokens) {
      const own = states?.splice(0, proofs.length)
      if (own?.includes('SPENT') === true) await this.#claimed(operation, proofs)
      else await this.#defer(operation)
    }
  }

  /** Spent in part is spent: what is left is no longer worth what was sent, and its receiver holds it. */
  async #claimed(operation: OperationRow, proofs: readonly ProofRow[]): Promise<void> {
    const { store, clock } = this.#context
    const at = clock.now()
    const event: WalletEvent = {
      type: 'sent_claimed',
      cause: operation.cause,
      owner: operation.owner,
      idempotencyKey: operation.idempotencyKey,
    }
    // A reclaim of ours that is under way ends the token itself.
    const reclaim = operationByKey(store, reclaimKey.of(operation.id))
    if (reclaim !== undefined && reclaim.state !== 'failed') return this.#defer(operation)
    await persistIfUnmoved(
      this.#context,
      setTokenState({ id: operation.id, to: 'claimed', nextTryAt: null, at }),
      moveProofs({ ys: proofs.map((proof) => proof.y), from: 'sent', to: 'spent', operationId: operation.id, at }),
      insertWalletEvent({ causeType: operation.cause.type, event, at }),
    )
  }

  async #defer(operation: OperationRow): Promise<void> {
    const { clock, random } = this.#context
    const at = clock.now()
    const tries = operation.tries + 1
    const nextTryAt = at + backoffMs(CHECKS, tries, random)
    await persistIfUnmoved(this.#context, setTokenState({ id: operation.id, to: 'pending', tries, nextTryAt, at }))
  }
}
