import { auditRoutes } from '../../control/contract/audit.ts'
import { ask, defineCommand } from '../command.ts'
import { limitOf, limitOption } from '../options.ts'
import { clockTime, drawList, right, shorten } from '../terminal/table.ts'

export const audit = defineCommand({
  command: 'audit',
  describe: 'What was spent, approved and changed about money; pylon doctor checks that nobody changed the log',
  builder: (yargs) => yargs.option('limit', limitOption('How many (50)')),
  handler: (args) =>
    ask(args, auditRoutes.listAudit, limitOf(args), ({ rows }) =>
      drawList(rows, 'Nothing yet.', [right('ROW'), 'TIME (UTC)', 'WHAT', ''], ({ id, at, kind, data }) => [
        ...[String(id), clockTime(at), kind],
        Object.entries(data)
          .filter(([, value]) => value !== null)
          .map(([name, value]) => `${name}=${shorten(typeof value === 'string' ? value : JSON.stringify(value), 40)}`)
          .join(' '),
      ]),
    ),
})
