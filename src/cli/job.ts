/** `pylon job`: buying work from others with the customer key. (`pylon jobs` is the other side.) */
import { createInterface } from 'node:readline/promises'
import { formatSats } from '../base/amounts.ts'
import type { Answer, Input, Output } from '../control/client.ts'
import { purchasesRoutes } from '../control/contract/jobs.ts'
import { callNode, defineCommand, defineGroup } from './command.ts'
import { plain, printAnswer, warn } from './output.ts'
import { idempotencyOption, spendingCall } from './spending.ts'
import { clockTime, drawFields, drawTable, relativeTime, shorten, shortId } from './table.ts'
import { given, many, nameAndValue, textFrom, wholeNumber, wholeNumberIf } from './values.ts'

type Purchase = Output<typeof purchasesRoutes.getPurchase>
type Order = Input<typeof purchasesRoutes.submitPurchase>

const WAIT_S = 20
/** While the owner is to be asked, an offer should be seen soon. */
const OFFER_WAIT_S = 1
const OVER = ['completed', 'failed', 'timeout', 'cancelled', 'refunded']

const submit = defineCommand({
  command: 'submit',
  describe: 'Order a job; pays the best offer within --bid-sats and --max-sats',
  builder: (yargs) =>
    yargs
      .option('kind', { type: 'string', nargs: 1, demandOption: true, describe: 'What to do: 5001 summarise, 5050 generate text, ...' })
      .option('input', { type: 'string', nargs: 1, demandOption: true, describe: 'TEXT, @FILE or - for standard input; may be repeated' })
      .option('input-type', { choices: ['text', 'url', 'event', 'job'] as const, default: 'text' as const, describe: 'What the input is' })
      .option('param', { type: 'string', nargs: 1, describe: 'name=value; may be repeated' })
      .option('provider', { type: 'string', nargs: 1, describe: 'The npub that shall do it (anybody by default)' })
      .option('bid-sats', { type: 'string', nargs: 1, describe: 'What you offer; said in public' })
      .option('max-sats', { type: 'string', nargs: 1, describe: 'The most it may cost; said to nobody (100)' })
      .option('encrypt', { type: 'boolean', default: false, describe: 'Only the provider can read input and result' })
      .option('pay', {
        choices: ['auto', 'ask', 'never'] as const,
        default: 'auto' as const,
        describe: 'Pay by itself, after a question, or not',
      })
      .option('pay-with', {
        choices: ['invoice', 'token'] as const,
        default: 'invoice' as const,
        describe: 'Lightning when asked, or a locked Cashu token with the request',
      })
      .option('wait', { type: 'boolean', default: false, describe: 'Wait for the result' })
      .option('timeout', { type: 'string', nargs: 1, describe: 'Seconds until nobody wants the result (120)' })
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const order: Order = {
      kind: wholeNumber(args.kind, '--kind'),
      inputs: many(args.input).map((input) => ({ data: textFrom(input), type: args.inputType })),
      params: many(args.param).map((param) => nameAndValue(param, '--param')),
      encrypt: args.encrypt,
      pay: args.pay,
      pay_with: args.payWith,
      ...given({
        provider: args.provider,
        bid_sats: wholeNumberIf(args.bidSats, '--bid-sats', 0),
        max_sats: wholeNumberIf(args.maxSats, '--max-sats', 0),
        timeout_s: wholeNumberIf(args.timeout, '--timeout'),
      }),
    }
    let answer: Answer<Purchase> = await callNode(args, purchasesRoutes.submitPurchase, order, spendingCall(args))
    if (args.pay === 'ask') answer = await askToPay(args, answer)
    if (args.wait) answer = await awaitEnd(args, answer)
    if (args.wait && answer.value.status !== 'completed') process.exitCode = 1
    printAnswer(args, answer, (job) => (args.wait ? drawOutcome(job) : drawSubmitted(job)))
  },
})

