/** Backends that are commands of the owner: one for each kind that config maps to argv. */
import type { Clock } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { paramEnv, runCommand } from '../../inference/exec.ts'
import type { Backend, BackendHealth } from './backend.ts'

const MAX_PARAMS = 64

/**
 * The input comes on stdin; PYLON_KIND, PYLON_INPUT_TYPE, PYLON_OUTPUT and PYLON_PARAM_<NAME> in the environment; stdout
 * is the result. After a crash of the node a command may run again for the same job: make it harmless to repeat.
 */
export function createExecBackend(entry: Config['provider']['exec'][number], clock: Clock): Backend {
  let health: BackendHealth = { state: 'ok', models: [] }
  const file = entry.command[0] ?? ''
  return {
    name: `exec:${entry.kind}`,
    inline: false,
    kinds: () => [entry.kind],
    check(work) {
      if (Object.keys(work.params).length > MAX_PARAMS) throw new PylonError('param_invalid', `At most ${MAX_PARAMS} params are taken.`)
    },
    async run(work, signal) {
      const env = {
        ...paramEnv(work.params),
        PYLON_KIND: String(work.kind),
        PYLON_INPUT_TYPE: work.inputType,
        PYLON_OUTPUT: (work.output ?? '').replaceAll('\0', '').slice(0, 200),
      }
      const spec = { command: entry.command, timeoutMs: entry.timeout_s * 1000, maxOutputBytes: entry.max_output_bytes }
      try {
        const output = await runCommand(spec, { input: work.input, env, signal }, clock)
        health = { state: 'ok', models: [] }
        return output.trimEnd()
      } catch (error) {
        // A command that is not there is the owner's to mend; one that failed on this input is not.
        if (isPylonError(error, 'backend_unavailable')) {
          health = {
            state: 'degraded',
            models: [],
            reason: `${error.message} Set provider.exec in config.toml to a command that exists (${file}).`,
          }
        }
        throw error
      }
    },
    health: () => health,
    probe: async () => {
      // The next job shows whether the command is back: nothing else can be run without side effects.
      health = { state: 'ok', models: [] }
    },
  }
}
