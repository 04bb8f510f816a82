/** Makes a brain of its settings. */
import { stringify } from '../../base/json.ts'
import { runCommand } from '../../inference/exec.ts'
import { createAcpBrain } from './acp.ts'
import { readAnswer } from './answer.ts'
import { argvOf, type Brain, type BrainDeps, type BrainSettings } from './brain.ts'
import { defaultScript } from './default-script.ts'
import { createOpenAiBrain } from './openai.ts'
import { parseScript, runScript } from './script.ts'

const MAX_OUTPUT_BYTES = 256_000

export function createBrain(settings: BrainSettings, deps: BrainDeps): Brain {
  switch (settings.type) {
    case 'script':
      return createScriptBrain(settings.rules ?? defaultScript(settings.zap_sats))
    case 'exec':
      return createExecBrain(settings, deps)
    case 'acp':
      return createAcpBrain(settings, deps)
    case 'openai':
      return createOpenAiBrain(settings, deps)
  }
}

function createScriptBrain(source: string): Brain {
  const script = parseScript(source)
  return {
    async think(observation) {
      const { actions, applied, left } = runScript(script, observation)
      const text = applied.length === 0 ? 'No rule applied.' : `Rules applied: ${applied.join('; ')}.`
      return { text, actions, left, problems: [], costMsats: 0n }
    },
  }
}

/** A command of the owner thinks: the observation as JSON on stdin, actions as JSON or lines on stdout. */
function createExecBrain({ command }: Extract<BrainSettings, { type: 'exec' }>, { config, clock }: BrainDeps): Brain {
  return {
    async think(observation, signal) {
      const timeoutMs = config().host.think_timeout_s * 1000
      const spec = { command: argvOf(command), timeoutMs, maxOutputBytes: MAX_OUTPUT_BYTES }
      const answer = await runCommand(spec, { input: stringify(observation), signal }, clock)
      return { ...readAnswer(answer, true), left: [] }
    },
  }
}
