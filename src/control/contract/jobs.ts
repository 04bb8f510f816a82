/** Routes about jobs, both sides: work that others ordered here (jobs) and work bought elsewhere (purchases). */
import { z } from 'zod'
import { JOB_STEPS, PURCHASE_STEPS, statesOf } from '../../base/states.ts'
import { defineRoutes, msatsField, queryInt, satsField, timeField } from '../route.ts'

const jobState = z.enum(statesOf(JOB_STEPS))

const jobFields = {
  id: z.string().describe('The id of the request event.'),
  kind: z.int(),
  customer: z.string().describe('npub'),
  customer_pubkey: z.string(),
  status: jobState,
  price_msats: msatsField,
  paid_msats: msatsField,
  payment_method: z.enum(['none', 'invoice', 'token']),
  encryption: z.enum(['none', 'nip44', 'nip04']),
  error_code: z.string().nullable(),
  created_at: timeField,
  started_at: timeField.nullable(),
  completed_at: timeField.nullable(),
}

const jobSummary = z.strictObject(jobFields)

const jobDetail = z.strictObject({
  ...jobFields,
  bid_msats: msatsField.nullable(),
  mint_url: z.string().nullable(),
  payment_expires_at: timeField.nullable(),
  deadline: timeField,
  attempts: z.int(),
  result: z.string().nullable(),
  result_event_id: z.string().nullable(),
  error: z.string().nullable(),
  transitions: z.array(z.strictObject({ from: jobState.nullable(), to: jobState, reason: z.string(), at: timeField })),
})

const purchase = z.strictObject({
  purchase_id: z.string().describe('Ours: the Idempotency-Key it was ordered under.'),
  job_id: z.string().describe('The id of the request event; empty until it is fixed.'),
  status: z.enum(statesOf(PURCHASE_STEPS)),
  reason: z.string().nullable(),
  kind: z.int(),
  provider: z.string().nullable().describe('npub of who was asked or paid'),
  paid_msats: msatsField,
  fee_msats: msatsField.describe('What left beside it: fees of the mint for paying, and for moving and breaking coins for it.'),
  result: z.string().nullable().describe('Null also where several keys claim the payment and their results differ: results has all.'),
  results: z
    .array(z.strictObject({ event_id: z.string(), provider: z.string(), content: z.string(), received_at: timeField }))
    .describe('Every result of the keys that were asked or paid (of anybody, while nobody was), in the order they came.'),
  refunds: z
    .array(
      z.strictObject({
        amount_sats: satsField.nullable().describe('Once it is in the wallet.'),
        state: z.enum(['waiting', 'redeemed', 'refused']),
        reason: z.string().nullable().describe('What stands in its way.'),
        provider: z.string().nullable(),
        received_at: timeField,
      }),
    )
    .describe('Every refund that came: each is kept and tried.'),
  error: z.strictObject({ code: z.string(), message: z.string() }).nullable(),
  created_at: timeField,
  updated_at: timeField,
  deadline_at: timeField,
  offers: z.array(
    z.strictObject({
      event_id: z.string(),
      provider: z.string(),
      amount_msats: msatsField,
      state: z
        .enum(['open', 'contested', 'unusable', 'paying', 'paid', 'failed'])
        .describe('contested: another key names the same invoice, so another way is tried first.'),
      reason: z.string().nullable(),
    }),
  ),
  events: z
    .array(z.strictObject({ event_id: z.string(), kind: z.int(), provider: z.string(), summary: z.string(), received_at: timeField }))
    .describe('What was heard of it on the relays, oldest first.'),
})

const limit = queryInt(1, 1000).optional()

export const jobsRoutes = defineRoutes({
  listJobs: {
    method: 'GET',
    path: '/v1/jobs',
    summary: 'Jobs that others ordered here, newest first.',
    request: z.strictObject({ state: jobState.optional(), limit }),
    response: z.strictObject({ jobs: z.array(jobSummary) }),
    offline: true,
  },
  getJob: {
    method: 'GET',
    path: '/v1/jobs/:id',
    summary: 'One job with every step it took and why. A unique beginning of its id is enough.',
    request: z.strictObject({ id: z.string().min(1).max(64) }),
    response: jobDetail,
    offline: true,
    errors: ['job_not_found'],
  },
})

const purchaseId = z.string().min(1).max(200)

const job = z.strictObject({
  kind: z.int().min(5000).max(5999),
  inputs: z
    .array(z.strictObject({ data: z.string(), type: z.enum(['text', 'url', 'event', 'job']) }))
    .min(1)
    .max(32),
  params: z
    .array(z.tuple([z.string().min(1).max(100), z.string().max(10_000)]))
    .max(64)
    .optional(),
  provider: z.string().max(100).optional().describe('npub or hex key of the one provider that may serve it'),
  bid_sats: z.int().min(0).optional(),
  max_sats: z.int().min(0).optional().describe('The most that may leave for it, price and fees; 100 when neither bid nor limit is named.'),
  encrypt: z.boolean().optional(),
  pay: z.enum(['auto', 'ask', 'never']).optional(),
  pay_with: z.enum(['invoice', 'token']).optional(),
  timeout_s: z.int().min(1).max(86_400).optional(),
})

export const purchasesRoutes = defineRoutes({
  submitPurchase: {
    method: 'POST',
    path: '/v1/purchases',
    summary: 'Orders a job (NIP-90) with the customer key and, unless told otherwise, pays the best offer within bid and limit.',
    request: job,
    response: purchase,
    status: 201,
    spends: true,
    errors: ['input_invalid', 'pubkey_invalid', 'insufficient_funds', 'no_offer', 'locked'],
  },
  listPurchases: {
    method: 'GET',
    path: '/v1/purchases',
    summary: 'Jobs that were bought, newest first.',
    request: z.strictObject({ limit }),
    response: z.strictObject({ purchases: z.array(purchase) }),
    offline: true,
  },
  getPurchase: {
    method: 'GET',
    path: '/v1/purchases/:id',
    summary:
      'One bought job with its offers and answers, by job or purchase id; wait=<seconds> answers as soon as it is over, at the latest then.',
    request: z.strictObject({ id: purchaseId, wait: queryInt(0, 60).optional() }),
    response: purchase,
    offline: true,
    errors: ['job_not_found'],
  },
  payPurchase: {
    method: 'POST',
    path: '/v1/purchases/:id/pay',
    summary: 'Pays the cheapest usable offer of a job that was ordered with pay=ask.',
    request: z.strictObject({ id: purchaseId }),
    response: purchase,
    spends: true,
    errors: ['job_not_found', 'no_offer', 'insufficient_funds', 'conflict'],
  },
  cancelPurchase: {
    method: 'POST',
    path: '/v1/purchases/:id/cancel',
    summary: 'Asks the provider to drop the job (kind 5) and stops waiting; what was paid comes back as a refund.',
    request: z.strictObject({ id: purchaseId }),
    response: purchase,
    errors: ['job_not_found', 'job_not_cancellable'],
  },
})
