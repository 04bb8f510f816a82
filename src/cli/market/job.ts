import { formatSats } from '../../base/amounts.ts'
import { given } from '../../base/given.ts'
import type { Answer, Input } from '../../control/client.ts'
import { purchasesRoutes } from '../../control/contract/jobs.ts'
import { ask, callNode, defineCommand, defineGroup } from '../command.ts'
import { argument, flagOption, limitOf, limitOption, textOption } from '../options.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { printAnswer, warn } from '../terminal/output.ts'
import { drawList, relativeTime, right, shorten, shortId } from '../terminal/table.ts'
import { many, nameAndValue, textFrom, wholeNumber, wholeNumberIf } from '../terminal/values.ts'
import { interruptible } from '../terminal/waiting.ts'
import { drawEnd, drawEvents, drawHead, drawOffers, drawOutcome, drawSubmitted, idOf, type Purchase } from './job-drawing.ts'
import { askToPay, awaitEnd, howOn, isOpen } from './job-waiting.ts'

type Order = Input<typeof purchasesRoutes.submitPurchase>

const submit = defineCommand({
  command: 'submit',
  describe: 'Order a job; pays the best offer within --bid-sats and --max-sats',
  builder: (yargs) =>
    yargs
      .option('kind', { type: 'string', nargs: 1, demandOption: true, describe: 'What to do: 5001 summarise, 5050 generate text, ...' })
      .option('input', { type: 'string', nargs: 1, demandOption: true, describe: 'TEXT, @FILE or - for standard input; may be repeated' })
      .option('input-type', { choices: ['text', 'url', 'event', 'job'] as const, default: 'text' as const, describe: 'What the input is' })
      .option('param', textOption('name=value; may be repeated'))
      .option('provider', textOption('The npub that shall do it (anybody by default)'))
      .option('bid-sats', textOption('What you offer; said in public'))
      .option('max-sats', textOption('The most it may cost with fees; said to nobody (100)'))
      .option('encrypt', flagOption('Only the provider can read input and result'))
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
      .option('wait', flagOption('Wait for the result'))
      .option('timeout', textOption('Seconds until nobody wants the result (120)'))
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
    const { value } = answer
    if (args.pay === 'ask' || args.wait) {
      answer = await interruptible(
        () => `The job goes on. Look at it with: pylon job show ${idOf(value)}; end it with: pylon job cancel ${idOf(value)}`,
        async (signal) => {
          const asked = args.pay === 'ask' ? await askToPay(args, answer, signal) : answer
          return args.wait ? await awaitEnd(args, asked, signal) : asked
        },
      )
    }
    if (args.wait && !args.json && isOpen(answer.value)) warn(howOn(answer.value))
    if (args.wait && answer.value.status !== 'completed') process.exitCode = 1
    printAnswer(args, answer, (job) => (args.wait ? drawOutcome(job) : drawSubmitted(job)))
  },
})

const list = defineCommand({
  command: 'list',
  describe: 'Jobs that you ordered',
  builder: (yargs) => yargs.option('limit', limitOption('How many (50)')),
  handler: (args) =>
    ask(args, purchasesRoutes.listPurchases, limitOf(args), ({ purchases }) =>
      drawList(purchases, NO_JOB, ['JOB', 'KIND', 'STATUS', right('PAID'), 'ORDERED', 'RESULT'], (job) => [
        shortId(idOf(job)),
        String(job.kind),
        job.status,
        formatSats(job.paid_msats),
        relativeTime(job.created_at, Date.now()),
        shorten(job.result ?? job.error?.message ?? '', 48),
      ]),
    ),
})

const NO_JOB = 'No job was ordered yet; try: pylon job submit --kind 5001 --input @FILE --wait'

const show = defineCommand({
  command: 'show <id>',
  describe: 'One ordered job with its offers, events and result',
  builder: (yargs) => yargs.positional('id', argument('Job or purchase id')),
  handler: (args) =>
    ask(args, purchasesRoutes.getPurchase, { id: args.id }, (job) =>
      [drawHead(job), drawOffers(job), drawEvents(job), drawEnd(job)].filter((part) => part !== '').join('\n\n'),
    ),
})

const pay = defineCommand({
  command: 'pay <id>',
  describe: 'Pay the cheapest usable offer of a job ordered with --pay ask',
  builder: (yargs) => yargs.positional('id', argument()).option('idempotency-key', idempotencyOption),
  handler: (args) => ask(args, purchasesRoutes.payPurchase, { id: args.id }, drawSubmitted, spendingCall(args)),
})

const cancel = defineCommand({
  command: 'cancel <id>',
  describe: 'Ask the provider to drop the job (what was paid is refunded)',
  builder: (yargs) => yargs.positional('id', argument()),
  handler: (args) =>
    ask(args, purchasesRoutes.cancelPurchase, { id: args.id }, (job) => `The job ${shortId(job.job_id)} is ${job.status}.`),
})

/** `pylon job ...` */
export const jobCommand = defineGroup('job', 'Buy work: submit, follow and cancel jobs of your own', [submit, list, show, pay, cancel])
