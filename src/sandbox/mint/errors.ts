/** Errors of the mint as NUT-00 and the error code list define them. */

export const MINT_ERRORS = {
  invalid_request: 10_000,
  proof_invalid: 10_001,
  proof_spent: 11_001,
  proof_pending: 11_002,
  outputs_signed: 11_003,
  unbalanced: 11_005,
  amount_limit: 11_006,
  duplicate_inputs: 11_007,
  duplicate_outputs: 11_008,
  amountless_invoice: 11_011,
  amount_mismatch: 11_012,
  unit_unsupported: 11_013,
  too_many_inputs: 11_014,
  too_many_outputs: 11_015,
  keyset_unknown: 12_001,
  keyset_inactive: 12_002,
  quote_unpaid: 20_001,
  quote_issued: 20_002,
  payment_failed: 20_004,
  quote_pending: 20_005,
  invoice_paid: 20_006,
  quote_expired: 20_007,
  quote_signature: 20_008,
  quote_pubkey: 20_009,
} as const

/** Becomes HTTP 400 with `{detail, code}`. */
export class MintError extends Error {
  override readonly name = 'MintError'
  readonly code: number

  constructor(reason: keyof typeof MINT_ERRORS, detail: string) {
    super(detail)
    this.code = MINT_ERRORS[reason]
  }
}
