/** Routes about the node itself: status, keys, configuration, checks, logs, tasks and the end. */
import { z } from 'zod'
import { defineRoutes, msatsField, queryFlag, queryInt, satsField, timeField } from '../route.ts'

const partState = z.enum(['ok', 'degraded', 'off'])
const reason = z.string().optional().describe('Why it is not ok.')
const nextStep = z.string().optional().describe('What to do about it.')
const part = { state: partState, reason, next_step: nextStep }

/** One agent as status shows it. */
export const agentSummary = z.strictObject({
  name: z.string(),
  npub: z.string(),
  pubkey: z.string(),
  state: z.string(),
  reason,
  balance_sats: satsField,
  tick_count: z.int(),
  last_tick_at: timeField.nullable(),
  next_tick_at: timeField.nullable(),
})

const sandboxInfo = z.strictObject({ relay_url: z.string(), mint_url: z.string(), lnurl_base_url: z.string(), state: partState, reason })

const status = z.strictObject({
  running: z.boolean(),
  version: z.string(),
  home: z.string(),
  pid: z.int(),
  started_at: timeField,
  uptime_s: z.int(),
  mode: z.enum(['host', 'provider', 'both']),
  locked: z.boolean(),
  sandbox: sandboxInfo.nullable(),
  identity: z.strictObject({ npub: z.string(), pubkey: z.string() }).nullable(),
  host: z.strictObject({
    ...part,
    agents: z.array(agentSummary),
    approvals_waiting: z.int().describe('Actions that wait for the owner: pylon approvals list.'),
  }),
  provider: z.strictObject({
    ...part,
    kinds: z.array(z.int()),
    verifier: z.string().nullable(),
    backends: z.array(z.strictObject({ name: z.string(), state: partState, reason, models: z.array(z.string()) })),
    jobs: z.record(z.string(), z.int()),
  }),
  relays: z.array(
    z.strictObject({
      url: z.string(),
      state: z.enum(['connected', 'connecting', 'down']),
      reason,
      last_event_at: timeField.nullable(),
      cursor_lag_s: z.int().nullable(),
      outbox_depth: z.int(),
    }),
  ),
  refused: z
    .array(
      z.strictObject({
        relay: z.string(),
        reason: z.string().describe('The prefix of NIP-01 (`invalid`, `blocked`, ...), `other`, or `not-taken-in-time`.'),
        events: z.int(),
        since: timeField,
        last_at: timeField,
        words: z.string().describe('What the relay said last.'),
      }),
    )
    .describe('Events of this node that relays refused for good, counted by relay and reason, the newest first (at most 50).'),
  wallet: z.strictObject({
    ...part,
    balance_sats: satsField,
    at_risk_sats: satsField,
    mints: z.array(
      z.strictObject({
        url: z.string(),
        balance_sats: satsField,
        state: z.enum(['ok', 'down']),
        reason,
        keysets_set_aside: z
          .array(z.strictObject({ keyset_id: z.string(), reason: z.string() }))
          .optional()
          .describe('Keysets on the list of the mint that cannot be used, and why; the others are.'),
      }),
    ),
    lightning: z
      .strictObject({ id: z.string(), balance_sats: satsField.nullable(), state: z.enum(['ok', 'down']), reason })
      .optional()
      .describe("The owner's own Lightning wallet, where one is connected; not part of the balance."),
  }),
  store: z.strictObject({ ...part }),
  backups: z
    .strictObject({ ...part, last_at: timeField.nullable(), last_file: z.string().nullable(), failed_at: timeField.nullable() })
    .describe('The scheduled ones; off without `backup.dir`.'),
  remote_keys: z.strictObject({ ...part }).describe('Keys that bunkers elsewhere hold: degraded while one does not answer, or refuses.'),
  earnings: z.strictObject({ total_msats: msatsField }),
  work: z.strictObject({
    count: z.int(),
    oldest: z.array(z.strictObject({ name: z.string(), since: timeField })).describe('At most 50, the oldest first.'),
  }),
  runtimes: z.strictObject({
    ...part,
    substrates: z.array(z.strictObject({ provider: z.string(), usable: z.boolean(), isolated: z.boolean(), reason, next_step: nextStep })),
    by_state: z.record(z.string(), z.int()).describe('Runtimes that are not gone.'),
    offers: z.array(
      z.strictObject({
        runtime_class: z.string(),
        provider: z.string(),
        price_msats_per_hour: msatsField,
        free: z.int(),
        total: z.int(),
        published: z.boolean(),
        reason,
      }),
    ),
    leases: z.array(
      z.strictObject({
        lease_id: z.string(),
        runtime_id: z.string(),
        tenant: z.string().describe('npub'),
        state: z.string(),
        amount_msats: msatsField,
        ends_at: timeField.nullable(),
      }),
    ),
  }),
})

