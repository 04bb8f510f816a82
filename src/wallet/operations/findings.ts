/** What a mint says became of an operation: asked where its answer is missing, or is not to be believed alone. */
import type { OperationRow } from '../../store/money/operations.ts'
import type { WalletContext } from '../context.ts'
import { type GivenSignature, type MintReply, meltOutcomeSchema, mintQuoteSchema, type ProofSpendState } from '../mint/client.ts'
import { type Evidence, isOldKeyset, OUTPUTS_TAKEN, type Plan } from './machine.ts'

/** What a request brought: a signature for each output, in order; undefined where there is none. */
export interface Outcome {
  readonly signatures: readonly GivenSignature[]
  readonly preimage?: string | undefined
}

interface Findings {
  readonly evidence: Evidence
  readonly outcome: Outcome
  readonly spentYs: ReadonlySet<string>
}

/** Evidence of nothing but what is added to it. */
const NOTHING: Evidence = { inputs: 'none', quote: undefined, restored: 'none', refusal: undefined, outputsTaken: false, oldKeyset: false }

/** Quote, inputs (NUT-07) and outputs (NUT-09) of an operation as the mint has them now; with the refusal that led here, if there was one. */
export async function findOut(
  { mints }: WalletContext,
  operation: OperationRow,
  { refusal, code }: { readonly refusal: string | undefined; readonly code: number },
): Promise<MintReply<Findings>> {
  const plan = operation.plan as Plan
  const client = mints.client(operation.mintUrl)
  let quote: Evidence['quote']
  let outcome: Outcome = { signatures: [] }
  if (plan.kind === 'mint') {
    const reply = await client.get(`/v1/mint/quote/bolt11/${encodeURIComponent(plan.quoteId)}`, mintQuoteSchema)
    if (reply.kind === 'unknown') return reply
    quote = reply.kind === 'ok' ? reply.value.state : undefined
  }
  if (plan.kind === 'melt') {
    const reply = await client.get(`/v1/melt/quote/bolt11/${encodeURIComponent(plan.quoteId)}`, meltOutcomeSchema)
    if (reply.kind === 'unknown') return reply
    quote = reply.kind === 'ok' ? reply.value.state : undefined
    if (reply.kind === 'ok') outcome = { signatures: reply.value.change ?? [], preimage: reply.value.payment_preimage ?? undefined }
    // Paid is paid: nothing that is asked after it can change that.
    if (quote === 'PAID') return { kind: 'ok', value: { evidence: { ...NOTHING, quote, refusal }, outcome, spentYs: new Set() } }
  }
  const states: MintReply<ProofSpendState[]> =
    plan.inputs.length === 0 ? { kind: 'ok', value: [] } : await client.checkStates(plan.inputs.map((input) => input.y))
  if (states.kind !== 'ok') return states
  const inputs = together(states.value)
  // Asked after the states: what was done by then is in here.
  const wanted = inputs !== 'unspent' && plan.outputs.length > 0
  const restored = wanted ? await client.restore(plan.outputs) : ({ kind: 'ok', value: [] } as const)
  if (restored.kind !== 'ok') return restored
  const count = restored.value.filter((signature) => signature !== undefined).length
  const evidence: Evidence = {
    inputs,
    quote,
    restored: count === 0 || plan.outputs.length === 0 ? 'none' : count === plan.outputs.length ? 'all' : 'some',
    refusal,
    outputsTaken: code === OUTPUTS_TAKEN,
    oldKeyset: isOldKeyset(code),
    acknowledged: plan.kind === 'melt' && plan.acknowledged === true,
  }
  const spentYs = new Set(plan.inputs.filter((_, i) => states.value[i] === 'SPENT').map((input) => input.y))
  return { kind: 'ok', value: { evidence, outcome: { ...outcome, signatures: restored.value }, spentYs } }
}

function together(states: readonly ProofSpendState[]): Evidence['inputs'] {
  if (states.length === 0) return 'none'
  if (states.includes('PENDING')) return 'pending'
  if (states.every((state) => state === 'UNSPENT')) return 'unspent'
  return states.every((state) => state === 'SPENT') ? 'spent' : 'mixed'
}
