/** Route about the audit log. */
import { z } from 'zod'
import { defineRoutes, queryInt, timeField } from '../route.ts'

export const auditRoutes = defineRoutes({
  listAudit: {
    method: 'GET',
    path: '/v1/audit',
    summary: 'What was spent, approved and changed about money, newest first; each row has a hash of itself and of the one before.',
    request: z.strictObject({ limit: queryInt(1, 10_000).optional().describe('50 by default.') }),
    response: z.strictObject({
      rows: z.array(
        z.strictObject({
          id: z.int(),
          at: timeField,
          kind: z.string(),
          data: z.record(z.string(), z.unknown()),
          hash: z.string(),
          previous: z.string(),
        }),
      ),
    }),
    offline: true,
  },
})
