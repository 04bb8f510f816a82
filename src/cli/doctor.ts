/** `pylon doctor`: what is wrong and how to fix it; also while the node is stopped. */
import type { Output } from '../control/client.ts'
import { nodeRoutes } from '../control/contract/node.ts'
import { callNode, defineCommand } from './command.ts'
import { plain, printAnswer } from './output.ts'

const MARKS = { ok: 'ok     ', warning: 'warning', failed: 'FAILED ', skipped: 'skipped' } as const

export const doctorCommand = defineCommand({
  command: 'doctor',
  describe: 'Check machine, home, database, ledger, relays, mints and substrates',
  handler: async (args) => {
    const answer = await callNode(args, nodeRoutes.doctor, {})
    printAnswer(args, answer, human)
    if (!answer.value.ok) process.exitCode = 1
  },
})

function human({ ok, checks }: Output<typeof nodeRoutes.doctor>): string {
  const lines = checks.flatMap((check) => [
    `${MARKS[check.state]} ${plain(check.name)}: ${plain(check.message)}`,
    ...(check.next_step === undefined ? [] : [`        next: ${check.next_step}`]),
  ])
  return [...lines, ok ? 'Nothing is broken.' : 'Something is broken; see above.'].join('\n')
}
