/** What the commands ask of the control socket and what they print: the real client and server, handlers that record. */
import { join } from 'node:path'
import { afterEach, expect, test, vi } from 'vitest'
import { msats, sats } from '../../../src/base/amounts.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { ensurePrivateDir } from '../../../src/base/files.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { runCli } from '../../../src/cli/cli.ts'
import { agentsRoutes } from '../../../src/control/contract/agents.ts'
import { earningsRoutes } from '../../../src/control/contract/earnings.ts'
import { purchasesRoutes } from '../../../src/control/contract/jobs.ts'
import { nodeRoutes } from '../../../src/control/contract/node.ts'
import { walletRoutes } from '../../../src/control/contract/wallet.ts'
import type { Handler, Route } from '../../../src/control/route.ts'
import { ControlServer } from '../../../src/control/server.ts'
import { testScope } from '../../support/scope.ts'
import { tempDir } from '../../support/temp.ts'

const AT = '2026-03-01T12:00:00.000Z'
/** The chart ends today. */
const TODAY = new Date().toISOString().slice(0, 10)

afterEach(() => {
  vi.restoreAllMocks()
  process.exitCode = undefined
  delete process.env['PYLON_HOME']
})

/** A home whose socket answers one route; returns what it was asked. */
async function serve<R extends Route>(route: R, answer: () => unknown, network: 'sandbox' | 'live' = 'sandbox') {
  return await serveAll([[route, answer]], network)
}

async function serveAll(answers: readonly (readonly [Route, Handler<Route>])[], network: 'sandbox' | 'live' = 'sandbox', home = tempDir()) {
  const dir = network === 'sandbox' ? join(home, 'sandbox') : home
  ensurePrivateDir(dir)
  const asked: { input: unknown; key: string }[] = []
  const recorded =
    (answer: Handler<Route>): Handler<Route> =>
    (input, call) => {
      asked.push({ input, key: call.idempotencyKey })
      return answer(input, call)
    }
  const server = new ControlServer({
    scope: testScope(),
    routes: answers.map(([route, answer]) => ({ route, handler: recorded(answer) })),
    network,
    claims: { claim: () => Promise.resolve({ state: 'new' }), answer: () => Promise.resolve() },
    tasks: {
      run: () => Promise.resolve(),
      find: () => undefined,
      get: () => Promise.reject(new PylonError('task_not_found', 'No tasks here.')),
    },
    logger: silentLogger,
  })
  await server.listen(join(dir, 'control.sock'))
  process.env['PYLON_HOME'] = home
  return { asked, stop: () => server.close() }
}

const unused = () => Promise.reject(new Error('No command here starts a process.'))
const roles = { daemon: unused, sandbox: unused, mcp: unused }

async function run(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  let out = ''
  let err = ''
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    out += String(text)
    return true
  })
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    err += String(text)
    return true
  })
  const code = await runCli(argv, roles)
  vi.restoreAllMocks()
  return { code, out, err }
}

const purchase = {
  purchase_id: 'p1',
  job_id: 'a'.repeat(64),
  status: 'completed' as const,
  reason: null,
  kind: 5001,
  provider: null,
  paid_msats: msats(21_000n),
  fee_msats: msats(0n),
  result: 'short',
  results: [],
  refunds: [],
  error: null,
  created_at: AT,
  updated_at: AT,
  deadline_at: AT,
  offers: [],
  events: [],
}

test('job submit asks for exactly what was typed, under the key that was given', async () => {
  const { asked, stop } = await serve(purchasesRoutes.submitPurchase, () => purchase)
  const done = await run(
    ...['job', 'submit', '--kind', '5001', '--input', 'some text', '--param', 'length=3', '--param', 'x=a=b', '--max-sats', '1,000'],
    ...['--encrypt', '--pay-with', 'token', '--timeout', '60', '--idempotency-key', 'k-1', '--json'],
  )
  await stop()
  expect(asked).toEqual([
    {
      input: {
        kind: 5001,
        inputs: [{ data: 'some text', type: 'text' }],
        params: [
          ['length', '3'],
          ['x', 'a=b'],
        ],
        encrypt: true,
        pay: 'auto',
        pay_with: 'token',
        max_sats: 1000,
        timeout_s: 60,
      },
      key: 'k-1',
    },
  ])
  expect(done).toMatchObject({ code: 0, err: '' })
  expect(JSON.parse(done.out)).toMatchObject({ network: 'sandbox', job_id: purchase.job_id, paid_msats: 21_000, result: 'short' })
})

