/** The sums that are kept as entries are posted say what the entries say, whatever the time they are asked from. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { type Account, accountOf } from '../../../src/base/accounts.ts'
import { type Msats, msats } from '../../../src/base/amounts.ts'
import type { JobState } from '../../../src/base/states.ts'
import { earningsSummary } from '../../../src/store/money/earnings.ts'
import { auditLedger, postEntry } from '../../../src/store/money/ledger.ts'
import { earnedInAll } from '../../../src/store/money/sums.ts'
import { claimJob, type JobPatch, transitionJob } from '../../../src/store/selling/job-steps.ts'
import { countJobs } from '../../../src/store/selling/jobs.ts'
import type { Store } from '../../../src/store/store.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'

const HOUR_MS = 3_600_000
const START = Date.UTC(2026, 0, 1)
const INCOME = ['job', 'zap', 'lease', 'tip', 'rounding', 'internal']
const EXPENSE = ['fee', 'zap', 'lost', 'job']

const entry = fc.record({
  afterMs: fc.oneof(fc.integer({ min: 0, max: 5000 }), fc.integer({ min: 0, max: 30 * HOUR_MS }), fc.constant(HOUR_MS)),
  job: fc.option(fc.nat({ max: 3 }), { nil: undefined }),
  income: fc.array(fc.record({ detail: fc.constantFrom(...INCOME), msats: fc.integer({ min: -50, max: 5000 }) }), { maxLength: 3 }),
  expense: fc.array(fc.record({ detail: fc.constantFrom(...EXPENSE), msats: fc.integer({ min: 1, max: 900 }) }), { maxLength: 2 }),
})

/** What the entries say, read one by one. */
function naive(store: Store, since: number) {
  const rows = store
    .sql(
      `SELECT e.created_at AS at, p.class AS class, p.detail AS detail, -p.amount_msats AS msats, j.kind AS kind, j.id AS job
       FROM postings p JOIN ledger_entries e ON e.id = p.entry_id LEFT JOIN jobs j ON e.cause_type = 'job' AND j.id = e.cause_id
       WHERE p.class IN ('income', 'expense') ORDER BY e.created_at, e.rowid, p.account`,
    )
    .all() as { at: bigint; class: string; detail: string; msats: bigint; kind: bigint | null; job: string | null }[]
  const bySource: Record<string, bigint> = { job: 0n, zap: 0n, lease: 0n, tip: 0n, other: 0n }
  const byKind = new Map<number, { msats: bigint; jobs: number }>()
  const byDay = new Map<string, bigint>()
  const outgoing = new Map<string, bigint>()
  const seen = new Set<string>()
  let [total, internal] = [0n, 0n]
  for (const row of rows) {
    const isIn = Number(row.at) >= since
    const day = new Date(Number(row.at)).toISOString().slice(0, 10)
    if (row.class === 'expense') {
      if (isIn) outgoing.set(`${day} ${row.detail}`, (outgoing.get(`${day} ${row.detail}`) ?? 0n) - row.msats)
    } else if (row.detail === 'internal') {
      if (isIn) internal += row.msats
    } else {
      const isFirst = row.job !== null && !seen.has(row.job)
      if (row.job !== null) seen.add(row.job)
      if (!isIn) continue
      total += row.msats
      const source = row.detail in bySource && row.detail !== 'other' ? row.detail : 'other'
      bySource[source] = (bySource[source] ?? 0n) + row.msats
      byDay.set(day, (byDay.get(day) ?? 0n) + row.msats)
      if (row.kind === null) continue
      const kind = byKind.get(Number(row.kind)) ?? { msats: 0n, jobs: 0 }
      byKind.set(Number(row.kind), { msats: kind.msats + row.msats, jobs: kind.jobs + (isFirst ? 1 : 0) })
    }
  }
  const completed = store
    .sql(`SELECT count(*) AS n FROM jobs WHERE status IN ('delivered', 'settled') AND completed_at >= ?`)
    .get(BigInt(since))
  return { total, internal, bySource, byKind, byDay, outgoing, completed: Number(completed?.['n']) }
}

const TABLES = ['ledger_sums', 'job_sums', 'job_counts']
const sumsOf = (store: Store) => TABLES.map((name) => store.sql(`SELECT * FROM ${name} ORDER BY 1, 2`).all())

/** The same as the migration makes it of a home that has none. */
function madeAnew(store: Store) {
  const before = sumsOf(store)
  const triggers = store.sql("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'jobs'").all()
  for (const { name } of triggers) store.sql(`DROP TRIGGER ${name}`).run()
  for (const name of TABLES) store.sql(`DROP TABLE ${name}`).run()
  const statements = readFileSync(fileURLToPath(new URL('../../../migrations/044_sums.sql', import.meta.url)), 'utf8')
  for (const statement of statements.split(/;\n(?!END| {2})/)) if (/^[^-]*\w/m.test(statement)) store.sql(statement).run()
  const made = sumsOf(store)
  return made.map((rows, i) => (i === 2 ? [...rows, ...(before[2] ?? []).filter(({ jobs }) => jobs === 0n)] : rows))
}

