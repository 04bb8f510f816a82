/** Routes about what waits for the owner: actions of supervised agents, and spends over what an agent may spend unasked. */
import { z } from 'zod'
import { defineRoutes, queryFlag, queryInt, satsField, timeField } from '../route.ts'

const approval = z.strictObject({
  id: z.int().describe('Its number, given once.'),
  agent: z.string(),
  action: z.string().describe('Its type, as docs/agents.md lists them.'),
  amount_sats: satsField.describe('What it may spend, fees not counted.'),
  to: z.string().nullable().describe('The npub that it concerns.'),
  asked_at: timeField,
  expires_at: timeField.describe('Refused then.'),
  why: z.string().describe('Why it waits.'),
  summary: z.string().describe('What would be said or paid, in one line.'),
  state: z.enum(['pending', 'approved', 'denied', 'expired']),
  decided_by: z.string().nullable().describe('`owner` at the socket, or the npub that wrote.'),
  decided_at: timeField.nullable(),
  reason: z.string().nullable(),
  action_state: z.string().nullable().describe('What became of the action; null once it is forgotten.'),
  action_reason: z.string().nullable(),
})

const id = z.coerce.number().pipe(z.int().min(1))
const decided = { response: approval, errors: ['approval_not_found', 'approval_decided'] } as const

export const approvalsRoutes = defineRoutes({
  listApprovals: {
    method: 'GET',
    path: '/v1/approvals',
    summary: 'Actions that wait for their owner, oldest first; with `all` also those that were decided, newest first.',
    request: z.strictObject({ all: queryFlag.optional(), limit: queryInt(1, 1000).optional() }),
    response: z.strictObject({ approvals: z.array(approval) }),
    offline: true,
  },
  getApproval: {
    method: 'GET',
    path: '/v1/approvals/:id',
    summary: 'One of them, with all that the action says.',
    request: z.strictObject({ id }),
    response: z.strictObject({ ...approval.shape, params: z.unknown() }),
    offline: true,
    errors: ['approval_not_found'],
  },
  approveAction: {
    method: 'POST',
    path: '/v1/approvals/:id/approve',
    summary: 'Has the action done, once, however often it is approved. Policy and budgets are asked once more.',
    request: z.strictObject({ id }),
    spends: true,
    ...decided,
  },
  denyAction: {
    method: 'POST',
    path: '/v1/approvals/:id/deny',
    summary: 'Refuses the action; its agent hears why.',
    request: z.strictObject({ id, reason: z.string().trim().max(500).optional() }),
    ...decided,
  },
})
