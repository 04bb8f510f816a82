/** From a command and its class to what an adapter is asked for; pure. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { given } from '../../base/given.ts'
import type { Json } from '../../base/json.ts'
import type { CommandOf } from '../../nostr/control/commands.ts'
import type { ProvisionInput } from '../../runtime/adapter.ts'
import { decodeRuntimeSpec, LEASED_LABEL, type RuntimeSpec, type RuntimeSpecInput } from '../../runtime/contract/spec.ts'
import type { RuntimeRow } from '../../store/selling/runtimes.ts'
import type { RuntimeClass } from './classes.ts'
import { fail } from './failures.ts'

/** Where a managed runtime finds its persistent volume. */
export const VOLUME_PATH = '/data'
/** Substrates that take volumes by name; the others have one of their own or none. */
const VOLUME_PROVIDERS: readonly string[] = ['local', 'incus']

/** What a record keeps of a ProvisionInput beside spec and owner, until the runtime is ready. */
const storedInput = z.object({
  timeoutSecs: z.int().optional(),
  env: z.record(z.string(), z.string()).optional(),
  target: z.string().optional(),
  params: z.record(z.string(), z.json()).optional(),
  session: z.object({ token: z.string(), relays: z.array(z.string()) }).optional(),
  /** The requester brought the agent process: whether it gets ready is theirs to see to. */
  ownCommand: z.boolean().optional(),
})
export type StoredInput = Readonly<z.output<typeof storedInput>>

export interface Order {
  readonly spec: RuntimeSpec
  readonly input: StoredInput
  readonly protocol: RuntimeRow['protocol']
  readonly keepVolume: boolean
}

interface Context {
  readonly runtimeId: string
  readonly owner: string
  readonly botPubkey: string | null
  /** A stranger's: isolated or not at all. */
  readonly requireIsolation: boolean
  /** Paid for: has what the class names and no more. */
  readonly isLeased: boolean
}

/** @throws ControlError invalid_command; spec_* for what the spec itself refuses */
export function orderProvision(command: CommandOf<'provision'>, entry: RuntimeClass, context: Context): Order {
  if (context.isLeased && command.keep)
    throw fail('invalid_command', 'keep: a lease leaves no volume behind; take out what you want to keep before its end')
  const agent = command.entry_command ?? (command.protocol === 'pi' ? entry.pi_command : entry.acp_command)
  if (agent === '')
    throw fail('invalid_command', `the class ${entry.name} has no ${command.protocol} agent of its own: name one in entry_command`)
  const spec = decodeRuntimeSpec({
    ...baseSpec(command, entry, context),
    entry_command: agent,
    mounts: volumeMounts(command, entry, context),
    policies: { restart_policy: 'on_failure', retention_policy: 'keep_until_stopped' },
  })
  const env = {
    ...command.env,
    PIKA_OWNER_PUBKEY: context.owner,
    ...(command.relay_urls.length === 0 ? {} : { PIKA_RELAY_URLS: command.relay_urls.join(',') }),
    ...(command.bot_secret_key_hex === undefined ? {} : { NOSTR_SECRET_KEY: command.bot_secret_key_hex }),
    ...(context.botPubkey === null ? {} : { PIKA_BOT_PUBKEY: context.botPubkey }),
    ...sessionEnv(command, entry, context),
  }
  const input = {
    ...inputOf(command, entry, context),
    env,
    ...(command.session_token === undefined ? {} : { session: { token: command.session_token, relays: [...command.relay_urls] } }),
    ...(command.entry_command === undefined ? {} : { ownCommand: true }),
  }
  return { spec, protocol: command.protocol, keepVolume: command.keep, input }
}

/** A remote image is told by its environment what launch.json tells a guest of ours; there the agent's own environment never has the token. */
function sessionEnv(command: CommandOf<'provision'>, entry: RuntimeClass, context: Context): Record<string, string> {
  if (command.session_token === undefined || VOLUME_PROVIDERS.includes(entry.provider)) return {}
  return { PYLON_SESSION_TOKEN: command.session_token, PYLON_OWNER_PUBKEY: context.owner }
}

export function orderRun(command: CommandOf<'run'>, entry: RuntimeClass, context: Context): Order {
  const spec = decodeRuntimeSpec({
    ...baseSpec(command, entry, context),
    entry_command: command.entry_command,
    policies: {
      restart_policy: 'never',
      retention_policy: command.keep ? 'keep_until_stopped' : 'destroy_on_completion',
      output_collection: { mode: 'always', artifact_globs: [...command.artifact_globs] },
    },
  })
  return {
    spec,
    protocol: null,
    keepVolume: false,
    input: { ...inputOf(command, entry, context), env: { ...command.env }, timeoutSecs: command.timeout_s },
  }
}

/** What makes a runtime. */
export type MachineCommand = CommandOf<'provision'> | CommandOf<'run'>

