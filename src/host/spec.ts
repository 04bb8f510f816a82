/** What the owner says when spawning or changing an agent, checked and completed. */

import { z } from 'zod'
import type { Config } from '../base/config.ts'
import { PylonError } from '../base/errors.ts'
import { given } from '../base/given.ts'
import { parseJson } from '../base/json.ts'
import { parsePubkey } from '../nostr/nips/nip19.ts'
import { relayUrls } from '../nostr/relay/relay-url.ts'
import type { AgentPatch, AgentRow, NewAgent } from '../store/agents/agents.ts'
import type { GoalRow } from '../store/agents/goals.ts'
import { nameInHex } from '../wallet/policy/spends.ts'
import { type BrainInput, parseBrain } from './brains/brain.ts'

const NAME = /^[a-z0-9_-]{1,32}$/
const MAX_ALLOW = 1000

const budget = z.strictObject({
  per_tx_sats: z.int().min(0).optional(),
  per_tick_sats: z.int().min(0).optional(),
  per_day_sats: z.int().min(0).optional(),
  per_hour_sats: z.int().min(0).optional(),
  per_counterparty_sats: z.int().min(0).optional(),
  approve_above_sats: z.int().min(0).optional(),
  rails: z
    .array(z.enum(['ecash', 'mint', 'nwc']))
    .max(3)
    .optional(),
  deny: z.array(z.string().trim().min(1).max(320).transform(nameInHex)).max(MAX_ALLOW).optional(),
})

/** Empty: to be removed from the profile. */
const pictureUrl = z.union([
  z.literal(''),
  z
    .string()
    .max(2000)
    .regex(/^https?:\/\/[^\s]+$/, 'must be an http:// or https:// URL'),
])
const internetAddress = z.union([
  z.literal(''),
  z
    .string()
    .max(320)
    .regex(/^[\w.+-]+@[\w.-]+(:\d+)?$/, 'must be like name@example.com'),
])

const fields = {
  name: z.string().optional(),
  about: z.string().max(1000).optional(),
  /** See BrainInput; absent: the built-in rules. */
  brain: z.unknown().optional(),
  relays: z.array(z.string()).max(20).optional(),
  heartbeat_s: z.int().min(1).max(31_536_000).optional(),
  autonomy: z.enum(['bounded', 'autonomous', 'supervised']).optional(),
  dm_scheme: z.enum(['auto', 'nip17', 'nip04']).optional(),
  budget: budget.optional(),
  /** npubs or hex keys. */
  allow: z.array(z.string()).max(MAX_ALLOW).optional(),
  tick_fee_sats: z.int().min(0).max(1_000_000).optional(),
  picture: pictureUrl.optional(),
  nip05: internetAddress.optional(),
  lud16: internetAddress.optional(),
}

const patchSchema = z.strictObject(fields)
const spawnSchema = z.strictObject({ ...fields, import: z.string().max(500_000).optional(), bunker: z.string().max(4096).optional() })

type Change = Omit<z.input<typeof patchSchema>, 'brain'>
export type AgentChange = Readonly<Change & { brain?: BrainInput | undefined }>
/** With an nsec, 64 hex digits, or what `agent export` gave; or with the string of a bunker that holds the key. */
export type SpawnSpec = AgentChange & Pick<z.input<typeof spawnSchema>, 'import' | 'bunker'>

type ParsedChange = z.infer<typeof patchSchema>

function parse<T extends z.ZodType>(schema: T, value: unknown): z.infer<T> {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'request'} ${issue.message}`)
  throw new PylonError('invalid_request', `The agent is not described rightly: ${problems.join('; ')}.`, { details: { problems } })
}

function checkName(name: string): string {
  if (!NAME.test(name)) {
    throw new PylonError('agent_name_invalid', `${JSON.stringify(name.slice(0, 60))} is no agent name: use 1 to 32 of a-z, 0-9, - and _.`)
  }
  return name
}

function checkRelays(list: readonly string[]): string[] {
  const urls = relayUrls(list)
  const wrong = list.find((text) => relayUrls([text]).length === 0)
  if (wrong !== undefined)
    throw new PylonError('relay_invalid', `${JSON.stringify(wrong.slice(0, 100))} is not a relay URL (ws:// or wss://).`)
  return urls
}

