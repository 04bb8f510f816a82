/** What an operation brought: its signatures as proofs, with a second look at the mint's own record where some are no good. */
import type { OperationRow } from '../../store/money/operations.ts'
import type { WalletContext } from '../context.ts'
import type { Outcome } from './findings.ts'
import type { Plan, PlannedOutput } from './machine.ts'
import type { PurposedProof } from './settlement.ts'
import { type SignedOutput, unblindEach } from './unblinding.ts'

/** How often the outcome of a swap or mint is looked for before it ends with what is good of it. */
const PATIENT_TRIES = 6

export interface Gathered {
  readonly proofs: readonly PurposedProof[]
  /** Outputs without a usable signature, where there is or may be one. */
  readonly missing: readonly PlannedOutput[]
  /** What the missing ones are worth, as planned or as the mint claims. */
  readonly owedSats: bigint
  /** What is wrong with the first of them. */
  readonly fault: string
}

export async function gatherOutputs(context: WalletContext, operation: OperationRow, outcome: Outcome): Promise<Gathered> {
  const plan = operation.plan as Plan
  const { mints } = context
  const signed = plan.outputs.map((output, i) => ({ output, signature: outcome.signatures[i] }))
  let { proofs, faults } = await unblindEach<PlannedOutput>(context, operation.mintUrl, signed)
  // Change that was left out altogether may have been left out of this answer only.
  const isSilent = plan.kind === 'melt' && outcome.signatures.every((signature) => signature === undefined)
  const again = missingOf(plan, signed, proofs, faults, isSilent)
  let isAsked = true
  if (again.length > 0) {
    const reply = await mints.client(operation.mintUrl).restore(again)
    isAsked = reply.kind === 'ok'
    if (reply.kind === 'ok') {
      const second = await unblindEach<PlannedOutput>(
        context,
        operation.mintUrl,
        again.map((output, i) => ({ output, signature: reply.value[i] })),
      )
      proofs = [...proofs, ...second.proofs]
      const claimed = new Set(second.faults.map((fault) => fault.output))
      const found = new Set(second.proofs.map(({ output }) => output))
      // What was malformed, and the mint never signed, is nothing.
      const isOpen = ({ output, sats }: { output: PlannedOutput; sats: number }) => sats > 0 && !claimed.has(output) && !found.has(output)
      faults = [...second.faults, ...faults.filter(isOpen)]
    }
  }
  const missing = missingOf(plan, signed, proofs, faults, isSilent && !isAsked)
  const claims = new Map(faults.map((fault) => [fault.output, fault.sats]))
  const owed = missing.reduce((sum, output) => sum + BigInt(plan.kind === 'melt' ? (claims.get(output) ?? 0) : output.amount), 0n)
  return {
    proofs: proofs.map(({ output, proof }) => ({ ...proof, purpose: output.purpose })),
    missing,
    owedSats: owed,
    fault: faults[0]?.reason ?? 'the mint gave no signature that can be read',
  }
}

/** Every output of a swap has a signature; a payment need not give change for each. */
function missingOf(
  plan: Plan,
  signed: readonly SignedOutput<PlannedOutput>[],
  proofs: readonly { readonly output: PlannedOutput }[],
  faults: readonly { readonly output: PlannedOutput }[],
  isSilent: boolean,
): PlannedOutput[] {
  const good = new Set(proofs.map(({ output }) => output))
  const bad = new Set(faults.map(({ output }) => output))
  const needed = plan.kind !== 'melt' || isSilent
  return signed.flatMap(({ output }) => (!good.has(output) && (needed || bad.has(output)) ? [output] : []))
}

/**
 * Whether what the operation was for is not there: the token of a send, the coins of a transfer, all that a swap or mint was
 * to bring, for as long as the mint may yet give it. A payment was for the payment.
 */
export function lacksEssential(operation: OperationRow, missing: readonly PlannedOutput[], good: number): boolean {
  const { kind } = operation.plan as Plan
  if (kind === 'melt' || missing.length === 0) return false
  if (kind === 'send' || kind === 'transfer') return missing.some((output) => output.purpose !== 'keep')
  return good === 0 || operation.tries < PATIENT_TRIES
}
