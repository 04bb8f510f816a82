/** Routes about NIP-46: programs elsewhere that sign with a key of this home. */
import { z } from 'zod'
import { defineRoutes, timeField } from '../route.ts'

const connection = z.strictObject({
  id: z.string(),
  name: z.string(),
  signs_for: z.string().describe('node, or the name of an agent'),
  pubkey: z.string().describe('The key that signs.'),
  methods: z.array(z.string()),
  kinds: z.array(z.int()).nullable().describe('What may be signed; null: all kinds but those that are granted by name only.'),
  relays: z.array(z.string()),
  client: z.string().nullable().describe('The key of the program; null before it has connected.'),
  client_name: z.string().nullable().describe('As the program calls itself.'),
  state: z.enum(['waiting', 'active', 'expired', 'revoked']).describe('waiting: nobody has used its secret yet.'),
  created_at: timeField,
  connected_at: timeField.nullable(),
  last_used_at: timeField.nullable(),
  expires_at: timeField.nullable(),
  revoked_at: timeField.nullable(),
})

const request = z.strictObject({
  event_id: z.string(),
  method: z.string(),
  kind: z.int().nullable().describe('Of what was to be signed.'),
  at: timeField,
  refusal: z.string().nullable(),
})

const order = {
  signs_for: z.string().min(1).max(100).describe('node, or the name or npub of an agent'),
  name: z.string().min(1).max(64).optional(),
  methods: z.array(z.string().max(60)).min(1).max(10).optional().describe('sign_event alone by default.'),
  kinds: z
    .array(z.int().min(0).max(65_535))
    .min(1)
    .max(200)
    .optional()
    .describe('What may be signed. By default all but what says who a key is, takes back, authenticates, moves money or commands nodes.'),
  expires_at: timeField.optional(),
}
const id = z.string().min(1).max(64)

export const bunkerRoutes = defineRoutes({
  createBunkerConnection: {
    method: 'POST',
    path: '/v1/bunker/connections',
    summary: 'Makes a bunker:// string for a program elsewhere (NIP-46). Its secret is good for the first that brings it, within a day.',
    request: z.strictObject({
      ...order,
      relays: z.array(z.string().max(512)).min(1).max(5).optional().describe('The relays of the node by default.'),
    }),
    response: z.strictObject({ id: z.string(), url: z.string(), connection }),
    status: 201,
    errors: ['agent_not_found', 'locked', 'relay_invalid', 'conflict'],
  },
  answerBunkerClient: {
    method: 'POST',
    path: '/v1/bunker/clients',
    summary: 'Connects a program that shows a nostrconnect:// string. What it may do is said here, whatever it wishes for.',
    request: z.strictObject({ ...order, uri: z.string().min(1).max(4096) }),
    response: z.strictObject({ id: z.string(), connection }),
    status: 201,
    errors: ['agent_not_found', 'locked', 'bunker_invalid', 'conflict'],
  },
  listBunkerConnections: {
    method: 'GET',
    path: '/v1/bunker/connections',
    summary: 'Programs elsewhere that may sign with keys of this home, the newest first.',
    request: z.strictObject({}),
    response: z.strictObject({ connections: z.array(connection) }),
  },
  getBunkerConnection: {
    method: 'GET',
    path: '/v1/bunker/connections/:id',
    summary: 'One of them, and what it asked last.',
    request: z.strictObject({ id }),
    response: z.strictObject({ connection, requests: z.array(request) }),
    errors: ['not_found'],
  },
  revokeBunkerConnection: {
    method: 'DELETE',
    path: '/v1/bunker/connections/:id',
    summary: 'Ends it: nothing more is signed.',
    request: z.strictObject({ id }),
    response: z.strictObject({ connection }),
    errors: ['not_found'],
  },
})
