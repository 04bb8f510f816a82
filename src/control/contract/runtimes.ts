/** Routes about runtimes: commands to this node or any other one, offers of machines, and what was rented. */
import { z } from 'zod'
import { defineRoutes, msatsField, queryFlag, queryInt, timeField } from '../route.ts'

const server = z.string().max(100).optional().describe('npub or hex key of the node to command; this node by default')
const local = z
  .boolean()
  .optional()
  .describe('Straight to the machines of this node, without a relay; the same authorisation as the customer key has.')
const command = z
  .looseObject({ command: z.string().max(64) })
  .describe('As in docs/control-plane.md: the field command and the fields of that command, flat.')

const descriptor = z.looseObject({ runtime_id: z.string(), provider: z.string(), lifecycle_phase: z.string() })

const answer = {
  server: z.string().describe('npub'),
  request_id: z.string(),
  via: z.enum(['relays', 'straight']).describe('straight: to this node itself, because local said so or no relay answered.'),
  runtime: descriptor.describe('RuntimeDescriptor, docs/control-plane.md'),
  payload: z.unknown().describe('What the command gives beside the runtime; null where there is nothing.'),
}

const status = z.strictObject({
  phase: z.enum(['queued', 'provisioning', 'ready', 'failed', 'teardown']),
  runtime_id: z.string().optional(),
  provider: z.string().optional(),
  message: z.string().optional(),
  progress: z.unknown().optional(),
})

const offer = z.strictObject({
  server: z.string().describe('npub'),
  server_pubkey: z.string(),
  event_id: z.string(),
  runtime_class: z.string(),
  provider: z.string(),
  region: z.string(),
  protocols: z.array(z.string()),
  price_msats_per_hour: msatsField,
  min_lease_s: z.int(),
  max_lease_s: z.int(),
  capacity_free: z.int(),
  capacity_total: z.int(),
  resources: z.strictObject({ vcpu_count: z.int().optional(), memory_mib: z.int().optional(), root_disk_gib: z.int().optional() }),
  isolated: z.boolean(),
  mints: z.array(z.string()),
  policy_constraints: z.unknown().optional(),
  published_at: timeField,
})

const rental = z.strictObject({
  idempotency_key: z.string(),
  server: z.string().describe('npub'),
  command: z.string(),
  state: z.enum(['asked', 'paying', 'paid', 'answered', 'refused']),
  reason: z.string().nullable(),
  runtime_id: z.string().nullable(),
  amount_msats: msatsField.describe('What the node asked.'),
  paid_msats: msatsField,
  fee_msats: msatsField.describe('What left beside it in fees of the mint.'),
  refunded_msats: msatsField,
  lease_ends_at: timeField.nullable(),
  created_at: timeField,
  updated_at: timeField,
})

export const runtimesRoutes = defineRoutes({
  commandRuntime: {
    method: 'POST',
    path: '/v1/runtimes/commands',
    summary:
      'Sends a command that changes something to a node over Nostr (kinds 24910 to 24913), repeated under its key until it is answered; a lease is paid within max_sats, once.',
    request: z.strictObject({
      server,
      local,
      command,
      max_sats: z.int().min(0).optional().describe('The most that may leave for a lease, price and fees (100).'),
      pay_with: z.enum(['invoice', 'token']).optional(),
      timeout_s: z.int().min(1).max(700_000).optional().describe('How long to wait for the answer; by the command when absent.'),
    }),
    response: z.strictObject({ ...answer, paid_msats: msatsField }),
    spends: true,
    task: true,
    errors: [
      'runtime_not_found',
      'control_refused',
      'idempotency_conflict',
      'price_too_high',
      'insufficient_funds',
      'payment_failed',
      'timeout',
      'locked',
    ],
  },
  askRuntime: {
    method: 'POST',
    path: '/v1/runtimes/queries',
    summary: 'Sends a command that only looks: get_runtime, list_runtimes, logs, collect, list_snapshots, list_volumes, get_request.',
    request: z.strictObject({ server, local, command, timeout_s: z.int().min(1).max(110).optional() }),
    response: z.strictObject(answer),
    errors: ['runtime_not_found', 'control_refused', 'output_too_large', 'timeout', 'locked'],
  },
  commandStatuses: {
    method: 'GET',
    path: '/v1/runtimes/commands/:key/statuses',
    summary:
      'The statuses that a command under this Idempotency-Key has had since the node started; after=<n> leaves the first n out, wait=<seconds> answers as soon as there is one more.',
    request: z.strictObject({
      key: z.string().min(1).max(200),
      after: queryInt(0, 1_000_000).optional(),
      wait: queryInt(0, 60).optional(),
    }),
    response: z.strictObject({ statuses: z.array(status), done: z.boolean() }),
  },
  listOffers: {
    method: 'GET',
    path: '/v1/runtimes/offers',
    summary: 'Machines that nodes on the relays rent out, the cheapest first.',
    request: z.strictObject({
      server,
      region: z.string().max(64).optional(),
      protocol: z.enum(['pi', 'acp']).optional(),
      provider: z.enum(['fly', 'workers', 'microvm', 'incus', 'local']).optional(),
      class: z.string().max(128).optional(),
      max_msats_per_hour: queryInt(0, Number.MAX_SAFE_INTEGER).optional(),
      full: queryFlag.optional().describe('Also those with nothing free now.'),
    }),
    response: z.strictObject({ offers: z.array(offer) }),
    errors: ['pubkey_invalid', 'locked'],
  },
  buildImage: {
    method: 'POST',
    path: '/v1/runtimes/images',
    summary: 'Makes the images of Incus on this machine, with the project, profile and guest program that they need.',
    request: z.strictObject({
      kind: z.enum(['busybox', 'debian']).optional().describe('Both where it is left out.'),
      suite: z.string().max(64).optional().describe('Of Debian; bookworm by default.'),
      mirror: z.string().max(1024).optional().describe('Of Debian, where the default of debootstrap is not reachable.'),
    }),
    response: z.strictObject({
      images: z.array(z.strictObject({ alias: z.string(), fingerprint: z.string() })),
      guest_dir: z.string().nullable().describe('Where the guest program was put; null where no image needs it.'),
      created: z.array(z.string()).describe('What was made in Incus beside the image.'),
    }),
    task: true,
    errors: ['runtime_unsupported', 'incus_unreachable', 'incus_forbidden', 'home_unusable'],
  },
  listRentals: {
    method: 'GET',
    path: '/v1/runtimes/rentals',
    summary: 'Commands that this home sent to the machines of nodes, newest first, with what they cost.',
    request: z.strictObject({ limit: queryInt(1, 1000).optional() }),
    response: z.strictObject({ rentals: z.array(rental) }),
    offline: true,
  },
})
