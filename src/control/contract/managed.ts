/** Routes about agents that run in a runtime and are talked to in an encrypted session, and about what is said there. */
import { z } from 'zod'
import { MANAGED_STEPS, statesOf } from '../../base/states.ts'
import { defineRoutes, queryInt, timeField } from '../route.ts'

const name = z.string().min(1).max(200).describe('Name, npub of its key, or the Idempotency-Key that made it.')
const provider = z.enum(['local', 'incus', 'microvm', 'fly', 'workers'])
const protocol = z.enum(['pi', 'acp'])
const phase = z.enum(statesOf(MANAGED_STEPS))
const descriptor = z.looseObject({ runtime_id: z.string(), provider: z.string(), lifecycle_phase: z.string() })
const u32 = z.int().min(0).max(4_294_967_295)
const text = z.string().max(4096)

/** AgentProvisionRequest as published: the `incus` parameters of a provision command, without those that were removed from the wire. */
const agentProvisionRequest = z.strictObject({
  guest_role: z.enum(['managed-openclaw', 'pikaci-runner']).optional(),
  ...{ endpoint: text.optional(), project: text.optional(), profile: text.optional(), storage_pool: text.optional() },
  ...{ image_alias: text.optional(), insecure_tls: z.boolean().optional() },
  ...{ openclaw_guest_ipv4_cidr: text.optional(), openclaw_proxy_host: text.optional() },
})

/** One agent that runs in a runtime. */
export const managedAgent = z.strictObject({
  kind: z.literal('managed'),
  name: z.string(),
  npub: z.string().nullable().describe('Of the key that was made inside; null until it said hello.'),
  phase,
  reason: z.string().nullable().describe('Why it failed, or what is left of it.'),
  provider,
  protocol,
  server: z.string().describe('npub of the node whose machine it runs on.'),
  own_node: z.boolean().nullable().describe('Whether that is this node; null while it is stopped.'),
  runtime_id: z.string().nullable(),
  runtime_class: z.string().nullable(),
  group_id: z.string().nullable().describe('Of its session: the h tag of kind 445.'),
  cleanup: z.enum(['none', 'due', 'kept', 'done', 'manual']).describe('Of its runtime.'),
  relays: z.array(z.string()),
  keep: z.boolean(),
  created_at: timeField,
})

const step = z.strictObject({
  id: z.int(),
  phase,
  message: z.string(),
  at: timeField,
  after_ms: z.int().describe('Since it was asked for.'),
})

const detail = z.strictObject({
  ...managedAgent.shape,
  steps: z.array(step).describe('The first of each phase.'),
  runtime: descriptor.nullable().describe('As its node described it when it answered last.'),
})

const message = z.strictObject({
  id: z.string(),
  seq: z.int().describe('Rises with each message of this key; `after` goes by it.'),
  from: z.string().describe('npub'),
  own: z.boolean(),
  kind: z.int(),
  type: z.string().describe('Of the envelope (docs/agents.md); text for plain text.'),
  content: z.string().describe('As it was said.'),
  shown: z.array(z.strictObject({ kind: z.enum(['text', 'delta', 'tool', 'note', 'error']), text: z.string() })),
  is_end: z.boolean().describe('Whether it ends a turn.'),
  answers: z.array(z.string()).nullable().describe('Of an end: ids of the messages that were dealt with; null: whatever was said.'),
  state: z.enum(['new', 'handled', 'sending', 'sent', 'refused']),
  reason: z.string().nullable(),
  said_at: timeField,
})

/** Which way it goes. */
const line = {
  via: z.enum(['session', 'nip17']).describe('nip17: by private messages, since the peer has no key package.'),
  group_id: z.string().nullable().describe('Of the session.'),
}

const peer = z.string().min(1).max(200).describe('Name of an agent, npub, or id of a group.')
const mode = z.enum(['chat', 'coding', 'debug', 'raw'])

