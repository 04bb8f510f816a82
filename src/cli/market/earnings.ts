/** `pylon earnings`: what this home was paid by others, with a chart by day, or as CSV. */
import { agentOf } from '../../base/accounts.ts'
import { formatSats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Output } from '../../control/client.ts'
import { earningsRoutes } from '../../control/contract/earnings.ts'
import { callNode, defineCommand } from '../command.ts'
import { flagOption, limitOption, textOption } from '../options.ts'
import { print, printAnswer } from '../terminal/output.ts'
import { drawFields, drawTable, relativeTime, right, shortId } from '../terminal/table.ts'
import { wholeNumberIf } from '../terminal/values.ts'
import { drawDays, fillDays } from './chart.ts'

type Earnings = Output<typeof earningsRoutes.getEarnings>

const CHART_DAYS = 14
const CSV_LIMIT = 100_000
const COST_WORDS: Readonly<Record<string, string>> = { fee: 'fees', lost: 'losses' }
const UNIT_MS: Readonly<Record<string, number>> = { h: 3_600_000, d: 86_400_000, w: 604_800_000 }

export const earningsCommand = defineCommand({
  command: 'earnings',
  describe: 'What the node earned: in total, by source, kind and day, less fees and costs',
  builder: (yargs) =>
    yargs
      .option('since', textOption('Only from then on: 2026-01-31, an RFC 3339 time, or 24h, 7d, 4w ago'))
      .option('limit', limitOption('How many of the newest entries (20)'))
      .option('csv', flagOption('Every entry as CSV')),
  handler: async (args) => {
    if (args.csv && args.json) throw new PylonError('usage', 'Choose one of --csv and --json.')
    const limit = wholeNumberIf(args.limit, '--limit', 0) ?? (args.csv ? CSV_LIMIT : undefined)
    const since = args.since === undefined ? undefined : parseSince(args.since, Date.now())
    const answer = await callNode(args, earningsRoutes.getEarnings, given({ since, limit }))
    if (args.csv) print(drawCsv(answer.value))
    else printAnswer(args, answer, (earnings) => drawEarnings(earnings, Date.now()))
  },
})

/** RFC 3339 of a date, a time or a span before now. @throws usage */
export function parseSince(text: string, nowMs: number): string {
  const span = /^(\d{1,5})([hdw])$/.exec(text)
  if (span !== null) return new Date(nowMs - Number(span[1]) * (UNIT_MS[span[2] ?? ''] ?? 0)).toISOString()
  const at = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN
  if (Number.isNaN(at))
    throw new PylonError('usage', `--since takes 2026-01-31, an RFC 3339 time, or 24h, 7d, 4w; not ${JSON.stringify(text)}.`)
  return new Date(at).toISOString()
}

export function drawEarnings(earnings: Earnings, nowMs: number): string {
  const sources = Object.entries(earnings.by_source).filter(([, msats]) => msats !== 0n)
  const costs = earnings.outgoing.filter(({ is_cost, msats }) => is_cost && msats !== 0n)
  const spent = earnings.outgoing.filter(({ is_cost, msats }) => !is_cost && msats !== 0n)
  const head = drawFields([
    ['Earned', formatSats(earnings.total_msats)],
    ...costs.map(({ kind, msats }): [string, string] => [`  less ${COST_WORDS[kind] ?? kind}`, formatSats(msats)]),
    ...(costs.length === 0 ? [] : [['Net', formatSats(earnings.net_msats)] as [string, string]]),
    ['Jobs done', String(earnings.jobs_completed)],
    ...sources.map(([source, msats]): [string, string] => [`  by ${source}`, formatSats(msats)]),
    ['Internal', `${formatSats(earnings.internal_msats)} (paid by own keys, not counted)`],
    ...spent.map(({ kind, msats }): [string, string] => [`Spent on ${kind}`, formatSats(msats)]),
  ])
  if (earnings.recent.length === 0) return `${head}\n\nNothing earned yet; pylon status says what is sold.`
  const days = drawDays(
    fillDays(
      earnings.by_day.map(({ day, msats }) => ({ day, msats })),
      new Date(nowMs).toISOString().slice(0, 10),
      CHART_DAYS,
    ),
  )
  const kinds = drawTable(
    ['KIND', right('JOBS'), right('EARNED')],
    earnings.by_kind.map((row) => [String(row.kind), String(row.jobs), formatSats(row.msats)]),
  )
  const recent = drawTable(
    [right('EARNED'), 'SOURCE', 'JOB', 'WHO', 'WHEN'],
    earnings.recent.map((row) => [
      formatSats(row.amount_msats),
      row.source,
      row.job_id === null ? '' : shortId(row.job_id),
      ownerName(row.owner),
      relativeTime(row.earned_at, nowMs),
    ]),
  )
  return [head, days, ...(earnings.by_kind.length === 0 ? [] : [kinds]), recent].join('\n\n')
}

/** RFC 4180; no field of ours holds a comma or a quote. */
export function drawCsv(earnings: Earnings): string {
  const rows = earnings.recent.map((row) => [row.earned_at, row.source, row.amount_msats, row.job_id ?? '', row.owner, row.id].join(','))
  // A cost is below zero: a row a day and kind.
  const costs = earnings.costs_by_day.map(({ day, kind, msats }) =>
    [`${day}T00:00:00.000Z`, `cost:${kind}`, -msats, '', 'home', `cost:${kind}:${day}`].join(','),
  )
  return ['earned_at,source,amount_msats,job_id,owner,id', ...rows, ...costs].join('\n')
}

function ownerName(owner: string): string {
  const agent = agentOf(owner)
  return agent === undefined ? owner : `agent ${agent.slice(0, 8)}`
}