test('job submit --wait exits 1 when the job did not complete, and shows why', async () => {
  const error = { code: 'backend_failed', message: 'it broke' }
  const { stop } = await serve(purchasesRoutes.submitPurchase, () => ({ ...purchase, status: 'refunded', result: null, error }))
  const done = await run('job', 'submit', '--kind', '5001', '--input', 'x', '--wait')
  await stop()
  expect(done.code).toBe(1)
  expect(done.out).toContain('Error: it broke (backend_failed)')
  expect(done.err).toBe('(sandbox: play money)\n')
})

/** A silent provider: what the node says of the job stays the same. */
async function serveSilent(patch: object) {
  const deadline_at = new Date(Date.now() + 1000).toISOString()
  const job = { ...purchase, result: null, deadline_at, ...patch }
  return await serveAll([
    [purchasesRoutes.submitPurchase, () => job],
    [
      purchasesRoutes.getPurchase,
      (_input, { signal }) =>
        new Promise((resolve) => {
          const timer = setTimeout(() => resolve(job), 3000)
          signal.addEventListener('abort', () => {
            clearTimeout(timer)
            resolve(job)
          })
        }),
    ],
  ])
}

test.each([
  ['is silent', { status: 'paid' as const }, 'there is no result yet, 21 sats were paid'],
  ['owes a refund', { status: 'failed' as const }, 'the refund has not come yet, 21 sats were paid'],
  ['was never found', { status: 'requested' as const, paid_msats: msats(0n) }, 'nothing was paid'],
])(
  'job submit --wait ends at its own deadline where the provider %s, and says how to go on',
  async (_how, patch, words) => {
    const { stop } = await serveSilent(patch)
    const done = await run('job', 'submit', '--kind', '5001', '--input', 'x', '--wait', '--timeout', '1')
    await stop()
    expect(done.code).toBe(1)
    expect(done.err).toContain(words)
    expect(done.err).toContain(`pylon job show ${purchase.job_id}`)
  },
  10_000,
)

test.each([
  ['a wait', ['--wait']],
  ['a question', ['--pay', 'ask']],
])('Ctrl-C ends %s, not the job', async (_what, flags) => {
  const { stop } = await serveSilent({ status: 'requested', deadline_at: new Date(Date.now() + 60_000).toISOString() })
  const ended = run('job', 'submit', '--kind', '5001', '--input', 'x', ...flags)
  await vi.waitFor(() => expect(process.listenerCount('SIGINT')).toBeGreaterThan(before))
  process.emit('SIGINT')
  expect(await ended).toMatchObject({ code: 130, out: '' })
  expect((await ended).err).toContain('The job goes on')
  expect(process.listenerCount('SIGINT')).toBe(before)
  await stop()
})

const before = process.listenerCount('SIGINT')

test('several results of one payment are all shown', async () => {
  const results = ['npub1a', 'npub1b'].map((provider, n) => ({ event_id: String(n), provider, content: `words ${n}`, received_at: AT }))
  const { stop } = await serve(purchasesRoutes.submitPurchase, () => ({ ...purchase, result: null, results }))
  const done = await run('job', 'submit', '--kind', '5001', '--input', 'x', '--wait')
  await stop()
  expect(done.out).toContain('Result of npub1a:\nwords 0\n\nResult of npub1b:\nwords 1')
})

