/** The JSON that tools rely on, field by field, and the exit codes and error forms around it. */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { Rig } from '../support/rig.ts'
import { startSandbox } from '../support/sandbox.ts'
import { StrangerCustomer } from '../support/stranger-customer.ts'

const whole = z.int()
const time = z.iso.datetime()
const network = z.enum(['sandbox', 'live'])
const npub = z.string().regex(/^npub1[a-z0-9]{58}$/)
const hex = z.string().regex(/^[0-9a-f]{64}$/)
const jobStates = 'received refused queued quoted expired paid running ready delivered settled failed refunding refunded cancelled'.split(
  ' ',
)

/** ok, degraded or off; whatever is not ok has a reason. */
const part = <S extends z.ZodRawShape>(states: readonly [string, ...string[]], shape: S) =>
  z.looseObject({ state: z.enum(states), reason: z.string().min(1).optional(), ...shape }).refine((it) => {
    const { state, reason } = it as { state: string; reason?: string }
    return ['ok', 'connected', 'active'].includes(state) || reason !== undefined
  }, 'what is not ok has a reason')

const PART = ['ok', 'degraded', 'off'] as const
const agent = z.looseObject({
  name: z.string(),
  npub,
  pubkey: hex,
  state: z.enum(['spawning', 'active', 'low_balance', 'hibernating', 'dormant', 'paused']),
  balance_sats: whole,
  tick_count: whole,
  last_tick_at: time.nullable(),
  next_tick_at: time.nullable(),
})

const status = z.looseObject({
  network,
  running: z.literal(true),
  version: z.string(),
  home: z.string(),
  pid: whole,
  started_at: time,
  uptime_s: whole,
  mode: z.enum(['host', 'provider', 'both']),
  locked: z.boolean(),
  sandbox: z.looseObject({ relay_url: z.string(), mint_url: z.string(), lnurl_base_url: z.string() }).nullable(),
  identity: z.looseObject({ npub, pubkey: hex }),
  host: part(PART, { agents: z.array(agent) }),
  provider: part(PART, {
    kinds: z.array(whole),
    verifier: z.string(),
    backends: z.array(z.looseObject({ name: z.string(), state: z.enum(PART), models: z.array(z.string()) })),
    jobs: z.partialRecord(z.enum(jobStates), whole),
  }),
  relays: z.array(
    part(['connected', 'connecting', 'down'], {
      url: z.string(),
      last_event_at: time.nullable(),
      cursor_lag_s: whole.nullable(),
      outbox_depth: whole,
    }),
  ),
  wallet: z.looseObject({
    balance_sats: whole,
    at_risk_sats: whole,
    mints: z.array(z.looseObject({ url: z.string(), balance_sats: whole })),
  }),
  runtimes: part(PART, {}),
})

const earnings = z.looseObject({
  network,
  total_msats: whole,
  jobs_completed: whole,
  by_source: z.strictObject({ job: whole, zap: whole, lease: whole, tip: whole, other: whole }),
  internal_msats: whole,
  by_kind: z.array(z.looseObject({ kind: whole, msats: whole })),
  by_day: z.array(z.looseObject({ day: z.iso.date(), msats: whole })),
  recent: z.array(
    z.looseObject({
      id: z.string(),
      source: z.enum(['job', 'zap', 'lease', 'tip', 'other']),
      job_id: hex.nullable(),
      amount_msats: whole,
      earned_at: time,
    }),
  ),
})

const agentDetail = agent.extend({
  network,
  lud06: z.string().nullable(),
  picture: z.string().nullable(),
  nip05: z.string().nullable(),
  lud16: z.string().nullable(),
  relays: z.array(z.string()),
  brain: z.looseObject({ type: z.string() }),
})
const purchase = z.looseObject({
  network,
  job_id: hex,
  status: z.string(),
  provider: npub.nullable(),
  paid_msats: whole,
  result: z.string().nullable(),
  error: z.looseObject({ code: z.string(), message: z.string() }).nullable(),
})
const failure = z.strictObject({
  error: z.looseObject({ code: z.string().regex(/^[a-z_]+$/), message: z.string().min(10), retryable: z.boolean() }),
})

