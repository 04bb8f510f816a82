/** What a guest is told by its environment, in images that get no launch file: the twin of launch.json for a session. */
import { DEFAULT_RELAYS } from '../base/default-relays.ts'
import { PylonError } from '../base/errors.ts'
import { decodeLaunch, type GuestLaunch, type GuestLaunchInput, LAUNCH_SCHEMA_VERSION } from '../runtime/contract/launch.ts'
import { pathsUnder, STATE_DIR } from '../runtime/contract/paths.ts'

type Env = Readonly<Record<string, string | undefined>>

/** What the agent is not told. */
const SECRETS = ['PYLON_SESSION_TOKEN', 'PYLON_ENTRY_COMMAND']

export const stateDirOf = (env: Env): string => env['STATE_DIR'] || STATE_DIR

/** @throws guest_request_invalid naming the variable */
export function launchFromEnv(env: Env): GuestLaunch {
  const needed = (...names: readonly string[]): string => {
    const found = names.map((name) => env[name]).find((value) => value !== undefined && value !== '')
    if (found === undefined) throw new PylonError('guest_request_invalid', `The environment lacks ${names[0]}.`)
    return found
  }
  const runtimeId = needed('PYLON_RUNTIME_ID')
  const stateDir = stateDirOf(env)
  const command = env['PYLON_ENTRY_COMMAND']
  if (!command && !env['PYLON_AGENT_BASE_URL'])
    throw new PylonError('guest_request_invalid', 'The environment lacks PYLON_ENTRY_COMMAND (an agent) or PYLON_AGENT_BASE_URL (a model).')
  const relays = (env['PIKA_RELAY_URLS'] ?? '').split(',').flatMap((url) => (url.trim() === '' ? [] : [url.trim()]))
  const launch: GuestLaunchInput = {
    schema_version: LAUNCH_SCHEMA_VERSION,
    spec: {
      identity: { runtime_id: runtimeId, instance_name: runtimeId },
      paths: pathsUnder(stateDir),
      policies: { restart_policy: 'on_failure' },
      ...(command ? { entry_command: command } : {}),
    },
    protocol: env['PYLON_PROTOCOL'] === 'pi' ? 'pi' : 'acp',
    session: {
      owner_pubkey: needed('PYLON_OWNER_PUBKEY', 'PIKA_OWNER_PUBKEY'),
      relays: relays.length > 0 ? relays : [...DEFAULT_RELAYS],
      token: needed('PYLON_SESSION_TOKEN'),
      // Its own where the status lies in memory: key and conversation are to outlive a boot.
      state_dir: env['PYLON_SESSION_DIR'] || `${stateDir}/session`,
    },
    env: Object.fromEntries(
      Object.entries(env).filter(
        (pair): pair is [string, string] => pair[1] !== undefined && /^[A-Za-z_][A-Za-z0-9_]*$/.test(pair[0]) && !SECRETS.includes(pair[0]),
      ),
    ),
  }
  return decodeLaunch(JSON.stringify(launch), 'The environment')
}