const agent = {
  name: 'ada',
  npub: 'npub1x',
  pubkey: 'b'.repeat(64),
  state: 'active',
  balance_sats: sats(5n),
  tick_count: 1,
  last_tick_at: AT,
  next_tick_at: null,
  about: '',
  created_at: AT,
  heartbeat_s: 900,
  autonomy: 'bounded' as const,
  dm_scheme: 'auto' as const,
  lud06: null,
  picture: null,
  nip05: null,
  lud16: null,
  relays: [],
  brain: { type: 'exec' as const, command: 'cat' },
  allow: [],
  tick_fee_sats: sats(0n),
  budget: {
    ...{ per_tx_sats: sats(1n), per_tick_sats: sats(1n), per_day_sats: sats(1n), spent_today_sats: sats(0n) },
    ...{ per_hour_sats: null, per_counterparty_sats: null, approve_above_sats: null, rails: [], deny: [] },
  },
  transitions: [],
}

test('agent spawn gathers the brain from its options', async () => {
  const { asked, stop } = await serve(agentsRoutes.spawnAgent, () => agent)
  const done = await run('agent', 'spawn', '--name', 'ada', '--command', 'cat', '--relay', 'ws://a', '--relay', 'ws://b', '--per-tx', '0')
  await stop()
  expect(asked[0]?.input).toEqual({
    name: 'ada',
    brain: { type: 'exec', command: 'cat' },
    relays: ['ws://a', 'ws://b'],
    budget: { per_tx_sats: 0 },
  })
  expect(done.code).toBe(0)
  expect(done.out).toContain('pylon agent log ada')
})

test.each([
  [['agent', 'spawn', '--brain', 'script', '--command', 'cat'], 'exec brains'],
  [['agent', 'set', 'ada'], 'Nothing to set'],
  [['agent', 'delete', 'ada'], 'add --yes'],
  [['wallet', 'fund', '1.5'], 'whole number'],
  [['wallet', 'fund', '-5'], ''],
  [['wallet', 'fund', '1,5'], 'whole number'],
  [['wallet', 'fund', '0,001'], 'whole number'],
  [['wallet', 'fund', ''], 'whole number'],
  [['wallet', 'fund', '5', '--idempotency-key', 'a b'], 'printable'],
  [['wallet', 'fund', '5', '--idempotency-key', '\u001b[2J'], 'printable'],
  [['stop', '--timeout', ''], '--timeout'],
  [['stop', '--timeout', '0x10'], '--timeout'],
  [['stop', '--timeout'], '--timeout needs a value'],
  [['logs', '-n', ' '], '--lines'],
  [['sandbox', '--dir', 'd', '--relay-port', '65536'], '--relay-port'],
  [['sandbox', '--dir', ''], 'needs a path'],
  [['start', '--passphrase-file', ''], 'needs a path'],
  [['start', '--relay', ''], '--relay must be'],
  [['start', '--mode', 'sideways'], 'mode is one of host, provider, both; not "sideways".'],
  [['backup', ''], 'needs a path'],
  [['wallet', 'fund', '9007199254740993'], 'whole number'],
  [['wallet', 'balance', '--wallet', 'a', '--wallet', 'b'], 'more than once'],
  [['job', 'submit', '--kind', '5001'], '--input must be given'],
  [['job', 'submit', '--kindd', '5001'], 'There is no option --kindd; did you mean --kind?'],
  [['job', 'submit', '--kind', '5001', '--input', 'x', '--max-sat', '5'], 'did you mean --max-sats?'],
  [['job', 'submit', '--kind', '5001', '--input', 'x', '--pay', 'atuo'], 'did you mean auto?'],
  [['wallet', 'pay', 'lnbc', '--maxfee', '4'], 'did you mean --max-fee?'],
  [['status', '--jsn'], 'did you mean --json?'],
  [['logs', '-x'], 'There is no option -x'],
  [['wallet', 'fund', '5', '6'], '"6" is more than the command takes'],
  [['wallet', 'blance'], 'Did you mean balance?'],
  [['job', 'submit', '--kind', '5001', '--input', 'x', '--param', 'novalue'], 'name=value'],
  [['job', 'submit', '--kind', '5001', '--input', '@/nowhere/at/all'], 'cannot be read'],
  [['earnings', '--since', 'yesterday'], '24h, 7d, 4w'],
  [['jobs', 'list', '--state', 'nonsense'], 'state'],
  [['wallet', 'frobnicate'], ''],
])('%j is a usage error', async (argv, words) => {
  process.env['PYLON_HOME'] = tempDir()
  const done = await run(...argv)
  expect(done).toMatchObject({ code: 2, out: '' })
  expect(done.err).toContain(words)
  expect(done.err.trim().split('\n')).toHaveLength(1)
  expect(done.err).toMatch(/\(usage\)\n$/)
})