const check = z.strictObject({
  name: z.string(),
  state: z.enum(['ok', 'warning', 'failed', 'skipped']),
  message: z.string(),
  next_step: nextStep,
})

export const task = z.strictObject({
  task_id: z.string(),
  route: z.string(),
  state: z.enum(['running', 'done', 'failed']),
  created_at: timeField,
  finished_at: timeField.nullable(),
  result: z.unknown().describe('The answer of the route, when done.'),
  error: z.unknown().describe('The error object, when failed.'),
})

export const nodeRoutes = defineRoutes({
  status: {
    method: 'GET',
    path: '/v1/status',
    summary: 'The whole node in one answer: modes, identity, agents, backends, relays, jobs and sats.',
    request: z.strictObject({}),
    response: status,
  },
  ping: {
    method: 'GET',
    path: '/v1/ping',
    summary: 'Says that the node answers, and nothing else.',
    request: z.strictObject({}),
    response: z.strictObject({}),
  },
  shutdown: {
    method: 'POST',
    path: '/v1/shutdown',
    summary: 'Drains and ends the node: no new work, running jobs finish or are parked. The answer comes before the end.',
    request: z.strictObject({ drain_s: z.number().min(0).max(3600).optional().describe('How long running work may go on (default 7).') }),
    response: z.strictObject({ pid: z.int() }),
    status: 202,
  },
  restart: {
    method: 'POST',
    path: '/v1/restart',
    summary:
      'Drains, ends and starts again with the same options and, where they were unlocked, the keys. The answer comes before the end.',
    request: z.strictObject({ mode: z.enum(['host', 'provider', 'both']).optional() }),
    response: z.strictObject({ pid: z.int().describe('Of the process that ends.') }),
    status: 202,
    errors: ['conflict', 'config_invalid'],
  },
  unlock: {
    method: 'POST',
    path: '/v1/unlock',
    summary: 'Unlocks the keys with the passphrase and starts what waited for them.',
    request: z.strictObject({ passphrase: z.string().max(1024) }),
    response: z.strictObject({ locked: z.boolean() }),
    errors: ['passphrase_wrong'],
  },
  reload: {
    method: 'POST',
    path: '/v1/reload',
    summary: 'Reopens the log file and reads config.toml again, as SIGHUP does.',
    request: z.strictObject({}),
    response: z.strictObject({ applied: z.array(z.string()), after_restart: z.array(z.string()) }),
    errors: ['config_invalid'],
  },
  doctor: {
    method: 'GET',
    path: '/v1/doctor',
    summary:
      'Checks the machine, the home, the database and its ledger, relays, mints, backends and substrates of runtimes; each with its next step.',
    request: z.strictObject({}),
    response: z.strictObject({ ok: z.boolean(), checks: z.array(check) }),
    offline: true,
  },
  backup: {
    method: 'POST',
    path: '/v1/backup',
    summary:
      'Writes a consistent copy of database, identity and configuration into one private, encrypted file (age). It contains the keys. ' +
      'Without recipient and passphrase it is for whom the configuration names (`backup.*`).',
    request: z.strictObject({
      path: z.string().min(1).max(4096),
      recipient: z.string().max(4096).optional().describe('An age public key, `age1...`.'),
      passphrase: z.string().min(1).max(1024).optional(),
    }),
    response: z.strictObject({ path: z.string(), bytes: z.int() }),
    errors: ['backup_failed', 'usage'],
  },
  logs: {
    method: 'GET',
    path: '/v1/logs',
    summary: 'The last lines of the log; with follow=true, new ones as they are written.',
    request: z.strictObject({ lines: queryInt(0, 100_000).optional(), follow: queryFlag.optional() }),
    response: z.looseObject({}),
    stream: true,
  },
  events: {
    method: 'GET',
    path: '/v1/events',
    summary: 'What happens in the node from now on: state changes of jobs, agents, tasks and parts.',
    request: z.strictObject({}),
    response: z.looseObject({ type: z.string(), at: timeField }),
    stream: true,
  },
  getTask: {
    method: 'GET',
    path: '/v1/tasks/:id',
    summary: 'A long-running call; wait=<seconds> answers as soon as it ends, at the latest then.',
    request: z.strictObject({ id: z.string(), wait: queryInt(0, 60).optional() }),
    response: task,
    errors: ['task_not_found'],
  },
})
