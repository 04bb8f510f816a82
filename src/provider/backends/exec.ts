/** Backends that are commands of the owner: one for each kind that config maps to argv. */
import { constants } from 'node:fs'
import { access, open, stat } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { paramEnv, runCommand } from '../../inference/exec.ts'
import type { Backend, BackendHealth } from './backend.ts'

const MAX_PARAMS = 64
const NOT_THERE: readonly number[] = [126, 127]
const MEND = 'Set provider.exec in config.toml to a command that exists and runs'

/**
 * The input comes on stdin; PYLON_KIND, PYLON_INPUT_TYPE, PYLON_OUTPUT and PYLON_PARAM_<NAME> in the environment; stdout
 * is the result. After a crash of the node a command may run again for the same job: make it harmless to repeat.
 */
export function createExecBackend(entry: Config['provider']['exec'][number], clock: Clock): Backend {
  const file = entry.command[0] ?? ''
  let health: BackendHealth = { state: 'degraded', models: [], reason: 'Not looked for yet.' }
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
        return output.trimEnd()
      } catch (error) {
        // What shells and env say of a command that is not there, or may not be run: the owner's to mend, whatever the input.
        if (isPylonError(error, 'backend_failed') && NOT_THERE.includes(Number(error.details['exit_code'])))
          throw new PylonError('backend_unavailable', `${error.message} ${MEND} (${file}).`, { details: error.details, cause: error })
        throw error
      }
    },
    health: () => health,
    probe: async () => {
      const why = await whyNotThere(file)
      health =
        why === undefined ? { state: 'ok', models: [] } : { state: 'degraded', models: [], reason: `The command ${file} ${why}. ${MEND}.` }
    },
  }
}

/** Why a command would not start, as far as can be seen without running it; undefined when it would. */
async function whyNotThere(file: string): Promise<string | undefined> {
  const candidates = file.includes('/') ? [file] : (process.env['PATH'] ?? '').split(':').map((dir) => join(dir, file))
  // A relative path would be looked for in the scratch folder of each run.
  if (file.includes('/') && !isAbsolute(file)) return 'is no absolute path'
  let why = 'is not there'
  for (const candidate of candidates) {
    const found = await statOf(candidate)
    if (found?.isFile() !== true) continue
    const mayRun = await access(candidate, constants.X_OK).then(
      () => true,
      () => false,
    )
    if (!mayRun) why = 'may not be run'
    else {
      const interpreter = await interpreterOf(candidate)
      if (interpreter === undefined || (await statOf(interpreter)) !== undefined) return undefined
      why = `needs ${interpreter}, which is not there`
    }
  }
  return why
}

/** Whatever keeps us from looking: for us it is not there. */
const statOf = (file: string) => stat(file).catch(() => undefined)

/** What a script names in its first line. */
async function interpreterOf(file: string): Promise<string | undefined> {
  // A program that may be run and not read names no interpreter.
  const handle = await open(file).catch(() => undefined)
  if (handle === undefined) return undefined
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(256), 0, 256, 0)
    return /^#!\s*(\/\S+)/.exec(buffer.subarray(0, bytesRead).toString('latin1'))?.[1]
  } finally {
    await handle.close()
  }
}