test('an error of the node is one line with its code, or the error object with --json', async () => {
  const fail = () => {
    throw new PylonError('insufficient_funds', 'The wallet holds 3 sats and 5 are needed.', { details: { balance_sats: 3 } })
  }
  const { stop } = await serve(walletRoutes.sendToken, fail)
  const human = await run('wallet', 'send', '5')
  const json = await run('wallet', 'send', '5', '--json')
  await stop()
  expect(human).toEqual({ code: 1, out: '', err: 'pylon: The wallet holds 3 sats and 5 are needed. (insufficient_funds)\n' })
  expect(json).toMatchObject({ code: 1, out: '' })
  expect(JSON.parse(json.err)).toEqual({
    error: {
      code: 'insufficient_funds',
      message: 'The wallet holds 3 sats and 5 are needed.',
      retryable: false,
      details: { balance_sats: 3 },
    },
  })
})

test('pylon alone shows the help; with --json it is an error like any other', async () => {
  const alone = await run()
  expect(alone).toMatchObject({ code: 2, out: '' })
  expect(alone.err).toContain('pylon start')
  const json = await run('--json')
  expect(json.code).toBe(2)
  expect(JSON.parse(json.err)).toMatchObject({ error: { code: 'usage' } })
})

test('an error is short, whatever was typed', async () => {
  const done = await run('wallet', 'fund', 'x'.repeat(100_000))
  expect(done.code).toBe(2)
  expect(done.err.length).toBeLessThan(1100)
})

test('what is printed drives no terminal, and JSON reads back the same', async () => {
  const name = 'a\u001b[2J\u009b31m\u202eb'
  const { stop } = await serve(agentsRoutes.startAgent, () => ({ ...agent, name }))
  const human = await run('agent', 'start', 'ada')
  const json = await run('agent', 'start', 'ada', '--json')
  await stop()
  const driving = ['\u001b', '\u009b', '\u202e']
  expect(human.out).toContain('is active.')
  for (const { out } of [human, json]) expect(driving.filter((char) => out.includes(char))).toEqual([])
  expect(JSON.parse(json.out)).toMatchObject({ name })
})

test('a token is all that is on standard output, so that it goes on through a pipe', async () => {
  const sent = { token: 'cashuB1', amount_sats: sats(5n), fee_sats: sats(0n), mint_url: 'http://m', operation_id: 'o', state: 'pending' }
  const { stop } = await serve(walletRoutes.sendToken, () => sent)
  const done = await run('wallet', 'send', '5')
  await stop()
  expect(done.out).toBe('cashuB1\n')
})

test('without a node the way to start one fits what was asked for', async () => {
  process.env['PYLON_HOME'] = tempDir()
  expect((await run('wallet', 'balance', '--sandbox')).err).toContain('start it with: pylon start --sandbox')
})