test('every command answers by the contract', async () => {
  await using rig = new Rig()
  await rig.ok('start', '--sandbox')
  await rig.ok('config', 'set', 'provider.probe', 'false', '--sandbox')
  const expectJson = async <S extends z.ZodType>(schema: S, ...args: string[]): Promise<z.output<S>> => {
    const run = await rig.ok(...args, '--json')
    expect(Object.keys(run.json())[0]).toBe('network')
    expect(run.stderr).toBe('')
    const parsed = schema.safeParse(run.json())
    if (!parsed.success) throw new Error(`pylon ${args.join(' ')}: ${z.prettifyError(parsed.error)}`)
    return parsed.data
  }
  await rig.ok('wallet', 'fund', '500')
  await expectJson(agentDetail, 'agent', 'spawn', '--name', 'ada')
  await expectJson(agentDetail, 'agent', 'show', 'ada')
  await expectJson(z.looseObject({ network, agents: z.array(agent).length(1) }), 'agent', 'list')
  const { identity, sandbox } = await expectJson(status, 'status')
  const sold = await expectJson(
    purchase,
    ...['job', 'submit', '--kind', '5001', '--input', 'Two words. And more of them.', '--provider', identity.npub, '--wait'],
  )
  expect(sold).toMatchObject({ status: 'completed', paid_msats: 2000, error: null })
  const { token } = await expectJson(z.looseObject({ network, token: z.string().startsWith('cashu') }), 'wallet', 'send', '10')
  await expectJson(z.looseObject({ network, amount_sats: whole }), 'wallet', 'receive', token)
  await expectJson(
    z.looseObject({ network, request: z.string().startsWith('lnbcrt'), quote_id: z.string().min(1), expires_at: time }),
    ...['wallet', 'invoice', '7'],
  )
  await expectJson(
    z.looseObject({ network, balance_sats: whole, mints: z.array(z.looseObject({ url: z.string(), balance_sats: whole })).length(1) }),
    ...['wallet', 'balance'],
  )

  // What comes from others, since own keys earn nothing here.
  using customer = await StrangerCustomer.create([sandbox?.relay_url ?? ''], sandbox?.mint_url ?? '')
  for (const input of ['One sentence.', 'Another sentence.']) {
    const request = customer.build({ kind: 5001, input, provider: identity.pubkey })
    customer.send(request)
    await expect.poll(() => customer.about(request, 'payment-required').length, { timeout: 20_000 }).toBe(1)
    const [asked] = customer.about(request, 'payment-required')
    if (asked !== undefined) await customer.payInvoice(asked)
    await expect.poll(() => customer.about(request, 6001).length, { timeout: 20_000 }).toBe(1)
  }
  await expect.poll(async () => (await rig.ok('earnings', '--json')).json()['total_msats'], { timeout: 20_000, interval: 700 }).toBe(4000)
  const all = await expectJson(earnings, 'earnings')
  expect(all).toMatchObject({ jobs_completed: 3, internal_msats: 2000, by_source: { job: 4000 } })
  expect(all.recent).toHaveLength(2)
  expect((await expectJson(earnings, 'earnings', '--limit', '1')).recent).toEqual(all.recent.slice(0, 1))
  expect(await expectJson(earnings, 'earnings', '--since', '1h')).toEqual(all)
  const tomorrow = new Date(Date.now() + 86_400_000).toISOString()
  expect(await expectJson(earnings, 'earnings', '--since', tomorrow)).toMatchObject({
    total_msats: 0,
    jobs_completed: 0,
    by_day: [],
    recent: [],
  })
  const earned = async (...more: readonly string[]) => {
    const lines = (await rig.ok('earnings', '--csv', ...more)).stdout.trimEnd().split('\n')
    return lines.filter((line) => !line.includes(',cost:'))
  }
  const [header, ...rows] = await earned()
  expect(header?.split(',')).toEqual(expect.arrayContaining(['id', 'source', 'job_id', 'amount_msats', 'earned_at']))
  expect(rows).toHaveLength(2)
  expect(await earned('--limit', '1')).toHaveLength(2)

  await rig.ok('stop')
  const stopped = await rig.run(['status', '--json'])
  expect({ code: stopped.code, answer: stopped.json() }).toMatchObject({ code: 3, answer: { network: 'sandbox', running: false } })
  expect(Object.keys(stopped.json())[0]).toBe('network')
  await expectJson(earnings, 'earnings')
  await expectJson(agentDetail, 'agent', 'show', 'ada')
})

