/** Whether bubblewrap works here: asked by running it, since a kernel or a profile may forbid what is installed. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

/** `options` go before all others. */
export type Bubblewrap =
  | { readonly path: string; readonly options: readonly string[] }
  | { readonly path: null; readonly reason: string; readonly nextStep: string }

/** Inside nobody makes another user namespace, where kernels are attacked from. */
const WITHOUT_USERNS = ['--unshare-user', '--disable-userns'] as const

const run = promisify(execFile)

/** @param wanted a path, undefined for the one on PATH, null to do without */
export async function findBubblewrap(wanted: string | null | undefined): Promise<Bubblewrap> {
  if (wanted === null) return { path: null, reason: 'bubblewrap is switched off', nextStep: 'Switch it on in config.toml.' }
  const path = wanted ?? 'bwrap'
  const args = ['--unshare-user', '--unshare-pid', '--unshare-net', '--ro-bind', '/', '/', '--proc', '/proc', '--dev', '/dev', '--', 'true']
  try {
    await run(path, [...WITHOUT_USERNS, ...args], { timeout: 10_000 })
    return { path, options: WITHOUT_USERNS }
  } catch {
    // Before 0.8 it had no such option, or it does not work at all.
  }
  try {
    await run(path, args, { timeout: 10_000 })
    return { path, options: [] }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') {
      return {
        path: null,
        reason: 'bubblewrap is not installed',
        nextStep: 'Install it (apt install bubblewrap), or use Incus (docs/incus.md).',
      }
    }
    const words = error instanceof Error && 'stderr' in error ? String(error.stderr).trim().split('\n')[0] : String(error)
    return {
      path: null,
      reason: `bubblewrap does not work here (${words})`,
      nextStep: 'Allow unprivileged user namespaces (a profile for bwrap in AppArmor, or sysctl), or use Incus (docs/incus.md).',
    }
  }
}
