/** Routes about what the node was paid by others. */
import { z } from 'zod'
import { defineRoutes, msatsField, queryInt, timeField } from '../route.ts'

const source = z.enum(['job', 'zap', 'lease', 'tip', 'other'])

export const earningsRoutes = defineRoutes({
  getEarnings: {
    method: 'GET',
    path: '/v1/earnings',
    summary: 'What this home earned from others: in total, by source, kind and day, what that cost, and the newest entries.',
    request: z.strictObject({ since: timeField.optional(), limit: queryInt(0, 100_000).optional().describe('Of recent; 20 by default.') }),
    response: z.strictObject({
      total_msats: msatsField,
      costs_msats: msatsField.describe(
        'Fees of mints and routing, those of refunds too, and what was lost. No model or machine is booked.',
      ),
      net_msats: msatsField.describe('What was earned, less these costs.'),
      outgoing: z
        .array(z.strictObject({ kind: z.string(), msats: msatsField, is_cost: z.boolean() }))
        .describe('All expenses of the home by what they were for; those that are no cost were bought or given.'),
      costs_by_day: z.array(z.strictObject({ day: z.iso.date().describe('UTC'), kind: z.string(), msats: msatsField })),
      jobs_completed: z.int(),
      by_source: z.strictObject({ job: msatsField, zap: msatsField, lease: msatsField, tip: msatsField, other: msatsField }),
      internal_msats: msatsField.describe('Paid by own keys: reported, never counted.'),
      by_kind: z.array(z.strictObject({ kind: z.int(), msats: msatsField, jobs: z.int() })),
      by_day: z.array(z.strictObject({ day: z.iso.date().describe('UTC'), msats: msatsField })),
      recent: z.array(
        z.strictObject({
          id: z.string(),
          source,
          job_id: z.string().nullable(),
          owner: z.string().describe('node, or agent:<pubkey>'),
          amount_msats: msatsField,
          earned_at: timeField,
        }),
      ),
    }),
    offline: true,
  },
})
