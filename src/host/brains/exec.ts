/** A command of the owner thinks: the observation as JSON on stdin, actions as JSON or lines on stdout. */
import { stringify } from '../../base/json.ts'
import { runCommand } from '../../inference/exec.ts'
import { readAnswer } from './answer.ts'
import type { Brain, BrainDeps, BrainSettings } from './brain.ts'

const MAX_OUTPUT_BYTES = 256_000

export function createExecBrain(settings: Extract<BrainSettings, { type: 'exec' }>, deps: BrainDeps): Brain {
  const command = typeof settings.command === 'string' ? ['sh', '-c', settings.command] : settings.command
  return {
    async think(observation, signal) {
      const spec = { command, timeoutMs: deps.config().host.think_timeout_s * 1000, maxOutputBytes: MAX_OUTPUT_BYTES }
      const answer = await runCommand(spec, { input: stringify(observation), signal }, deps.clock)
      return { ...readAnswer(answer, true), left: [] }
    },
  }
}
