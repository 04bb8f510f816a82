/** Makes a brain of its settings. */
import { createAcpBrain } from './acp.ts'
import type { Brain, BrainDeps, BrainSettings } from './brain.ts'
import { defaultScript } from './default-script.ts'
import { createExecBrain } from './exec.ts'
import { createOpenAiBrain } from './openai.ts'
import { parseScript, runScript } from './script.ts'

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
