/** `pylon jobs`: work that others ordered from this node. (`pylon job` is the buying side.) */

import { formatSats } from '../../base/amounts.ts'
import { given } from '../../base/given.ts'
import { JOB_STEPS, statesOf } from '../../base/states.ts'
import type { Output } from '../../control/client.ts'
import { jobsRoutes } from '../../control/contract/jobs.ts'
import { callNode, defineCommand, defineGroup } from '../command.ts'
import { plain, printAnswer } from '../terminal/output.ts'
import { clockTime, drawFields, drawTable, relativeTime, shortId } from '../terminal/table.ts'
import { wholeNumberIf } from '../terminal/values.ts'

type Job = Output<typeof jobsRoutes.getJob>

const list = defineCommand({
  command: 'list',
  describe: 'Jobs that others ordered here, newest first',
  builder: (yargs) =>
    yargs
      .option('state', { choices: statesOf(JOB_STEPS), describe: 'Only those in this state' })
      .option('limit', { type: 'string', nargs: 1, alias: 'n', describe: 'How many (50)' }),
  handler: async (args) => {
    const answer = await callNode(args, jobsRoutes.listJobs, given({ state: args.state, limit: wholeNumberIf(args.limit, '--limit') }))
    printAnswer(args, answer, ({ jobs }) =>
      jobs.length === 0
        ? 'No job was ordered here yet; pylon status says what is sold.'
        : drawTable(
            [
              { title: 'JOB' },
              { title: 'KIND' },
              { title: 'STATE' },
              { title: 'PRICE', align: 'right' },
              { title: 'PAID', align: 'right' },
              { title: 'BY' },
              { title: 'CUSTOMER' },
              { title: 'RECEIVED' },
              { title: 'ERROR' },
            ],
            jobs.map((job) => [
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
    )
  },
})

const show = defineCommand({
  command: 'show <id>',
  describe: 'One job with every step it took and why',
  builder: (yargs) => yargs.positional('id', { type: 'string', demandOption: true, describe: 'Its id or a unique beginning of it' }),
  handler: async (args) => {
    const answer = await callNode(args, jobsRoutes.getJob, { id: args.id })
    printAnswer(args, answer, drawJob)
  },
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
    [{ title: 'TIME (UTC)' }, { title: 'STATE' }, { title: 'WHY' }],
    job.transitions.map((step) => [clockTime(step.at), step.to, step.reason]),
  )
  return [drawFields(fields), steps, ...(job.result === null ? [] : [`Result:\n${plain(job.result)}`])].join('\n\n')
}

/** `pylon jobs ...` */
export const jobsCommand = defineGroup('jobs', 'Work that others ordered here', [list, show])
