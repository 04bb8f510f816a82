/** A locked token that this seed made under the same name before, in a database that is lost: found again, so that no second one is made. */
import type { OperationRow } from '../store/operations.ts'
import type { WalletContext } from './context.ts'
import type { BlindedOutput, BlindSignature, FreshProof } from './crypto.ts'
import type { MintReply } from './mint-client.ts'
import type { SendPlan } from './operations.ts'
import { lockedOutputs } from './requests.ts'

/** NUT-09: its proofs, spent or not; none where the mint never signed one. Throws an Error in words where the signatures are wrong. */
export async function findEarlierToken(context: WalletContext, operation: OperationRow, plan: SendPlan): Promise<MintReply<FreshProof[]>> {
  const outputs = await lockedOutputs(context, operation, plan)
  if (outputs.length === 0) return { kind: 'ok', value: [] }
  const reply = await context.mints.client(operation.mintUrl).restore(outputs)
  if (reply.kind !== 'ok') return reply
  const signed: { output: BlindedOutput; signature: BlindSignature }[] = []
  for (const [i, output] of outputs.entries()) {
    const signature = reply.value[i]
    // Its keyset may be older than the one of our plan.
    if (signature !== undefined) signed.push({ output: { ...output, id: signature.id }, signature })
  }
  const first = signed[0]
  if (first === undefined) return { kind: 'ok', value: [] }
  const keys = context.mints.keysets(operation.mintUrl).find((keyset) => keyset.id === first.signature.id)?.keys
  if (keys === undefined) throw new Error('the keyset of a token that was made before is not known')
  const proofs = await context.crypto.run('unblind', {
    outputs: signed.map((one) => one.output),
    signatures: signed.map((one) => one.signature),
    keys,
  })
  return { kind: 'ok', value: proofs }
}