/** Waits for an offer and asks the person at the terminal; where there is none it leaves the job offered and says how to go on. */
async function askToPay(args: { sandbox: boolean; json: boolean }, first: Answer<Purchase>): Promise<Answer<Purchase>> {
  let answer = first
  // Offers are gathered for a moment before one can be taken: the status says when.
  while (['preparing', 'requested'].includes(answer.value.status)) {
    if (Date.now() >= Date.parse(answer.value.deadline_at)) return answer
    answer = await callNode(args, purchasesRoutes.getPurchase, { id: answer.value.purchase_id, wait: OFFER_WAIT_S })
  }
  const best = answer.value.offers.find((offer) => offer.state === 'open')
  if (best === undefined || answer.value.status !== 'offered') return answer
  const words = `${best.provider} asks ${formatSats(best.amount_msats)}`
  if (!process.stdin.isTTY) {
    warn(`${words}; pay it with: pylon job pay ${answer.value.job_id}`)
    return answer
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  const reply = await terminal.question(`${words}. Pay? [y/N] `)
  terminal.close()
  if (!/^y(es)?$/i.test(reply.trim())) return await callNode(args, purchasesRoutes.cancelPurchase, { id: answer.value.purchase_id })
  // A yes is for this offer: where its payment fails the next one is asked about.
  return await askToPay(args, await callNode(args, purchasesRoutes.payPurchase, { id: answer.value.purchase_id }))
}

async function awaitEnd(args: { sandbox: boolean }, first: Answer<Purchase>): Promise<Answer<Purchase>> {
  let answer = first
  // A job that was refused after payment is over only when the refund is back or the time is up.
  const until = Date.parse(first.value.deadline_at)
  while (!OVER.includes(answer.value.status) || (isOwedRefund(answer.value) && Date.now() < until)) {
    answer = await callNode(args, purchasesRoutes.getPurchase, {
      id: answer.value.purchase_id,
      wait: OVER.includes(answer.value.status) ? 0 : WAIT_S,
    })
    if (isOwedRefund(answer.value)) await new Promise((resolve) => setTimeout(resolve, 200))
  }
  return answer
}

function isOwedRefund(job: Purchase): boolean {
  return job.status === 'failed' && job.paid_msats > 0n
}

const list = defineCommand({
  command: 'list',
  describe: 'Jobs that you ordered',
  builder: (yargs) => yargs.option('limit', { type: 'string', nargs: 1, alias: 'n', describe: 'How many (50)' }),
  handler: async (args) => {
    const answer = await callNode(args, purchasesRoutes.listPurchases, given({ limit: wholeNumberIf(args.limit, '--limit') }))
    printAnswer(args, answer, ({ purchases }) =>
      purchases.length === 0
        ? 'No job was ordered yet; try: pylon job submit --kind 5001 --input @FILE --wait'
        : drawTable(
            [
              { title: 'JOB' },
              { title: 'KIND' },
              { title: 'STATUS' },
              { title: 'PAID', align: 'right' },
              { title: 'ORDERED' },
              { title: 'RESULT' },
            ],
            purchases.map((job) => [
              shortId(job.job_id || job.purchase_id),
              String(job.kind),
              job.status,
              formatSats(job.paid_msats),
              relativeTime(job.created_at, Date.now()),
              shorten(job.result ?? job.error?.message ?? '', 48),
            ]),
          ),
    )
  },
})

const show = defineCommand({
  command: 'show <id>',
  describe: 'One ordered job with its offers, events and result',
  builder: (yargs) => yargs.positional('id', { type: 'string', demandOption: true, describe: 'Job or purchase id' }),
  handler: async (args) => {
    const answer = await callNode(args, purchasesRoutes.getPurchase, { id: args.id })
    printAnswer(args, answer, (job) =>
      [drawHead(job), drawOffers(job), drawEvents(job), drawEnd(job)].filter((part) => part !== '').join('\n\n'),
    )
  },
})

const pay = defineCommand({
  command: 'pay <id>',
  describe: 'Pay the cheapest usable offer of a job ordered with --pay ask',
  builder: (yargs) => yargs.positional('id', { type: 'string', demandOption: true }).option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const answer = await callNode(args, purchasesRoutes.payPurchase, { id: args.id }, spendingCall(args))
    printAnswer(args, answer, drawSubmitted)
  },
})

const cancel = defineCommand({
  command: 'cancel <id>',
  describe: 'Ask the provider to drop the job (what was paid is refunded)',
  builder: (yargs) => yargs.positional('id', { type: 'string', demandOption: true }),
  handler: async (args) => {
    const answer = await callNode(args, purchasesRoutes.cancelPurchase, { id: args.id })
    printAnswer(args, answer, (job) => `The job ${shortId(job.job_id)} is ${job.status}.`)
  },
})

function drawSubmitted(job: Purchase): string {
  return `${drawHead(job)}\n\nFollow it with: pylon job show ${job.job_id || job.purchase_id}`
}

function drawOutcome(job: Purchase): string {
  if (job.status === 'completed') return `${plain(job.result ?? '')}\n\n${job.job_id}: completed for ${formatSats(job.paid_msats)}`
  return `${drawHead(job)}\n\n${drawEnd(job)}`.trimEnd()
}

function drawHead(job: Purchase): string {
  return drawFields([
    ['Job', job.job_id || '(not sent yet)'],
    ['Kind', String(job.kind)],
    ['Status', job.reason === null ? job.status : `${job.status} (${job.reason})`],
    ['Provider', job.provider ?? 'anybody'],
    ['Paid', formatSats(job.paid_msats)],
    ['Ordered', `${clockTime(job.created_at)} UTC`],
  ])
}

function drawOffers(job: Purchase): string {
  if (job.offers.length === 0) return ''
  return drawTable(
    [{ title: 'OFFER BY' }, { title: 'ASKS', align: 'right' }, { title: 'STATE' }],
    job.offers.map((offer) => [
      shortId(offer.provider),
      formatSats(offer.amount_msats),
      offer.reason === null ? offer.state : `${offer.state}: ${offer.reason}`,
    ]),
  )
}

function drawEvents(job: Purchase): string {
  if (job.events.length === 0) return ''
  return drawTable(
    [{ title: 'TIME (UTC)' }, { title: 'KIND' }, { title: 'EVENT' }, { title: 'FROM' }, { title: 'SAYS' }],
    job.events.map((event) => [
      clockTime(event.received_at),
      String(event.kind),
      shortId(event.event_id),
      shortId(event.provider),
      shorten(event.summary, 60),
    ]),
  )
}

function drawEnd(job: Purchase): string {
  if (job.result !== null) return `Result:\n${plain(job.result)}`
  return job.error === null ? '' : `Error: ${plain(job.error.message)} (${plain(job.error.code)})`
}

/** `pylon job ...` */
export const jobCommand = defineGroup('job', 'Buy work: submit, follow and cancel jobs of your own', [submit, list, show, pay, cancel])
