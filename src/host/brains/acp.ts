/** An agent that speaks the Agent Client Protocol thinks: told what a model is told, it answers by the same lines; with hands it may act meanwhile. */
import { given } from '../../base/given.ts'
import { takeTurn } from '../../inference/acp.ts'
import { joinThoughts, readAnswer } from './answer.ts'
import { argvOf, type Brain, type BrainDeps, type BrainSettings } from './brain.ts'
import { notTold, promptOf } from './prompt.ts'

const MAX_CHARS = 256_000

const HANDS = `You also have tools (the MCP server "pylon"): with them you act at once, by the same policy and within the same budget. What you have done by a tool is done: do not write it as a line again.`

export function createAcpBrain(settings: Extract<BrainSettings, { type: 'acp' }>, { config, clock, hands }: BrainDeps): Brain {
  const command = argvOf(settings.command)
  return {
    async think(observation, signal) {
      const openHands = settings.hands && hands !== undefined ? (dir: string) => hands.open(observation.agent.pubkey, dir) : undefined
      const said = promptOf(observation).map(({ content }) => content)
      const prompt = [...said, ...(openHands === undefined ? [] : [HANDS])].join('\n\n')
      const timeoutMs = config().host.think_timeout_s * 1000
      const turn = { command, prompt, timeoutMs, maxChars: MAX_CHARS, signal, ...given({ openHands, enclose: hands?.enclose }) }
      const answer = await takeTurn(turn, clock)
      const thought = readAnswer(answer.text, true)
      return { ...thought, text: joinThoughts(answer.thoughts, thought.text), left: notTold(observation) }
    },
  }
}