/** A new agent but for its key and name. @throws invalid_request, agent_name_invalid, brain_invalid, script_invalid, relay_invalid, pubkey_invalid */
export function parseSpawn(
  value: unknown,
  config: Config,
): {
  name: string | undefined
  import: string | undefined
  bunker: string | undefined
  agent: Omit<NewAgent, 'pubkey' | 'npub' | 'name' | 'accountIndex'>
} {
  const spawn = parse(spawnSchema, value)
  if (spawn.import !== undefined && spawn.bunker !== undefined)
    throw new PylonError('invalid_request', 'A key comes either by import or by a bunker: give one of them.')
  const spec = { ...bundleOf(spawn.import), ...given(spawn) }
  const { host, node } = config
  return {
    name: spec.name === undefined ? undefined : checkName(spec.name),
    import: spawn.import,
    bunker: spawn.bunker,
    agent: {
      about: spec.about ?? 'An agent hosted by Pylon.',
      brain: parseBrain(spec.brain ?? { type: 'script' }),
      relays: checkRelays(spec.relays ?? []),
      heartbeatS: spec.heartbeat_s ?? host.heartbeat_s,
      autonomy: spec.autonomy ?? 'bounded',
      dmScheme: spec.dm_scheme ?? node.dm_scheme,
      budget: { ...host.budget, ...given(spec.budget ?? {}) },
      allow: (spec.allow ?? []).map(parsePubkey),
      tickFeeSats: spec.tick_fee_sats ?? host.tick_fee_sats,
      // A bundle has a name and an about in any case: the owner's word is what is given beside it.
      profile: profileOf({ ...spec, name: spawn.name, about: spawn.about }),
    },
  }
}

/** What an exported bundle says of the agent besides its keys. */
function bundleOf(text: string | undefined): Partial<ParsedChange> {
  const bundle = text?.trimStart().startsWith('{') === true ? parseJson(text) : undefined
  if (typeof bundle !== 'object' || bundle === null) return {}
  const known = Object.fromEntries(Object.entries(bundle).filter(([field]) => field in fields))
  return parse(patchSchema, known)
}

/** @throws as parseSpawn */
export function parsePatch(value: unknown, current: AgentRow): AgentPatch {
  const change = parse(patchSchema, value)
  const profile = profileOf(change)
  return {
    ...(change.name === undefined ? {} : { name: checkName(change.name) }),
    ...given({ about: change.about }),
    ...(change.brain === undefined ? {} : { brain: parseBrain(change.brain) }),
    ...(change.relays === undefined ? {} : { relays: checkRelays(change.relays) }),
    ...given({ heartbeatS: change.heartbeat_s, autonomy: change.autonomy, dmScheme: change.dm_scheme }),
    ...(change.budget === undefined ? {} : { budget: { ...current.budget, ...given(change.budget) } }),
    ...(change.allow === undefined ? {} : { allow: change.allow.map(parsePubkey) }),
    ...given({ tickFeeSats: change.tick_fee_sats }),
    ...(Object.keys(profile).length === 0 ? {} : { profile: { ...current.profile, ...profile } }),
  }
}

/** What the owner sets of the profile (kind 0). */
function profileOf(change: Partial<ParsedChange>): Record<string, string> {
  const { name, about, picture, nip05, lud16 } = change
  return given({ name, about, picture, nip05, lud16 }) as Record<string, string>
}

const goalSchema = z
  .array(
    z.strictObject({
      description: z.string().trim().min(1).max(500),
      priority: z.int().min(1).max(5).default(3),
      status: z.enum(['active', 'paused', 'completed', 'cancelled']).default('active'),
      progress: z.int().min(0).max(100).default(0),
    }),
  )
  .max(50)

export type GoalSpec = z.input<typeof goalSchema>[number]

/** @throws invalid_request */
export function parseGoals(value: unknown): Omit<GoalRow, 'id'>[] {
  return parse(goalSchema, value)
}
