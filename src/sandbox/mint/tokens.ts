/** Ecash in and out: inputs verified and spent once, outputs signed once (NUT-02, 03, 07, 09). */
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { stringify } from '../../base/json.ts'
import type { SandboxDatabase } from '../database.ts'
import { hashToCurve, isPointHex, signOutput, verifyProof } from './blind-signatures.ts'
import { MintError } from './errors.ts'
import type { Keysets } from './keysets.ts'
import { MAX_INPUTS, MAX_OUTPUTS, type OutputInput, type ProofInput } from './requests.ts'

/** A blind signature as it goes over the wire. */
export interface BlindSignature {
  readonly amount: number
  readonly id: string
  readonly C_: string
  readonly dleq: { readonly e: string; readonly s: string }
}

export interface ProofState {
  readonly Y: string
  readonly state: 'UNSPENT' | 'PENDING' | 'SPENT'
  readonly witness: string | null
}

interface SignatureRow {
  amount: number
  keyset_id: string
  c: string
  e: string
  s: string
}

export const sumOf = (items: readonly { amount: number }[]): number => items.reduce((sum, item) => sum + item.amount, 0)

export class Tokens {
  readonly #database: SandboxDatabase
  readonly #keysets: Keysets
  readonly #clock: Clock

  constructor(database: SandboxDatabase, keysets: Keysets, clock: Clock) {
    this.#database = database
    this.#keysets = keysets
    this.#clock = clock
  }

  /**
   * Marks the inputs as spent, within the open transaction. Returns their Y.
   * @throws too_many_inputs, duplicate_inputs, proof_invalid, proof_spent, proof_pending, keyset_unknown
   */
  spend(inputs: readonly ProofInput[]): string[] {
    if (inputs.length > MAX_INPUTS) throw new MintError('too_many_inputs', `at most ${MAX_INPUTS} inputs`)
    if (new Set(inputs.map((input) => input.secret)).size !== inputs.length) {
      throw new MintError('duplicate_inputs', 'the same proof is given twice')
    }
    const find = this.#database.sql('SELECT 1 FROM proofs WHERE y = ?')
    const findPending = this.#database.sql('SELECT 1 FROM pending_proofs WHERE y = ?')
    const insert = this.#database.sql(
      'INSERT INTO proofs (y, amount, keyset_id, secret, c, witness, spent_at) VALUES (?, ?, ?, ?, ?, ?, ?)',
    )
    const now = unixSeconds(this.#clock)
    return inputs.map((input) => {
      const key = this.#keysets.get(input.id).privateKeys.get(input.amount)
      if (key === undefined) throw new MintError('proof_invalid', `keyset ${input.id} has no amount ${input.amount}`)
      const point = hashToCurve(Buffer.from(input.secret))
      const y = Buffer.from(point).toString('hex')
      if (find.get(y) !== undefined) throw new MintError('proof_spent', 'Token already spent.')
      if (findPending.get(y) !== undefined) throw new MintError('proof_pending', 'a proof is in a payment that is under way')
      if (!verifyProof(point, input.C, key)) throw new MintError('proof_invalid', 'a proof is not signed by this mint')
      const witness = input.witness == null ? null : typeof input.witness === 'string' ? input.witness : stringify(input.witness)
      insert.run(y, input.amount, input.id, input.secret, input.C, witness, now)
      return y
    })
  }

  /** @throws too_many_outputs, duplicate_outputs, outputs_signed, keyset_unknown, keyset_inactive, invalid_request */
  checkOutputs(outputs: readonly OutputInput[]): void {
    if (outputs.length > MAX_OUTPUTS) throw new MintError('too_many_outputs', `at most ${MAX_OUTPUTS} outputs`)
    if (new Set(outputs.map((output) => output.B_)).size !== outputs.length) {
      throw new MintError('duplicate_outputs', 'the same output is given twice')
    }
    const find = this.#database.sql('SELECT 1 FROM signatures WHERE b = ?')
    for (const output of outputs) {
      if (!this.#keysets.get(output.id).active) throw new MintError('keyset_inactive', `keyset ${output.id} is inactive`)
      if (!isPointHex(output.B_)) throw new MintError('invalid_request', 'B_ is not a point on the curve')
      if (find.get(output.B_) !== undefined) throw new MintError('outputs_signed', 'outputs have already been signed before')
    }
  }

  /** Signs outputs that passed `checkOutputs`, within the open transaction. @throws amount_limit for an amount without a key */
  sign(outputs: readonly OutputInput[]): BlindSignature[] {
    const insert = this.#database.sql('INSERT INTO signatures (b, amount, keyset_id, c, e, s, signed_at) VALUES (?, ?, ?, ?, ?, ?, ?)')
    const now = unixSeconds(this.#clock)
    return outputs.map((output) => {
      const key = this.#keysets.get(output.id).privateKeys.get(output.amount)
      if (key === undefined) throw new MintError('amount_limit', `keyset ${output.id} has no amount ${output.amount}`)
      const { c, e, s } = signOutput(Buffer.from(output.B_, 'hex'), key)
      insert.run(output.B_, output.amount, output.id, c, e, s, now)
      return { amount: output.amount, id: output.id, C_: c, dleq: { e, s } }
    })
  }

  states(ys: readonly string[]): ProofState[] {
    const find = this.#database.sql('SELECT witness FROM proofs WHERE y = ?')
    const findPending = this.#database.sql('SELECT 1 FROM pending_proofs WHERE y = ?')
    return ys.map((Y) => {
      const row = find.get(Y) as { witness: string | null } | undefined
      const state = row !== undefined ? 'SPENT' : findPending.get(Y) === undefined ? 'UNSPENT' : 'PENDING'
      return { Y, state, witness: row?.witness ?? null }
    })
  }

  /** The outputs that were signed before, with their signatures, in the order asked. */
  restore(outputs: readonly OutputInput[]): { outputs: OutputInput[]; signatures: BlindSignature[] } {
    if (outputs.length > MAX_OUTPUTS) throw new MintError('too_many_outputs', `at most ${MAX_OUTPUTS} outputs`)
    const find = this.#database.sql('SELECT amount, keyset_id, c, e, s FROM signatures WHERE b = ?')
    const known: OutputInput[] = []
    const signatures: BlindSignature[] = []
    for (const output of outputs) {
      const row = find.get(output.B_) as SignatureRow | undefined
      if (row === undefined) continue
      known.push({ ...output, amount: row.amount, id: row.keyset_id })
      signatures.push({ amount: row.amount, id: row.keyset_id, C_: row.c, dleq: { e: row.e, s: row.s } })
    }
    return { outputs: known, signatures }
  }
}
