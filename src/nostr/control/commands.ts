/** The commands of the control plane, flattened into their envelope: the five published ones, then ours. */
import { z } from 'zod'
import { CONTROL_PHASES, CONTROL_PROTOCOLS, CONTROL_PROVIDERS } from './vocabulary.ts'

const id = z.string().min(1).max(128)
const name = z.string().max(128)
const text = z.string().max(4096)
const hex64 = z.string().regex(/^[0-9a-f]{64}$/)
const U32_MAX = 2 ** 32 - 1
const u32 = z.int().min(0).max(U32_MAX)
const MAX_COMMAND = 32_768
/** A token of one lease; longer ones have more proofs than a lease needs. */
const MAX_TOKEN = 24_576
const MAX_PROMPT = 32_768

const MAX_LEASE_SECONDS = 366 * 86_400
const MAX_RUN_SECONDS = 7 * 86_400

const leaseSeconds = z.int().min(1).max(MAX_LEASE_SECONDS)
const leaseToken = z.string().min(1).max(MAX_TOKEN)
const env = z
  .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/), z.string().max(16_384))
  .refine((value) => Object.keys(value).length <= 64, 'at most 64 variables')
/** For one provider, decoded strictly by its adapter. */
const params = z.record(z.string().max(64), z.json())

const microvm = z.object({
  spawner_url: text.optional(),
  spawn_variant: name.optional(),
  flake_ref: text.optional(),
  dev_shell: name.optional(),
  cpu: u32.optional(),
  memory_mb: u32.optional(),
  ttl_seconds: z.int().min(0).optional(),
})

const resources = z.object({
  vcpu_count: z.int().min(1).max(255).optional(),
  memory_mib: z.int().min(1).max(U32_MAX).optional(),
  root_disk_gib: z.int().min(1).max(U32_MAX).optional(),
})

/** What `provision` and `run` share beyond the published fields: ours. */
const machine = {
  runtime_class: name.optional(),
  env: env.optional(),
  /** At most what the class gives. */
  resources: resources.optional(),
  image: name.optional(),
  /** Cluster member. */
  target: name.optional(),
  microvm: microvm.optional(),
  incus: params.optional(),
  local: params.optional(),
  fly: params.optional(),
  workers: params.optional(),
  /** How long to rent; the default is the class's shortest. */
  lease_seconds: leaseSeconds.optional(),
  /** Ecash that pays for it; not part of the command's digest. */
  lease_token: leaseToken.optional(),
}

const provision = z.object({
  command: z.literal('provision'),
  provider: z.enum(CONTROL_PROVIDERS),
  protocol: z.enum(CONTROL_PROTOCOLS),
  name: name.optional(),
  relay_urls: z.array(text).max(32).default([]),
  keep: z.boolean().default(false),
  bot_secret_key_hex: hex64.optional(),
  /** Ours: the agent process that speaks the protocol; the default is the class's. */
  entry_command: z.string().min(1).max(MAX_COMMAND).optional(),
  /** Ours: asks for an encrypted session. The guest proves by it, to the requester, that its key is that of this runtime. */
  session_token: hex64.optional(),
  ...machine,
})

const run = z.object({
  command: z.literal('run'),
  provider: z.enum(CONTROL_PROVIDERS).optional(),
  name: name.optional(),
  entry_command: z.string().min(1).max(MAX_COMMAND),
  timeout_s: z.int().min(1).max(MAX_RUN_SECONDS).default(600),
  /** Keeps the runtime for a look after its end, until it is torn down. */
  keep: z.boolean().default(false),
  artifact_globs: z.array(text).max(64).default([]),
  ...machine,
})

const onRuntime = { runtime_id: id }

export const controlCommand = z.discriminatedUnion('command', [
  provision,
  z.object({
    command: z.literal('process_welcome'),
    ...onRuntime,
    group_id: z.string().max(256),
    wrapper_event_id_hex: z.string().max(64).optional(),
    welcome_event_json: z.string().max(49_152).optional(),
  }),
  z.object({
    command: z.literal('teardown'),
    ...onRuntime,
    /** Ours: keep the volume, so that it can be provisioned again. */
    keep_volume: z.boolean().optional(),
  }),
  z.object({ command: z.literal('get_runtime'), ...onRuntime }),
  z.object({
    command: z.literal('list_runtimes'),
    provider: z.enum(CONTROL_PROVIDERS).optional(),
    protocol: z.enum(CONTROL_PROTOCOLS).optional(),
    lifecycle_phase: z.enum(CONTROL_PHASES).optional(),
    runtime_class: name.optional(),
    limit: z.int().min(0).optional(),
  }),
  run,
  z.object({ command: z.literal('recover'), ...onRuntime }),
  z.object({
    command: z.literal('exec'),
    ...onRuntime,
    shell: z.string().min(1).max(MAX_COMMAND),
    timeout_s: z.int().min(1).max(3600).default(60),
    user: name.optional(),
  }),
  z.object({
    command: z.literal('prompt'),
    ...onRuntime,
    protocol: z.enum(CONTROL_PROTOCOLS).optional(),
    message: z.string().min(1).max(MAX_PROMPT),
    session_id: z
      .string()
      .regex(/^[A-Za-z0-9._:-]{1,128}$/)
      .default('default'),
    timeout_s: z.int().min(1).max(3600).default(120),
  }),
  z.object({ command: z.literal('logs'), ...onRuntime, tail_bytes: z.int().min(1).max(32_768).default(16_384) }),
  z.object({
    command: z.literal('collect'),
    ...onRuntime,
    /** `stdout`, `stderr`, `log`, `events`, `status`, `result` or `artifact:<path>`; without it, what there is. */
    output: z.string().max(4096).optional(),
    /** In bytes; pages are at most 32 KiB. */
    offset: z.int().min(0).default(0),
  }),
  z.object({ command: z.literal('snapshot'), ...onRuntime, snapshot: name.optional() }),
  z.object({ command: z.literal('list_snapshots'), ...onRuntime }),
  z.object({ command: z.literal('restore'), ...onRuntime, snapshot: name.optional() }),
  z.object({ command: z.literal('list_volumes'), provider: z.enum(CONTROL_PROVIDERS).optional() }),
  z.object({ command: z.literal('delete_volume'), provider: z.enum(CONTROL_PROVIDERS), volume: id }),
  z.object({
    command: z.literal('extend_lease'),
    ...onRuntime,
    lease_seconds: leaseSeconds,
    lease_token: leaseToken.optional(),
  }),
  /** What became of an earlier command of the same requester, by its idempotency key. */
  z.object({ command: z.literal('get_request'), key: z.string().min(1).max(256) }),
])

export type ControlCommand = Readonly<z.output<typeof controlCommand>>
export type ControlCommandInput = Readonly<z.input<typeof controlCommand>>
export type CommandName = ControlCommand['command']
export type CommandOf<N extends CommandName> = Extract<ControlCommand, { command: N }>

/** Commands that only look: never kept for replay, safe to repeat at any time. */
export const READING_COMMANDS: readonly CommandName[] = [
  'get_runtime',
  'list_runtimes',
  'logs',
  'collect',
  'list_snapshots',
  'list_volumes',
  'get_request',
]
