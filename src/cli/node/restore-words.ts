/** `pylon init --restore-words`: keys, agents and sats back from the words alone. */
import type { RestoredWords, WordsOrder } from '../../daemon/offline/restore-words.ts'
import { homeOf } from '../command.ts'
import { json, printFacts, warn } from '../terminal/output.ts'
import { sats } from '../terminal/table.ts'

type Progress = Parameters<WordsOrder['onProgress']>[0]

/** Progress goes to standard error, with --json as a line of JSON each; what came of it to standard output. */
export async function restoreWords(args: { json: boolean; sandbox: boolean }, order: Omit<WordsOrder, 'onProgress'>): Promise<void> {
  const { home, network } = homeOf(args)
  const { restoreFromWords } = await import('../../daemon/offline/restore-words.ts')
  const onProgress = (progress: Progress) => {
    if (args.json) process.stderr.write(`${json(progress)}\n`)
    else warn(wordsOf(progress))
  }
  const restored = await restoreFromWords(home, network, { ...order, onProgress })
  const { npub, pubkey, isProtected, movedTo, mints, restoredSats, agents, unread, problems } = restored
  const facts = { network, npub, pubkey, protected: isProtected, moved_to: movedTo ?? null }
  printFacts(args, { ...facts, restored_sats: restoredSats, mints, agents, unread, problems }, human(restored, order.relays))
}

function wordsOf(progress: Progress): string {
  switch (progress.step) {
    case 'mint_list':
      return progress.found
        ? `the list of mints is on the relays: ${progress.mints.length === 0 ? 'it is empty' : progress.mints.join(', ')}`
        : `no list of mints is on ${progress.relays.join(', ')}: others can be named with --relay, mints with --mint`
    case 'wallet_read':
      return `${progress.mint_url}: ${sats(progress.restored_sats)} of ${progress.wallet}`
    case 'mint_read':
      return `${progress.mint_url}: ${sats(progress.restored_sats)} in all`
    case 'mint_failed':
      return `${progress.mint_url} could not be read: ${progress.reason}`
    case 'agent_found':
      return `the agent ${progress.agent} is back (${progress.npub}), paused`
  }
}

function human({ npub, movedTo, restoredSats, agents, unread, problems }: RestoredWords, relays: readonly string[]): string {
  const flags = relays.map((url) => ` --relay ${url}`).join('')
  return [
    `The node's key is ${npub}.`,
    ...(movedTo === undefined ? [] : [`The former identity is at ${movedTo}.`]),
    `${sats(restoredSats)} are back${agents.length === 0 ? '' : `, and the agents ${agents.map(({ name }) => name).join(', ')}: paused, without brain and goals`}.`,
    ...problems,
    ...(unread.length === 0
      ? []
      : [
          `Not read: ${unread.map(({ url }) => url).join(', ')}. The next start asks what is listed; pylon wallet restore asks all of them again.`,
        ]),
    `Next: pylon start${flags}. Never run two nodes with these keys.`,
  ].join('\n')
}
