/** Routes about what the node tells its owner of by letter. */
import { z } from 'zod'
import { ALERT_KINDS } from '../../base/alert-kinds.ts'
import { defineRoutes, timeField } from '../route.ts'

const alert = z.strictObject({
  kind: z.enum(ALERT_KINDS),
  words: z.string(),
  state: z.enum(['held', 'on', 'fading', 'over']).describe('`held`: not long enough to be told; `fading`: not long enough gone.'),
  since: timeField,
  changed_at: timeField,
  told: z.boolean().describe('Whether the owner was told that it began.'),
})

export const alertsRoutes = defineRoutes({
  listAlerts: {
    method: 'GET',
    path: '/v1/alerts',
    summary: 'What is wrong now or was lately, and whom it is told.',
    request: z.strictObject({}),
    response: z.strictObject({
      owner: z.string().nullable().describe('The npub of owner.npub; null where there is none that can be told.'),
      problem: z.string().nullable().describe('Why the owner cannot be told.'),
      muted: z.array(z.enum(ALERT_KINDS)),
      alerts: z.array(alert),
    }),
    offline: true,
  },
  testAlerts: {
    method: 'POST',
    path: '/v1/alerts/test',
    summary: 'Writes one letter to the owner and tells what became of it.',
    request: z.strictObject({}),
    response: z.strictObject({
      to: z.string(),
      state: z.enum(['waiting', 'sending', 'sent', 'refused']),
      reason: z.string().nullable(),
    }),
    errors: ['owner_missing'],
  },
})
