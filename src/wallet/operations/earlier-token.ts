/** A locked token that this seed made under the same name before, in a database that is lost: found again, so that no second one is made. */
import type { OperationRow } from '../../store/money/operations.ts'
import type { WalletContext } from '../context.ts'
import type { FreshProof } from '../ecash/crypto.ts'
import type { MintReply } from '../mint/client.ts'
import type { SendPlan } from './machine.ts'
import { lockedOutputs } from './requests.ts'
import { unblindEach } from './unblinding.ts'

/** NUT-09: its proofs, spent or not; none where the mint never signed one. Throws an Error in words where the signatures are wrong. */
export async function findEarlierToken(context: WalletContext, operation: OperationRow, plan: SendPlan): Promise<MintReply<FreshProof[]>> {
  const outputs = await lockedOutputs(context, operation, plan)
  if (outputs.length === 0) return { kind: 'ok', value: [] }
  const reply = await context.mints.client(operation.mintUrl).restore(outputs)
  if (reply.kind !== 'ok') return reply
  // Its keyset may be older than the one of our plan.
  const signed = outputs.map((output, i) => ({ output, signature: reply.value[i] }))
  const { proofs, faults } = await unblindEach(context, operation.mintUrl, signed)
  if (faults[0] !== undefined) throw new Error(`a token that was made before can't be read: ${faults[0].reason}`)
  return { kind: 'ok', value: proofs.map(({ proof }) => proof) }
}
