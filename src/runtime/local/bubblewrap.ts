/** Whether bubblewrap works here: asked by running it, since a kernel or a profile may forbid what is installed. */
import { messageOf } from '../../base/errors.ts'
import { type ProgramEnd, pickEnv, runProgram } from '../../base/processes.ts'

/** `options` go before all others. */
export type Bubblewrap =
  | { readonly path: string; readonly options: readonly string[] }
  | { readonly path: null; readonly reason: string; readonly nextStep: string }

/** Inside nobody makes another user namespace, where kernels are attacked from; before 0.8 there was no such option. */
const WITHOUT_USERNS = ['--unshare-user', '--disable-userns'] as const
const TRY = ['--unshare-user', '--unshare-pid', '--unshare-net', '--ro-bind', '/', '/', '--proc', '/proc', '--dev', '/dev', '--', 'true']

/** @param wanted a path, undefined for the one on PATH, null to do without */
export async function findBubblewrap(wanted: string | null | undefined): Promise<Bubblewrap> {
  if (wanted === null) return { path: null, reason: 'bubblewrap is switched off', nextStep: 'Switch it on in config.toml.' }
  const path = wanted ?? 'bwrap'
  let words = ''
  for (const options of [WITHOUT_USERNS, []]) {
    let end: ProgramEnd
    try {
      end = await runProgram({ argv: [path, ...options, ...TRY], env: pickEnv(['PATH']), timeoutMs: 10_000, maxBytes: 64 * 1024 })
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return NOT_INSTALLED
      words = messageOf(error)
      continue
    }
    if (end.exitCode === 0) return { path, options }
    words = end.stderr.trim().split('\n')[0] ?? ''
  }
  return {
    path: null,
    reason: `bubblewrap does not work here (${words})`,
    nextStep: 'Allow unprivileged user namespaces (a profile for bwrap in AppArmor, or sysctl), or use Incus (docs/incus.md).',
  }
}

const NOT_INSTALLED = {
  path: null,
  reason: 'bubblewrap is not installed',
  nextStep: 'Install it (apt install bubblewrap), or use Incus (docs/incus.md).',
} as const