test('errors are one line with the code, or the error object, on stderr, with the exit code of their kind', async () => {
  await using rig = new Rig()
  const sandbox = await startSandbox()
  await rig.ok('start', '--sandbox', '--relay', sandbox.relayUrl, '--mint', sandbox.mintUrl)
  const written = new Set<string>()
  const fails = async (exit: number, code: string, args: readonly string[], input = '') => {
    const run = await rig.run(args, { input })
    expect({ args, code: run.code, out: run.stdout }).toEqual({ args, code: exit, out: '' })
    expect(run.stderr).toMatch(new RegExp(`^pylon: [^\\n]{10,}\\(${code}\\)\\n$`))
    // How an error is written is decided in one place: once for each code shows it.
    if (written.has(code)) return
    written.add(code)
    const asJson = await rig.run([...args, '--json'], { input })
    expect({ args, code: asJson.code, out: asJson.stdout }).toEqual({ args, code: exit, out: '' })
    expect(failure.parse(JSON.parse(asJson.stderr)).error.code).toBe(code)
  }
  const big = 'a'.repeat(1_000_000)
  await fails(2, 'usage', ['wallet'])
  await fails(2, 'usage', ['wallet', 'mints'])
  await fails(2, 'usage', ['nonsense'])
  await fails(2, 'usage', ['wallet', 'fund', '-5'])
  await fails(2, 'usage', ['wallet', 'fund', '99999999999999999999'])
  await fails(2, 'usage', ['wallet', 'fund', '1e3'])
  await fails(2, 'usage', ['wallet', 'fund', '😀'])
  await fails(2, 'usage', ['wallet', 'pay'])
  await fails(2, 'usage', ['wallet', 'send', '5', '--lock'])
  await fails(2, 'usage', ['agent', 'show', ''])
  await fails(2, 'usage', ['jobs', 'show', ''])
  await fails(2, 'usage', ['wallet', 'balance', '--wallet', ''])
  await fails(2, 'usage', ['job', 'submit', '--kind', 'x', '--input', 'y'])
  await fails(2, 'invalid_request', ['job', 'submit', '--kind', '1', '--input', 'y'])
  await fails(2, 'usage', ['job', 'submit', '--kind', '5001', '--input', `@${join(rig.dir, 'nowhere')}`])
  await fails(1, 'pubkey_invalid', ['job', 'submit', '--kind', '5001', '--input', 'y', '--provider', 'npub1nonsense'])
  await fails(1, 'input_invalid', ['job', 'submit', '--kind', '5001', '--input', '-'], big)
  await fails(2, 'invalid_request', ['wallet', 'receive', '-'], big)
  await fails(1, 'token_invalid', ['wallet', 'receive', '-'], 'a\0b')
  await fails(1, 'agent_name_invalid', ['agent', 'spawn', '--name', '😀'])
  await fails(1, 'agent_not_found', ['agent', 'tick', 'nobody'])
  await fails(1, 'job_not_found', ['job', 'show', 'ff'])
  await fails(2, 'usage', ['earnings', '--since', 'yesterday'])
  await fails(1, 'config_unknown_key', ['config', 'get', '😀'])
  expect((await rig.ok('doctor', '--json')).json()).toMatchObject({ ok: true })
  await rig.ok('stop')
  await sandbox.stop()
  await fails(3, 'not_running', ['wallet', 'balance'])
  await fails(3, 'not_running', ['agent', 'spawn'])
})
