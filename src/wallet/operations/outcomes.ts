/** How a stored operation is told to its caller: a result, or an error that says what to do. */
import { sats } from '../../base/amounts.ts'
import { type ErrorCode, PylonError } from '../../base/errors.ts'
import type { OperationRow } from '../../store/money/operations.ts'
import type { PayResult, SentToken } from '../types.ts'

/** @param swapFeeSats what swaps of own coins for it have cost all the same */
export function storedError(operation: OperationRow, swapFeeSats = 0n): PylonError {
  const code = (operation.error?.code ?? 'mint_rejected') as ErrorCode
  const spent = swapFeeSats === 0n ? 'nothing was spent' : `only ${swapFeeSats} sats were spent, on breaking coins for it`
  const what = code === 'token_spent' ? 'The token was already spent' : `The mint refused and ${spent}`
  return new PylonError(code, `${what}: ${operation.error?.message ?? 'no reason given'}.`, {
    details: { operation_id: operation.id, ...(swapFeeSats === 0n ? {} : { fee_sats: Number(swapFeeSats) }) },
  })
}

export function unknownOutcome(operation: OperationRow, what: string): PylonError {
  return new PylonError(
    'payment_unknown',
    `${what} and the answer is not known yet (${operation.error?.message ?? 'waiting'}): the node goes on asking.`,
    {
      details: { operation_id: operation.id },
    },
  )
}

export function asSentToken(operation: OperationRow): SentToken {
  const { token, fee_sats = 0 } = operation.result as { token: string; fee_sats?: number }
  return {
    operationId: operation.id,
    token,
    amountSats: sats(operation.amountSats),
    feeSats: sats(fee_sats),
    mintUrl: operation.mintUrl,
    state: operation.tokenState ?? 'pending',
  }
}

export function asPayResult(operation: OperationRow): PayResult {
  if (operation.state !== 'completed') return { state: 'unknown', operationId: operation.id }
  const { preimage, fee_sats } = operation.result as { preimage: string; fee_sats: number }
  return { state: 'paid', operationId: operation.id, preimage, feeSats: sats(fee_sats) }
}