function baseSpec(command: MachineCommand, entry: RuntimeClass, context: Context): RuntimeSpecInput {
  return {
    identity: { runtime_id: context.runtimeId, instance_name: nameOf(command) ?? context.runtimeId },
    resources: resourcesOf(command, entry, context.isLeased),
    labels: { runtime_class: entry.name, ...(context.isLeased ? { [LEASED_LABEL]: 'true' } : {}) },
  }
}

/** What the class gives, or less; where it names nothing a tenant gets what the substrate gives by itself. */
function resourcesOf(command: MachineCommand, entry: RuntimeClass, isLeased: boolean): NonNullable<RuntimeSpecInput['resources']> {
  const asked = command.resources ?? {}
  const assertWithin = (field: string, want: number | undefined, limit: number | undefined) => {
    if (want === undefined || (limit === undefined ? !isLeased : want <= limit)) return
    const most = limit === undefined ? 'leaves that to the substrate' : `gives at most ${limit}`
    throw fail('invalid_command', `${field}: the class ${entry.name} ${most}`)
  }
  assertWithin('microvm.cpu', command.microvm?.cpu, entry.vcpu_count)
  assertWithin('microvm.memory_mb', command.microvm?.memory_mb, entry.memory_mib)
  const pick = (key: 'vcpu_count' | 'memory_mib' | 'root_disk_gib') => {
    assertWithin(`resources.${key}`, asked[key], entry[key])
    const value = asked[key] ?? entry[key]
    return value === undefined ? {} : { [key]: value }
  }
  return { ...pick('vcpu_count'), ...pick('memory_mib'), ...pick('root_disk_gib') }
}

/** A volume for each managed runtime: of its name where it has one, so that the next of this name finds it again. */
function volumeMounts(command: CommandOf<'provision'>, entry: RuntimeClass, context: Context): NonNullable<RuntimeSpecInput['mounts']> {
  if (!VOLUME_PROVIDERS.includes(entry.provider)) return []
  const name = nameOf(command)
  const source = name === undefined ? `v-${context.runtimeId}` : volumeName(context.owner, name)
  return [{ kind: 'persistent_volume', guest_path: VOLUME_PATH, source, mode: 'read_write', required: true }]
}

/** However it is typed or padded, a name is one name. */
function nameOf({ name }: MachineCommand): string | undefined {
  const plain = name?.normalize('NFC').trim()
  return plain === '' ? undefined : plain
}

/** Owners never meet in one volume, whatever names they choose. */
export function volumeName(owner: string, name: string): string {
  return `v-${createHash('sha256').update(`${owner}\n${name}`).digest('hex').slice(0, 24)}`
}

/** Volumes that a spec writes to. */
export function volumesIn(spec: RuntimeSpec): string[] {
  return spec.mounts.filter((mount) => mount.kind === 'persistent_volume').map((mount) => mount.source)
}

function inputOf(command: MachineCommand, entry: RuntimeClass, context: Context): StoredInput {
  return { target: command.target, params: paramsOf(command, entry, context) }
}

function paramsOf(command: MachineCommand, entry: RuntimeClass, context: Context): Record<string, Json> {
  for (const provider of ['microvm', 'incus', 'local', 'fly', 'workers'] as const) {
    if (command[provider] !== undefined && provider !== entry.provider) {
      throw fail('invalid_command', `${provider}: these parameters do not belong to the provider ${entry.provider}`)
    }
  }
  const own = given<Record<string, Json | undefined>>(command[entry.provider] ?? {}) as Record<string, Json>
  const image = command.image ?? entry.image
  if (entry.provider === 'incus' && image !== undefined && own['image_alias'] === undefined) own['image_alias'] = image
  else if (command.image !== undefined && entry.provider !== 'incus' && command.image !== entry.image) {
    throw fail('invalid_command', `image: the provider ${entry.provider} has no images to choose from`)
  }
  if (entry.provider === 'local' && context.requireIsolation) own['isolation'] = 'required'
  return own
}

/** Whether the agent process came with the command. */
export function broughtCommand(row: RuntimeRow): boolean {
  return storedInput.parse(row.input ?? {}).ownCommand === true
}

/** Of one whose agent is talked to in an encrypted session. */
export function sessionOf(row: RuntimeRow): StoredInput['session'] {
  return storedInput.parse(row.input ?? {}).session
}

/** What an adapter is asked for, from a record. */
export function provisionInputOf(row: RuntimeRow): ProvisionInput {
  const { id: runtimeId, ownerPubkey, protocol } = row
  return adapterInput({ runtimeId, ownerPubkey, protocol, spec: decodeRuntimeSpec(row.spec) }, storedInput.parse(row.input ?? {}))
}

/** The same before there is a record. */
export function adapterInput(
  who: Pick<ProvisionInput, 'runtimeId' | 'ownerPubkey' | 'protocol' | 'spec'>,
  { timeoutSecs, env, session, target, params }: StoredInput,
): ProvisionInput {
  return { ...who, ...given({ session, timeoutSecs, env, target, params }) }
}
