/** config.toml: its schema, defaults and edits. Reads no environment; unknown keys and wrong values are named, with what is allowed. */
import { parse as parseToml, stringify as toToml } from 'smol-toml'
import { z } from 'zod'
import { ALERT_KINDS } from './alert-kinds.ts'
import { runtimesConfig } from './config-runtimes.ts'
import { keysOf, unknownKey, wordsForIssue } from './config-words.ts'
import { messageOf, PylonError } from './errors.ts'
import { readFileIfAny, writeFileAtomic } from './files.ts'
import { LENGTH } from './lengths.ts'

/** Where profiles and relay lists of everybody are gathered. */
export const DEFAULT_INDEX_RELAYS: readonly string[] = ['wss://purplepag.es', 'wss://indexer.coracle.social']

const relayUrl = z.string().regex(/^wss?:\/\/[^\s#]+$/, 'must be a ws:// or wss:// URL')
const httpUrl = z.string().regex(/^https?:\/\/[^\s#]+$/, 'must be an http:// or https:// URL')
const internetAddress = z.string().regex(/^[\w.+-]+@[\w.-]+(:\d+)?$/, 'must be like name@example.com')
const kind = z.int().min(5000).max(5999)
const count = z.int().min(0)
const seconds = z.int().min(1)
const amountMsats = z.int().min(0)

/** 0 for a whole price is free; any other bare number would leave open what it counts. */
const price = z.preprocess(
  (value) => (value === 0 ? { amount_msats: 0 } : value),
  z.strictObject({
    /** Millisats for one unit. 0 makes the kind free. */
    amount_msats: amountMsats,
    /** `job`: flat; `1k_chars`: per 1,000 characters of input, begun ones count; `1k_tokens`: per 1,000 tokens of input and of the output allowed. */
    unit: z.enum(['job', '1k_chars', '1k_tokens']).default('job'),
  }),
)

const execKind = z.strictObject({
  kind,
  /** argv; the input comes on stdin, each param as PYLON_PARAM_<NAME> in the environment, the result is read from stdout. */
  command: z.array(z.string().min(1)).min(1),
  timeout_s: seconds.default(120),
  max_output_bytes: z.int().min(1).max(4_000_000).default(256_000),
})

const budget = z.strictObject({
  per_tx_sats: count.default(1000),
  per_tick_sats: count.default(1000),
  per_day_sats: count.default(10_000),
  /** 0: no limit of its own. */
  per_hour_sats: count.default(0),
  /** To one counterparty in a day. 0: no limit of its own. */
  per_counterparty_sats: count.default(0),
  /** A spend that passes this, with what was spent in the last hour, waits for the owner. 0: none does. */
  approve_above_sats: count.default(0),
})

/** A key, an address or a host. */
const payee = z.string().min(1).max(320)

/** What the owner, the customer side of the home and payouts may spend, each; and what holds for every spend of the home. */
const spendPolicy = z.strictObject({
  /** 0 stands for no limit here. */
  per_tx_sats: count.default(0),
  per_hour_sats: count.default(0),
  per_day_sats: count.default(0),
  per_counterparty_sats: count.default(0),
  /** Where any are named, nothing leaves by another. */
  rails: z.array(z.enum(['ecash', 'mint', 'nwc'])).default([]),
  /** Where any are named, nobody else is paid. */
  allow: z.array(payee).max(1000).default([]),
  /** Never paid, by agents neither. */
  deny: z.array(payee).max(1000).default([]),
  /** An agent and a key that have paid each other so often within the time rest until it has passed. 0: never. */
  pair_payments: count.default(6),
  pair_window_s: seconds.default(3600),
})

const schema = z.strictObject({
  node: z
    .strictObject({
      name: z.string().min(1).max(64).default('Pylon'),
      about: z.string().max(1000).default('A Pylon node: sells work for sats and hosts agents.'),
      /** Of the node's profile; what is not set stays as its key said it elsewhere. */
      picture: z.union([z.literal(''), httpUrl]).default(''),
      nip05: z.union([z.literal(''), internetAddress]).default(''),
      lud16: z.union([z.literal(''), internetAddress]).default(''),
      mode: z.enum(['host', 'provider', 'both']).default('both'),
      relays: z.array(relayUrl).max(20).default([]),
      /** Where relay lists and profiles of others are looked for besides. */
      index_relays: z
        .array(relayUrl)
        .max(10)
        .default([...DEFAULT_INDEX_RELAYS]),
      log_level: z.enum(['trace', 'debug', 'info', 'warn', 'error']).default('info'),
      dm_scheme: z.enum(['auto', 'nip17', 'nip04']).default('auto'),
    })
    .prefault({}),
  owner: z
    .strictObject({
      /** Whom the node tells what waits and what is wrong, and who may approve by letter (NIP-17). Empty: nobody. */
      npub: z.union([z.literal(''), z.string().regex(/^npub1[02-9ac-hj-np-z]{58}$/, 'must be an npub (npub1...)')]).default(''),
    })
    .prefault({}),
  alerts: z
    .strictObject({
      /** Kinds that the owner is not told of. */
      mute: z.array(z.enum(ALERT_KINDS)).default([]),
      /** Told when the wallet of the node holds less. 0: never. */
      low_balance_sats: count.default(0),
    })
    .prefault({}),
  wallet: z
    .strictObject({
      /** The most that one mint may hold for one wallet. */
      mint_cap_sats: count.default(100_000),
      /** The most that a Lightning payment may cost on top, in percent of the amount (at least 10 sats). */
      max_fee_percent: z.number().min(0).max(100).default(3),
      policy: spendPolicy.prefault({}),
      /** Where what customers pay by Lightning comes in: as ecash at a mint, or into the owner's own wallet (pylon wallet connect). */
      receive_by: z.enum(['mint', 'nwc']).default('mint'),
      /** Tokens of mints that are not on the list: refused, or moved to a mint that is, for its fee. */
      foreign_mints: z.enum(['refuse', 'move']).default('refuse'),
      /** Whether the node and its agents take nutzaps (NIP-61), and say so on relays. */
      nutzaps: z.boolean().default(true),
      /** Whether the wallets of the node stand on relays too, encrypted to their keys (NIP-60): who has a Nostr key then has its sats. */
      nip60: z.boolean().default(false),
      /** Of a service as npub.cash, where agents get Lightning addresses; empty: none. */
      address_service: z.union([z.literal(''), httpUrl]).default(''),
      /** How zaps go out: to a Lightning address, as a nutzap, or auto: as a nutzap only to whom no Lightning address takes it. */
      zap_by: z.enum(['lightning', 'nutzap', 'auto']).default('auto'),
      /** Whether the list of mints is kept on the relays of the node, for its words alone to read (NUT-27). */
      mint_backup: z.boolean().default(true),
    })
    .prefault({}),
  provider: z
    .strictObject({
      prices: z.record(z.string().regex(/^5\d{3}$/, 'a kind from 5000 to 5999'), price).default({}),
      /** Jobs that run at once. */
      concurrency: z.int().min(1).max(256).default(4),
      /** Jobs that wait at most; more are refused as overloaded. */
      queue_limit: z.int().min(1).max(100_000).default(1000),
      /** Open jobs of one customer at most. */
      per_customer_limit: z.int().min(1).max(100_000).default(100),
      /** Free jobs of one customer a day at most. 0 means no limit. */
      free_per_day: count.default(0),
      /** Jobs older than this are refused, so that history is not replayed as work. */
      max_age_s: seconds.default(3600),
      /** How far ahead of our clock a request may be dated. */
      max_skew_s: seconds.default(300),
      /** Invoices at most that wait for customers who have not paid here before. */
      unpaid_invoices: z.int().min(1).max(10_000).default(100),
      /** Bytes of requests at most that are kept for such customers, and again of their jobs that ended. */
      unpaid_bytes: z.int().min(1_000_000).max(1_000_000_000).default(16_000_000),
      /** Under load a stranger is served who sends proof of work of so many bits (NIP-13), or more the more there are. */
      pow_bits: z.int().min(8).max(32).default(16),
      invoice_expiry_s: seconds.default(900),
      job_timeout_s: seconds.default(300),
      max_input_bytes: z.int().min(1).max(4_000_000).default(256_000),
      /** Longer results fail as output_too_large: many relays refuse events over 64 KB. */
      max_result_bytes: z.int().min(1).max(400_000).default(60_000),
      exec: z.array(execKind).max(100).default([]),
      /** An OpenAI-compatible server for kind 5050; empty: ollama, llama.cpp, vLLM and LM Studio are probed on their usual ports. */
      openai_base_url: z.union([z.literal(''), httpUrl]).default(''),
      openai_model: z.string().default(''),
      openai_api_key_file: z.string().default(''),
      probe: z.boolean().default(true),
    })
    .prefault({}),
  host: z
    .strictObject({
      heartbeat_s: seconds.default(900),
      /** What each tick of an agent moves from its wallet to the node's, as rent; an agent can have its own. 0: ticks are free. */
      tick_fee_sats: count.default(0),
      low_balance_days: z.number().min(0).default(7),
      hibernate_days: z.number().min(0).default(1),
      /** Ticks of one agent a trigger may cause at most in an hour. */
      triggered_per_hour: z.int().min(1).default(60),
      debounce_s: count.default(5),
      /** Replies, DMs and reactions of one agent to one key at most in an hour: ends loops between bots. */
      replies_per_hour: z.int().min(1).default(6),
      /** Actions of one tick at most; the rest is refused. */
      actions_per_tick: z.int().min(1).max(50).default(8),
      /** How long an action waits for its owner; then it is refused. */
      approval_expiry_s: seconds.default(86_400),
      /** How long a brain may think. */
      think_timeout_s: seconds.default(120),
      /** Agents that tick at once. */
      concurrency: z.int().min(1).max(64).default(4),
      /** Recent notes of others that an agent reads at each tick. */
      read_notes: z.int().min(0).max(100).default(30),
      budget: budget.prefault({}),
    })
    .prefault({}),
  runtimes: runtimesConfig.prefault({}),
  backup: z
    .strictObject({
      /** Where scheduled backups go, an absolute path of a folder that is there; empty: none are made. */
      dir: z.union([z.literal(''), z.string().regex(/^\//, 'must be an absolute path')]).default(''),
      every: z.string().regex(LENGTH, 'must be a length as 1d, 12h or 45m').default('1d'),
      /** So many of the newest are kept. */
      keep: z.int().min(1).max(1000).default(7),
      /** An age public key that backups are for, also those by hand. */
      recipient: z.union([z.literal(''), z.string().regex(/^age1[a-z0-9]+$/, 'must be an age public key (age1...)')]).default(''),
      /** Or the file with their passphrase. */
      passphrase_file: z.string().default(''),
    })
    .prefault({}),
  retention: z
    .strictObject({
      seen_events_days: z.int().min(4).default(30),
      finished_jobs_days: z.int().min(1).default(90),
      /** Jobs that nobody paid for are forgotten so soon after their end; of free ones that were done the last 1000 stay, without their texts. */
      unpaid_jobs_minutes: z.int().min(1).default(30),
      ticks_days: z.int().min(1).default(90),
      outbox_days: z.int().min(1).default(7),
      session_messages_days: z.int().min(1).default(365),
      session_messages_per_group: z.int().min(1000).default(20_000),
    })
    .prefault({}),
})

export type Config = z.infer<typeof schema>
export type Price = z.infer<typeof price>

export const DEFAULT_CONFIG: Config = schema.parse({})

/** @throws config_invalid naming the key and what is allowed. */
export function parseConfig(source: string, path = 'config.toml'): Config {
  let raw: unknown
  try {
    raw = parseToml(source)
  } catch (error) {
    throw new PylonError('config_invalid', `${path} is not valid TOML: ${messageOf(error)}`)
  }
  const parsed = schema.safeParse(raw)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map((issue) => wordsForIssue(issue, configKeys(), raw))
  throw new PylonError('config_invalid', `${path}: ${sentences(problems.join('; '))} pylon config show prints every key.`, {
    details: { problems },
  })
}

let knownKeys: string[] | undefined
function configKeys(): string[] {
  knownKeys ??= keysOf(schema)
  return knownKeys
}

function noSuchKey(key: string): PylonError {
  const words = unknownKey(key, configKeys())
  return new PylonError(
    'config_unknown_key',
    `${words.charAt(0).toUpperCase()}${sentences(words).slice(1)} pylon config show prints every key.`,
  )
}

const sentences = (words: string): string => (words.endsWith('?') ? words : `${words}.`)

export function loadConfig(path: string): Config {
  return parseConfig(readFileIfAny(path) ?? '', path)
}

/** The value at a dotted key. @throws config_unknown_key. */
export function getConfigValue(config: Config, key: string): unknown {
  let value: unknown = config
  for (const part of key.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, part)) {
      throw noSuchKey(key)
    }
    value = (value as Record<string, unknown>)[part]
  }
  return value
}

/**
 * Sets one dotted key in the file and returns the new configuration; the file is unchanged when the value is refused.
 * @param text a TOML value (`5`, `true`, `["a"]`); what is none is taken as a string.
 */
export function setConfigValue(path: string, key: string, text: string): Config {
  const raw = parseToml(readFileIfAny(path) ?? '') as Record<string, unknown>
  const parts = key.split('.')
  const last = parts.pop()
  if (last === undefined || [last, ...parts].some((part) => !/^[A-Za-z0-9_-]+$/.test(part) || part === '__proto__')) {
    throw noSuchKey(key)
  }
  let table = raw
  for (const part of parts) {
    const stored = Object.hasOwn(table, part) ? table[part] : undefined
    // A price that is written as 0 has its parts all the same.
    const next = table === pricesOf(raw) && stored === 0 ? { amount_msats: 0 } : stored
    if (next !== undefined && (typeof next !== 'object' || next === null || Array.isArray(next))) {
      throw noSuchKey(key)
    }
    const child = (next ?? {}) as Record<string, unknown>
    table[part] = child
    table = child
  }
  table[last] = tomlValue(text)
  const attempt = () => {
    const source = toToml(raw)
    return { source, config: parseConfig(source, path) }
  }
  const { source, config } = knownOr(key, raw, () =>
    orElse(attempt, () => {
      // A name such as 42 is meant as text, though it is also a TOML number.
      table[last] = text
      return attempt()
    }),
  )
  writeFileAtomic(path, source)
  return config
}

/** What a refusal means where the key that was to be set is none. */
function knownOr<T>(key: string, raw: Record<string, unknown>, set: () => T): T {
  try {
    return set()
  } catch (error) {
    const parsed = schema.safeParse(raw)
    const unknown = (parsed.error?.issues ?? []).flatMap((issue) =>
      issue.code === 'unrecognized_keys' ? issue.keys.map((name) => [...issue.path.map(String), name].join('.')) : [],
    )
    throw unknown.some((one) => key === one || key.startsWith(`${one}.`)) ? noSuchKey(key) : error
  }
}

function pricesOf(raw: Record<string, unknown>): unknown {
  return (raw['provider'] as Record<string, unknown> | undefined)?.['prices']
}

/** The second where the first throws; where both do, the error of the first. */
function orElse<T>(first: () => T, second: () => T): T {
  try {
    return first()
  } catch (error) {
    try {
      return second()
    } catch {
      throw error
    }
  }
}

function tomlValue(text: string): unknown {
  try {
    return (parseToml(`value = ${text}`) as { value: unknown }).value
  } catch {
    return text
  }
}
