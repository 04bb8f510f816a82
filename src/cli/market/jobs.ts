/** `pylon jobs`: work that others ordered from this node. (`pylon job` is the buying side.) */

import { formatSats } from '../../base/amounts.ts'
import { given } from '../../base/given.ts'
import { JOB_STEPS, statesOf } from '../../base/states.ts'
import type { Output } from '../../control/client.ts'
import { jobsRoutes } from '../../control/contract/jobs.ts'
import { ask, defineCommand, defineGroup } from '../command.ts'
import { argument, limitOf, limitOption } from '../options.ts'
import { plain } from '../terminal/output.ts'
import { clockTime, drawFields, drawList, drawTable, relativeTime, right, shortId } from '../terminal/table.ts'

type Job = Output<typeof jobsRoutes.getJob>

const list = defineCommand({
  command: 'list',
  describe: 'Jobs that others ordered here, newest first',
  builder: (yargs) =>
    yargs
      .option('state', { choices: statesOf(JOB_STEPS), describe: 'Only those in this state' })
      .option('limit', limitOption('How many (50)')),
  handler: (args) =>
    ask(args, jobsRoutes.listJobs, given({ state: args.state, ...limitOf(args) }), ({ jobs }) =>
      drawList(jobs, NO_JOB, COLUMNS, (job) => [
        shortId(job.id),
        String(job.kind),
        job.status,
        formatSats(job.price_msats),
        formatSats(job.paid_msats),
        job.payment_method,
        shortId(job.customer),
        relativeTime(job.created_at, Date.now()),
        job.error_code ?? '',
      ]),
    ),
})

const NO_JOB = 'No job was ordered here yet; pylon status says what is sold.'
const COLUMNS = ['JOB', 'KIND', 'STATE', right('PRICE'), right('PAID'), 'BY', 'CUSTOMER', 'RECEIVED', 'ERROR']

const show = defineCommand({
  command: 'show <id>',
  describe: 'One job with every step it took and why',
  builder: (yargs) => yargs.positional('id', argument('Its id or a unique beginning of it')),
  handler: (args) => ask(args, jobsRoutes.getJob, { id: args.id }, drawJob),
})

function drawJob(job: Job): string {
  const fields: [string, string][] = [
    ['Job', job.id],
    ['Kind', String(job.kind)],
    ['State', job.status],
    ['Customer', job.customer],
    ['Encryption', job.encryption],
    ['Price', formatSats(job.price_msats)],
    ['Bid', job.bid_msats === null ? 'none' : formatSats(job.bid_msats)],
    ['Paid', `${formatSats(job.paid_msats)}${job.payment_method === 'none' ? '' : ` by ${job.payment_method}`}`],
    ['Received', `${clockTime(job.created_at)} UTC`],
    ['Deadline', `${clockTime(job.deadline)} UTC`],
    ['Attempts', String(job.attempts)],
  ]
  if (job.mint_url !== null) fields.push(['Mint', job.mint_url])
  if (job.result_event_id !== null) fields.push(['Result event', job.result_event_id])
  if (job.error !== null) fields.push(['Error', `${job.error} (${job.error_code ?? 'no code'})`])
  const steps = drawTable(
    ['TIME (UTC)', 'STATE', 'WHY'],
    job.transitions.map((step) => [clockTime(step.at), step.to, step.reason]),
  )
  return [drawFields(fields), steps, ...(job.result === null ? [] : [`Result:\n${plain(job.result)}`])].join('\n\n')
}

/** `pylon jobs ...` */
export const jobsCommand = defineGroup('jobs', 'Work that others ordered here', [list, show])
