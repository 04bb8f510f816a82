/** `pylon doctor`: what is wrong and how to fix it; also while the node is stopped. */
import { type ErrorCode, isPylonError } from '../../base/errors.ts'
import type { Answer, Output } from '../../control/client.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { callNode, defineCommand, stoppedHome } from '../command.ts'
import { plain, printAnswer } from '../terminal/output.ts'

const MARKS = { ok: 'ok     ', warning: 'warning', failed: 'FAILED ', skipped: 'skipped' } as const

export const doctorCommand = defineCommand({
  command: 'doctor',
  describe: 'Check machine, home, database, ledger, relays, mints and substrates',
  handler: async (args) => {
    const answer = await examine(args)
    printAnswer(args, answer, human)
    if (!answer.value.ok) process.exitCode = 1
  },
})

const NEXT: Partial<Record<ErrorCode, string>> = {
  timeout: 'pylon stop, then: pylon start',
  home_unusable: 'Mend what it names, or set PYLON_HOME to another folder.',
}

/** A node that does not answer is a finding, and the rest can be told without it. */
async function examine(args: { sandbox: boolean }): Promise<Answer<Output<typeof nodeRoutes.doctor>>> {
  try {
    return await callNode(args, nodeRoutes.doctor, {})
  } catch (error) {
    if (!isPylonError(error, 'timeout') && !isPylonError(error, 'home_unusable')) throw error
    const { callOffline } = await import('../../daemon/offline/call.ts')
    const { value, body, ...rest } = await callOffline(stoppedHome(args), nodeRoutes.doctor, {}).catch((second: unknown) => {
      // There is no home to look at either: the first words say more.
      throw isPylonError(second, 'not_running') ? error : second
    })
    const hung = { name: 'node', state: 'failed' as const, message: error.message, next_step: NEXT[error.code] ?? 'pylon logs' }
    const report = { ok: false, checks: [hung, ...value.checks] }
    return { ...rest, value: report, body: { ...body, ...report } }
  }
}

function human({ ok, checks }: Output<typeof nodeRoutes.doctor>): string {
  const lines = checks.flatMap((check) => [
    `${MARKS[check.state]} ${plain(check.name)}: ${plain(check.message)}`,
    ...(check.next_step === undefined ? [] : [`        next: ${check.next_step}`]),
  ])
  return [...lines, ok ? 'Nothing is broken.' : 'Something is broken; see above.'].join('\n')
}