test('a live node that is started beside a sandbox node says whom commands mean', async () => {
  const part = { state: 'ok' as const }
  const status = {
    ...{
      running: true,
      version: 'x',
      home: '/h',
      pid: 1,
      started_at: AT,
      uptime_s: 1,
      mode: 'both' as const,
      locked: false,
      sandbox: null,
    },
    work: { count: 0, oldest: [] },
    ...{
      identity: null,
      host: { ...part, agents: [], approvals_waiting: 0 },
      relays: [],
      refused: [],
      store: part,
      backups: { ...part, last_at: null, last_file: null, failed_at: null },
      remote_keys: { ...part },
      earnings: { total_msats: msats(0n) },
    },
    provider: { ...part, kinds: [], verifier: null, backends: [], jobs: {} },
    wallet: { ...part, balance_sats: sats(0n), at_risk_sats: sats(0n), mints: [] },
    runtimes: { ...part, substrates: [], by_state: {}, offers: [], leases: [] },
  }
  const live = await serve(nodeRoutes.status, () => status, 'live')
  const alone = await run('start')
  const home = process.env['PYLON_HOME']
  const sandbox = await serveAll([[nodeRoutes.status, () => status]], 'sandbox', home)
  const beside = await run('start')
  const other = await run('start', '--sandbox')
  await Promise.all([live.stop(), sandbox.stop()])
  expect(alone).toMatchObject({ code: 0, err: '' })
  expect(beside.err).toContain('a sandbox node runs too: commands mean this live node now')
  expect(other.err).toContain('the live node runs too, and commands mean it')
})

test('without a node the exit code is 3', async () => {
  process.env['PYLON_HOME'] = tempDir()
  expect(await run('wallet', 'balance')).toEqual({
    code: 3,
    out: '',
    err: 'pylon: Pylon is not running; start it with: pylon start (not_running)\n',
  })
})

test('a payment of unknown outcome is no success, and says not to pay again', async () => {
  const { stop } = await serve(walletRoutes.payInvoice, () => ({ state: 'unknown', operation_id: 'o', fee_sats: null, preimage: null }))
  const done = await run('wallet', 'pay', 'lnbcrt1')
  await stop()
  expect(done.code).toBe(1)
  expect(done.out).toContain('do not pay again')
})

const earnings = {
  total_msats: msats(21_500n),
  costs_msats: msats(1500n),
  net_msats: msats(20_000n),
  outgoing: [
    { kind: 'fee', msats: msats(1500n), is_cost: true },
    { kind: 'zap', msats: msats(3000n), is_cost: false },
  ],
  costs_by_day: [{ day: '2026-03-02', kind: 'fee', msats: msats(1500n) }],
  jobs_completed: 2,
  by_source: { job: msats(21_000n), zap: msats(0n), lease: msats(0n), tip: msats(500n), other: msats(0n) },
  internal_msats: msats(7_000n),
  by_kind: [{ kind: 5001, msats: msats(21_000n), jobs: 1 }],
  by_day: [{ day: TODAY, msats: msats(21_500n) }],
  recent: [{ id: 'e#job', source: 'job' as const, job_id: 'c'.repeat(64), owner: 'node', amount_msats: msats(21_000n), earned_at: AT }],
}

test('earnings prints sums and a chart, or CSV, or the very body of the answer', async () => {
  const { asked, stop } = await serve(earningsRoutes.getEarnings, () => earnings, 'live')
  const human = await run('earnings', '--since', '2026-03-01', '--limit', '5')
  const csv = await run('earnings', '--csv')
  const json = await run('earnings', '--json')
  await stop()
  expect(asked[0]?.input).toEqual({ since: '2026-03-01T00:00:00.000Z', limit: 5 })
  expect(human.out).toContain('21.500 sats')
  expect(human.out).toContain('█')
  expect(human.out).toMatch(/less fees +1.500 sats\nNet +20 sats\n[\s\S]*Spent on zap +3 sats/)
  expect(human.out).not.toContain('sandbox')
  expect(csv.out).toBe(
    `earned_at,source,amount_msats,job_id,owner,id\n${AT},job,21000,${'c'.repeat(64)},node,e#job\n2026-03-02T00:00:00.000Z,cost:fee,-1500,,home,cost:fee:2026-03-02\n`,
  )
  expect(JSON.parse(json.out)).toMatchObject({ network: 'live', total_msats: 21_500, by_day: [{ day: TODAY, msats: 21_500 }] })
})
