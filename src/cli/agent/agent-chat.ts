/** `pylon agent chat` and `attach`: one turn, or a conversation, with any agent. */
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { managedRoutes } from '../../control/contract/managed.ts'
import { callNode, defineCommand } from '../command.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { printAnswer } from '../terminal/output.ts'
import { textFrom, wholeNumberIf } from '../terminal/values.ts'
import { interruptible } from '../terminal/waiting.ts'
import { converse, streamTurn } from './conversation.ts'

const TURN_S = 300
const GRACE_MS = 30_000

export const chatCommand = defineCommand({
  command: 'chat <name> <message>',
  describe: 'Say something to an agent and print what it answers; - reads it from standard input',
  builder: (yargs) =>
    yargs
      .positional('name', { type: 'string', demandOption: true, describe: 'Name or npub' })
      .positional('message', { type: 'string', demandOption: true, describe: 'TEXT, @FILE or -' })
      .option('timeout', { type: 'string', nargs: 1, describe: `Seconds until its turn must have ended (${TURN_S})` })
      .option('idempotency-key', idempotencyOption),
  handler: async (args) => {
    const text = textFrom(args.message).replace(/\n$/, '')
    if (text.trim() === '') throw new PylonError('usage', 'There is nothing to say: the message is empty.')
    const timeoutS = wholeNumberIf(args.timeout, '--timeout') ?? TURN_S
    const { idempotencyKey } = spendingCall(args)
    const goesOn = () => `It goes on with its turn; what it says: pylon agent attach ${args.name}`
    if (args.json) {
      const answer = await interruptible(goesOn, (signal) =>
        callNode(
          args,
          managedRoutes.takeTurn,
          { peer: args.name, text, timeout_s: timeoutS },
          { ...given({ idempotencyKey }), signal, timeoutMs: timeoutS * 1000 + GRACE_MS },
        ),
      )
      if (answer.value.outcome === 'error') process.exitCode = 1
      return printAnswer(args, answer, ({ reply }) => reply)
    }
    const options = { ...given({ key: idempotencyKey }), timeoutMs: timeoutS * 1000 }
    const isWell = await interruptible(goesOn, (signal) => streamTurn(args, args.name, text, { ...options, signal }))
    if (!isWell) process.exitCode = 1
  },
})

export const attachCommand = defineCommand({
  command: 'attach <name>',
  describe: 'Go on with the conversation with an agent; it stays when you leave',
  builder: (yargs) => yargs.positional('name', { type: 'string', demandOption: true, describe: 'Name or npub' }),
  handler: (args) => {
    if (args.json) throw new PylonError('usage', 'attach is for people; for programs: pylon agent chat NAME MESSAGE --json')
    return converse(args, args.name, { isNew: false })
  },
})