export const managedRoutes = defineRoutes({
  makeAgent: {
    method: 'POST',
    path: '/v1/managed',
    summary:
      'Starts an agent in a runtime, of this node or another one, and an encrypted session with it: provisions (a lease is paid within max_sats), waits for its key package, invites it. Goes on by itself whoever waits; what fails is torn down, unless keep.',
    request: z.strictObject({
      name: z.string().max(32).optional().describe('Chosen when absent. A volume is found again by a name that is given.'),
      provider: provider.optional().describe('local by default.'),
      protocol: protocol.optional().describe('pi by default.'),
      command: z.string().max(32_768).optional().describe('The agent process, one line for sh; that of the class by default.'),
      runtime_class: z.string().max(128).optional(),
      server: z.string().max(100).optional().describe('npub or hex key of the node whose machines are meant; this node by default.'),
      max_sats: z.int().min(0).optional().describe('The most that may leave for a lease, price and fees (100).'),
      pay_with: z.enum(['invoice', 'token']).optional(),
      lease_seconds: z.int().min(1).optional(),
      keep: z.boolean().optional().describe('Leave its runtime for a look where it does not become ready.'),
      relays: z
        .array(
          z
            .string()
            .max(2048)
            .regex(/^wss?:\/\/[^/]/, 'not the address of a relay; one looks like wss://relay.example.com'),
        )
        .max(20)
        .optional()
        .describe('Where it is met: these and no others; those of this node by default.'),
      env: z.record(z.string(), z.string()).optional(),
      image: z.string().max(128).optional(),
      target: z.string().max(128).optional(),
      resources: z.strictObject({ vcpu_count: u32.optional(), memory_mib: u32.optional(), root_disk_gib: u32.optional() }).optional(),
      microvm: z
        .strictObject({
          ...{ spawner_url: text.optional(), spawn_variant: text.optional(), flake_ref: text.optional(), dev_shell: text.optional() },
          ...{ cpu: u32.optional(), memory_mb: u32.optional(), ttl_seconds: z.int().min(0).optional() },
        })
        .optional(),
      local: z.strictObject({ network: z.enum(['none', 'host']) }).optional(),
      request: agentProvisionRequest.optional().describe('For incus: no other fields than its own.'),
    }),
    response: z.strictObject({
      provider,
      protocol,
      runtime_id: z.string(),
      runtime_class: z.string().nullable(),
      runtime: descriptor,
      payload: z.unknown(),
      agent: managedAgent,
    }),
    spends: true,
    task: true,
    errors: [
      'agent_exists',
      'agent_name_invalid',
      'runtime_failed',
      'control_refused',
      'session_no_key_package',
      'price_too_high',
      'insufficient_funds',
      'timeout',
      'locked',
    ],
  },
  listManaged: {
    method: 'GET',
    path: '/v1/managed',
    summary: 'Agents that run in a runtime and have not ended, the newest first.',
    request: z.strictObject({}),
    response: z.strictObject({ agents: z.array(managedAgent) }),
    offline: true,
  },
  getManaged: {
    method: 'GET',
    path: '/v1/managed/:name',
    summary: 'One of them, with what happened to it and when.',
    request: z.strictObject({ name }),
    response: detail,
    offline: true,
    errors: ['agent_not_found'],
  },
  managedSteps: {
    method: 'GET',
    path: '/v1/managed/:name/steps',
    summary:
      'What happened to it after a step; wait=<seconds> answers as soon as there is more. Empty for one that is not recorded yet. `is_open`: there may be more.',
    request: z.strictObject({ name, after: queryInt(0, Number.MAX_SAFE_INTEGER).optional(), wait: queryInt(0, 60).optional() }),
    response: z.strictObject({ steps: z.array(step), is_open: z.boolean() }),
  },
  endManaged: {
    method: 'DELETE',
    path: '/v1/managed/:name',
    summary: 'Ends an agent: its runtime is torn down, with its volume. What could not be torn down is said, and tried again.',
    request: z.strictObject({ name }),
    response: managedAgent,
    task: true,
    errors: ['agent_not_found', 'conflict'],
  },
  listChats: {
    method: 'GET',
    path: '/v1/chats',
    summary: 'Sessions of the customer key.',
    request: z.strictObject({}),
    response: z.strictObject({
      chats: z.array(
        z.strictObject({
          group_id: z.string(),
          name: z.string(),
          peers: z.array(z.string()).describe('npubs'),
          relays: z.array(z.string()),
          epoch: z.int(),
          state: z.enum(['active', 'left', 'removed', 'broken']),
          created_at: timeField,
        }),
      ),
    }),
  },
  say: {
    method: 'POST',
    path: '/v1/chats/:peer',
    summary:
      'Says something in the session with an agent or a key; with a hosted agent or a key, one is begun where there is none, or it goes by NIP-17 where the key has no key package. Under one Idempotency-Key it is said once.',
    request: z.strictObject({
      peer,
      text: z.string().max(65_536).optional().describe('Not with abort.'),
      type: z.enum(['prompt', 'steer', 'follow_up', 'abort']).optional().describe('prompt by default.'),
    }),
    response: z.strictObject({ ...line, message }),
    errors: ['agent_not_found', 'session_no_key_package', 'session_not_found', 'session_closed', 'conflict'],
  },
  listen: {
    method: 'GET',
    path: '/v1/chats/:peer',
    summary:
      'What was said after a message, oldest first; wait=<seconds> answers as soon as there is more. last=<n> without after: the newest n.',
    request: z.strictObject({
      peer,
      after: queryInt(0, Number.MAX_SAFE_INTEGER).optional(),
      last: queryInt(1, 500).optional(),
      limit: queryInt(1, 500).optional(),
      wait: queryInt(0, 60).optional(),
      mode: mode.optional().describe('What is in `shown`: coding by default.'),
    }),
    response: z.strictObject({ ...line, messages: z.array(message) }),
    errors: ['agent_not_found', 'session_not_found'],
  },
  takeTurn: {
    method: 'POST',
    path: '/v1/chats/:peer/turns',
    summary: 'Says something and waits for the end of the turn. The same Idempotency-Key again waits for the same turn.',
    request: z.strictObject({
      peer,
      text: z.string().min(1).max(65_536),
      timeout_s: z.int().min(1).max(86_400).optional().describe('300 by default.'),
    }),
    response: z.strictObject({
      ...line,
      said: message,
      reply: z.string().describe('All that was answered in words.'),
      outcome: z.enum(['done', 'silent', 'error']).describe('silent: it ended its turn without a word.'),
      note: z.string().nullable().describe('Why nothing was said, in words of the agent or its policy.'),
      messages: z.array(message),
    }),
    task: true,
    errors: ['agent_not_found', 'session_no_key_package', 'session_not_found', 'session_closed', 'timeout', 'conflict'],
  },
})