const hex = (n: number) => n.toString(16).padStart(64, '0')

async function finishJob(store: Store, n: number, at: number): Promise<void> {
  const base = {
    transport: 'nip90',
    customerPubkey: hex(9),
    directed: true,
    encryption: 'none',
    answerRelays: [],
    requestedAtS: 1,
  } as const
  const request = { id: hex(n), pubkey: hex(9), created_at: 1, kind: 5001, tags: [], content: '', sig: '00' }
  const job = { ...base, id: hex(n), kind: 5000 + (n % 2), request, deadline: at, priceMsats: msats(0), paymentMethod: 'none' as const }
  await store.write(claimJob({ job, at, reason: 'asked' }))
  const unsigned = { kind: 6001, pubkey: hex(8), created_at: 1, tags: [], content: '', id: hex(7) }
  const steps = [['queued'], ['running'], ['ready', { result: 'x', resultEvent: unsigned }], ['delivered']] as [JobState, JobPatch?][]
  let from: JobState = 'received'
  for (const [to, patch = {}] of n % 3 === 2 ? steps.slice(0, 2) : steps) {
    await store.write(transitionJob({ id: hex(n), from, to, reason: 'so', at, patch }))
    from = to
  }
}

it('sums agree with entries', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(entry, { maxLength: 25 }),
      fc.array(fc.integer({ min: -HOUR_MS, max: 200 * HOUR_MS }), { minLength: 1, maxLength: 4 }),
      async (entries, sinces) => {
        const store = openStore(join(tempDir(), 'pylon.db'))
        let at = START
        for (let n = 0; n < 4; n++) await finishJob(store, n, at + n * 7 * HOUR_MS)
        for (const [i, { afterMs, job, income, expense }] of entries.entries()) {
          at += afterMs
          const owners = ['node', `agent:${hex(5)}`] as const
          const postings: { account: Account; amountMsats: bigint }[] = [
            ...income.map(({ detail, msats: value }, k) => ({
              account: accountOf(owners[k % 2] ?? 'node', 'income', detail),
              amountMsats: BigInt(-value),
            })),
            ...expense.map(({ detail, msats: value }) => ({ account: accountOf('node', 'expense', detail), amountMsats: BigInt(value) })),
          ]
          const rest = postings.reduce((sum, { amountMsats }) => sum + amountMsats, 0n)
          postings.push({ account: accountOf('node', 'equity', 'funding'), amountMsats: -rest })
          const cause = job === undefined ? ({ type: 'owner', id: `o${i}` } as const) : ({ type: 'job', id: hex(job) } as const)
          await store.write(postEntry({ id: `e${i}`, cause, at, postings }))
        }
        for (const since of [0, ...sinces.map((after) => START + after), at]) {
          const said = earningsSummary(store, { sinceMs: since, limit: 100 })
          const is = naive(store, since)
          expect(said.totalMsats).toBe(is.total)
          expect(said.internalMsats).toBe(is.internal)
          expect(said.bySource).toEqual(is.bySource)
          expect(new Map(said.byKind.map(({ kind, amountMsats, jobs }) => [kind, { msats: amountMsats as bigint, jobs }]))).toEqual(
            is.byKind,
          )
          expect(new Map(said.byDay.map(({ day, amountMsats }) => [day, amountMsats as bigint]))).toEqual(is.byDay)
          expect(new Map(said.outgoing.map(({ day, kind, amountMsats }) => [`${day} ${kind}`, amountMsats as bigint]))).toEqual(is.outgoing)
          expect(said.recent.reduce((sum, { amountMsats }) => sum + amountMsats, 0n as Msats | bigint)).toBe(is.total)
          expect(said.recent.every(({ earnedAt }) => earnedAt >= since)).toBe(true)
          expect(said.jobsCompleted).toBe(is.completed)
        }
        const counted = store.sql('SELECT status, count(*) AS n FROM jobs GROUP BY status').all()
        expect(countJobs(store)).toEqual(Object.fromEntries(counted.map((row) => [row['status'], Number(row['n'])])))
        expect(auditLedger(store).problems).toEqual([])
        expect(earnedInAll(store.sql)).toBe(naive(store, 0).total)
        const kept = sumsOf(store)
        expect(madeAnew(store)).toEqual(kept)
        store.close()
      },
    ),
    { numRuns: 60 },
  )
})
