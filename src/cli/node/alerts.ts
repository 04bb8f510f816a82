/** `pylon alerts`: what is wrong, and whether the owner hears of it. */
import { alertsRoutes } from '../../control/contract/alerts.ts'
import { ask, defineCommand, defineGroup } from '../command.ts'
import { clockTime, drawList } from '../terminal/table.ts'

const list = defineCommand({
  command: ['list', '$0'],
  describe: 'What is wrong now or was lately',
  handler: (args) =>
    ask(args, alertsRoutes.listAlerts, {}, ({ owner, problem, muted, alerts }) => {
      const told = owner === null ? `Nobody is told: ${problem ?? 'pylon config set owner.npub npub1...'}` : `Told to ${owner}.`
      const trouble = owner !== null && problem !== null ? [`The last letter did not arrive: ${problem}`] : []
      const table = drawList(alerts, 'Nothing is wrong.', ['STATE', 'SINCE (UTC)', 'KIND', ''], (each) => [
        ...[each.state, clockTime(each.since), each.kind, each.words],
      ])
      return [table, '', told, ...trouble, ...(muted.length === 0 ? [] : [`Not told: ${muted.join(', ')}.`])].join('\n')
    }),
})

const test = defineCommand({
  command: 'test',
  describe: 'Write one letter to the owner',
  handler: (args) =>
    ask(args, alertsRoutes.testAlerts, {}, ({ to, state, reason }) =>
      state === 'sent' ? `A letter to ${to} was sent.` : `The letter to ${to} is ${state}${reason === null ? '' : `: ${reason}`}.`,
    ),
})

/** `pylon alerts ...` */
export const alertsCommand = defineGroup('alerts', 'What is wrong, and whether you hear of it', [list, test])
