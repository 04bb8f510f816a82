/** Tools that buy work on Nostr (NIP-90) with the owner's customer key. */
import { z } from 'zod'
import { isPylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { isPurchaseOver, type PurchaseStatus } from '../../base/states.ts'
import type { Answer, Output } from '../../control/client.ts'
import { purchasesRoutes } from '../../control/contract/jobs.ts'
import { ask, defineTool, idempotencyKey, type Tool, type ToolAnswer, type ToolCall } from '../tool.ts'

type Purchase = Output<typeof purchasesRoutes.getPurchase>

/** Below the minute that clients wait for an answer by default. */
const WAIT_S = 45
const MAX_WAIT_S = 600
const LOOK_S = 3

const waitSeconds = z.int().min(0).max(MAX_WAIT_S).default(WAIT_S).describe('How long to wait for the result; then get_job goes on')

export function jobTools(): Tool[] {
  return [
    defineTool({
      ...{ name: 'buy_job', title: 'Buy a job', effect: 'spend', openWorld: true },
      description:
        'SPENDS SATS of the owner: orders a NIP-90 job (5001 summary, 5050 text generation, 5002 translation, 5100 image, ...), pays the best offer within max_sats and gives the result. What is paid and not delivered comes back by itself.',
      input: z.strictObject({
        kind: z.int().min(5000).max(5999),
        input: z.string().min(1).max(200_000),
        input_type: z.enum(['text', 'url', 'event', 'job']).default('text'),
        params: z.record(z.string().min(1).max(100), z.string().max(10_000)).optional().describe('e.g. {"language": "en"}'),
        provider: z.string().max(100).optional().describe('npub of the one provider that may serve it'),
        max_sats: z.int().min(0).optional().describe('The most that may leave, price and fees; what the owner allows by default'),
        encrypt: z.boolean().optional().describe('Needs a provider'),
        wait_seconds: waitSeconds,
        idempotency_key: idempotencyKey,
      }),
      async run(args, call) {
        const maxSats = args.max_sats === 0 ? 0 : call.spending?.hold(call.key, args.max_sats)
        const order = {
          kind: args.kind,
          inputs: [{ data: args.input, type: args.input_type }],
          ...given({
            params: args.params === undefined ? undefined : Object.entries(args.params),
            provider: args.provider,
            max_sats: maxSats,
            encrypt: args.encrypt,
          }),
        }
        const first = await call.node.call(purchasesRoutes.submitPurchase, order, { idempotencyKey: call.key })
        return await followed(first, args.wait_seconds, call, true)
      },
    }),
    defineTool({
      ...{ name: 'get_job', title: 'State and result of a job that was bought', effect: 'look', openWorld: true },
      description: 'Status, what was paid in msats, result and refunds of a job, by purchase_id or job_id; waits for its end.',
      input: z.strictObject({ id: z.string().min(1).max(200), wait_seconds: waitSeconds }),
      async run(args, call) {
        const first = await call.node.call(purchasesRoutes.getPurchase, { id: args.id }, { signal: call.signal })
        return await followed(first, args.wait_seconds, call, false)
      },
    }),
    defineTool({
      ...{ name: 'cancel_job', title: 'Cancel a job that was bought', effect: 'end', openWorld: true },
      description: 'Asks the provider to drop the job; what was paid comes back as a refund.',
      input: z.strictObject({ id: z.string().min(1).max(200).describe('purchase_id or job_id') }),
      async run(args, { node }) {
        return answerOf(await node.call(purchasesRoutes.cancelPurchase, { id: args.id }))
      },
    }),
    defineTool({
      ...{ name: 'list_jobs', title: 'Jobs that were bought', effect: 'look', openWorld: true },
      description: 'The newest jobs that this node bought, with status, price and result.',
      input: z.strictObject({ limit: z.int().min(1).max(100).default(10) }),
      run: ({ limit }, call) =>
        ask(call, purchasesRoutes.listPurchases, { limit }, ({ purchases }) => `${purchases.length} jobs.`, { untrusted: true }),
    }),
  ]
}

/** The purchase once it is over, or as it is after the wait. @param isOurs whether the job ends when the client gives the call up */
async function followed(first: Answer<Purchase>, waitS: number, call: ToolCall, isOurs: boolean): Promise<ToolAnswer> {
  const { node, signal } = call
  let answer = first
  for (let waited = 0; !isPurchaseOver(answer.value.status as PurchaseStatus) && waited < waitS; waited += LOOK_S) {
    call.progress(`${answer.value.status}: ${answer.value.offers.length} offers so far`)
    try {
      const look = { id: answer.value.purchase_id, wait: String(Math.min(LOOK_S, waitS - waited)) }
      answer = await node.call(purchasesRoutes.getPurchase, look, { signal })
    } catch (error) {
      if (isOurs && signal.aborted) await giveUp(answer.value.purchase_id, call)
      throw error
    }
  }
  const { status, paid_msats, fee_msats, purchase_id } = answer.value
  if (isPurchaseOver(status as PurchaseStatus)) call.spending?.settle(purchase_id, Math.ceil(Number(paid_msats + fee_msats) / 1000))
  return answerOf(answer)
}

/** The client wants no result any more. */
async function giveUp(id: string, { node }: ToolCall): Promise<void> {
  try {
    await node.call(purchasesRoutes.cancelPurchase, { id })
  } catch (error) {
    // It is past that: what was paid is delivered, or comes back.
    if (!isPylonError(error)) throw error
  }
}

function answerOf({ body, value }: Answer<Purchase>): ToolAnswer {
  const { status, reason, purchase_id, paid_msats, fee_msats } = value
  const cost = `${Number(paid_msats + fee_msats) / 1000} sats left for it, fees included`
  const why = reason === null ? '' : ` (${reason})`
  const words = isPurchaseOver(status as PurchaseStatus)
    ? `The job is ${status}${why}; ${cost}.`
    : `The job is ${status}${why} and goes on; ${cost} so far. Ask get_job with id ${purchase_id}.`
  return { body, words, untrusted: true }
}
