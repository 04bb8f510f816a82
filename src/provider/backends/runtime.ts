/** Kind 5930: a shell script, run once in an ephemeral runtime that nothing of it outlives. */
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { ControlError } from '../../nostr/control/vocabulary.ts'
import type { ScriptRun } from '../machines/creation.ts'
import type { MachineService } from '../machines/service.ts'
import type { Backend, Checkable, JobParams } from './backend.ts'

export const SANDBOX_RUN_KIND = 5930

const DEFAULT_TIMEOUT_S = 60
const MAX_TIMEOUT_S = 3600
const MAX_SCRIPT_BYTES = 32_768
const KNOWN_PARAMS: readonly string[] = ['timeout_s', 'image']

/** The result is JSON: `{"exit_code", "stdout", "stderr"}`; exit_code is null when the host ended the run. */
export function createRuntimeBackend(
  machines: Pick<MachineService, 'jobClass' | 'checkScript' | 'runScript'>,
  jobTimeoutS: () => number,
): Backend {
  const timeoutOf = (params: JobParams) => {
    const text = params['timeout_s']?.[0]
    if (text === undefined) return Math.min(DEFAULT_TIMEOUT_S, jobTimeoutS())
    const limit = Math.min(MAX_TIMEOUT_S, jobTimeoutS())
    if (!/^\d{1,4}$/.test(text) || Number(text) < 1 || Number(text) > limit) {
      throw new PylonError('param_invalid', `The parameter timeout_s must be whole seconds from 1 to ${limit}.`)
    }
    return Number(text)
  }
  const imageOf = (params: JobParams) => {
    const image = params['image']?.[0]
    if (image !== undefined && !/^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$/.test(image)) {
      throw new PylonError('param_invalid', 'The parameter image must be an image alias.')
    }
    return image
  }

  function assertTaken(run: ScriptRun): void {
    try {
      machines.checkScript(run)
    } catch (error) {
      throw new PylonError(codeOf(error), messageOf(error), { cause: error })
    }
  }

  function check(work: Checkable): void {
    const unknown = Object.keys(work.params).find((name) => !KNOWN_PARAMS.includes(name))
    if (unknown !== undefined)
      throw new PylonError('param_invalid', `The kind 5930 takes timeout_s and image, not ${unknown.slice(0, 64)}.`)
    const image = imageOf(work.params)
    const run = { script: work.input ?? 'true', timeoutS: timeoutOf(work.params), ...(image === undefined ? {} : { image }) }
    if (image !== undefined && !('reason' in machines.jobClass())) assertTaken(run)
    if (work.input === undefined) return
    if (work.input.trim() === '' || work.input.includes('\0')) throw new PylonError('input_invalid', 'The input must be a shell script.')
    if (Buffer.byteLength(work.input) > MAX_SCRIPT_BYTES)
      throw new PylonError('input_invalid', `A script is at most ${MAX_SCRIPT_BYTES} bytes.`)
  }

  return {
    name: 'runtime',
    inline: false,
    // Only what really runs: without an isolating substrate there is no such kind here.
    kinds: () => ('reason' in machines.jobClass() ? [] : [SANDBOX_RUN_KIND]),
    check,
    async run(work, signal) {
      check(work)
      const image = imageOf(work.params)
      const run = { script: work.input, timeoutS: timeoutOf(work.params), ...(image === undefined ? {} : { image }) }
      try {
        const { exitCode, stdout, stderr } = await machines.runScript(run, signal)
        return JSON.stringify({ exit_code: exitCode, stdout, stderr })
      } catch (error) {
        signal.throwIfAborted()
        if (isPylonError(error, 'shutting_down')) throw error
        throw new PylonError(codeOf(error), messageOf(error), { cause: error })
      }
    },
    health: () => ({ state: 'ok', models: [] }),
    // Machines look at their substrates by themselves.
    probe: async () => undefined,
  }
}

function codeOf(error: unknown): 'param_invalid' | 'backend_unavailable' | 'backend_failed' {
  if (!(error instanceof ControlError)) return 'backend_failed'
  if (error.code === 'invalid_command') return 'param_invalid'
  return error.code === 'capacity_exhausted' || error.code === 'provider_temporarily_disabled' ? 'backend_unavailable' : 'backend_failed'
}
