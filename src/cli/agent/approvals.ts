/** `pylon approvals`: what agents want to do and may not unasked. */
import type { Output } from '../../control/client.ts'
import { approvalsRoutes } from '../../control/contract/approvals.ts'
import { ask, defineCommand, defineGroup } from '../command.ts'
import { argument, flagOption, limitOf, limitOption } from '../options.ts'
import { clockTime, drawFields, drawList, right, sats, shorten, shortId } from '../terminal/table.ts'
import { wholeNumber } from '../terminal/values.ts'

type Approval = Output<typeof approvalsRoutes.approveAction>

const list = defineCommand({
  command: 'list',
  describe: 'What waits for your word',
  builder: (yargs) => yargs.option('all', flagOption('Also what was decided')).option('limit', limitOption('How many (100)')),
  handler: (args) =>
    ask(args, approvalsRoutes.listApprovals, { ...limitOf(args), ...(args.all ? { all: 'true' as const } : {}) }, ({ approvals }) =>
      drawList(approvals, 'Nothing waits.', ['ID', 'AGENT', 'ACTION', right('SATS'), 'TO', 'STATE', 'ASKED (UTC)', ''], (each) => [
        ...[String(each.id), shorten(each.agent, 16), each.action, each.amount_sats === 0n ? '' : sats(each.amount_sats)],
        ...[each.to === null ? '' : shortId(each.to), each.state, clockTime(each.asked_at), shorten(each.summary, 60)],
      ]),
    ),
})

const show = defineCommand({
  command: 'show <id>',
  describe: 'One of them, whole',
  builder: (yargs) => yargs.positional('id', argument()),
  handler: (args) =>
    ask(
      args,
      approvalsRoutes.getApproval,
      { id: wholeNumber(args.id, 'The id') },
      ({ params, ...approval }) => `${fields(approval)}\n\n${JSON.stringify(params, null, 2)}`,
    ),
})

const approve = defineCommand({
  command: 'approve <id>',
  describe: 'Have it done, once',
  builder: (yargs) => yargs.positional('id', argument()),
  handler: (args) => ask(args, approvalsRoutes.approveAction, { id: wholeNumber(args.id, 'The id') }, outcome),
})

const deny = defineCommand({
  command: 'deny <id> [reason..]',
  describe: 'Refuse it; the agent hears why',
  builder: (yargs) => yargs.positional('id', argument()).positional('reason', { type: 'string', array: true }),
  handler: (args) => {
    const reason = (args.reason ?? []).join(' ')
    return ask(args, approvalsRoutes.denyAction, { id: wholeNumber(args.id, 'The id'), ...(reason === '' ? {} : { reason }) }, outcome)
  },
})

/** `pylon approvals ...` */
export const approvalsCommand = defineGroup('approvals', 'What agents want to do and may not unasked', [list, show, approve, deny])

const outcome = (approval: Approval): string =>
  `${approval.id} is ${approval.state}; the action is ${approval.action_state ?? 'forgotten'}${approval.action_reason === null ? '' : `: ${approval.action_reason}`}.`

function fields(approval: Approval): string {
  return drawFields([
    ['Approval', `${approval.id}, ${approval.state}`],
    ['Agent', approval.agent],
    ['Action', approval.action],
    ...(approval.amount_sats === 0n ? [] : [['Spends', sats(approval.amount_sats)] as [string, string]]),
    ['To', approval.to ?? '-'],
    ['Why it waits', approval.why],
    ['Asked', `${clockTime(approval.asked_at)} UTC`],
    ['Refused at', `${clockTime(approval.expires_at)} UTC`],
    ...(approval.decided_at === null
      ? []
      : [['Decided', `${clockTime(approval.decided_at)} UTC by ${approval.decided_by ?? 'time'}`] as [string, string]]),
    ...(approval.reason === null ? [] : [['Reason', approval.reason] as [string, string]]),
    ['The action', `${approval.action_state ?? 'forgotten'}${approval.action_reason === null ? '' : `: ${approval.action_reason}`}`],
  ])
}
