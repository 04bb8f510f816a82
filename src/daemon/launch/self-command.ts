/** How this program starts itself again, as a script or as a single executable. */
import { isSea } from 'node:sea'

/** argv of a process that runs the same program with these arguments. */
export function selfCommand(args: readonly string[]): { command: string; args: string[] } {
  // In an executable the program is execPath itself; a script path would become a stray argument.
  const script = isSea() ? [] : [...process.execArgv, process.argv[1] ?? '']
  return { command: process.execPath, args: [...script, ...args] }
}

/** The environment for our own children: anyone's exported NODE_OPTIONS must not run inside the wallet process. */
export function childEnv(env: NodeJS.ProcessEnv, more: Record<string, string> = {}): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _options, NODE_CHANNEL_FD: _channel, NODE_CHANNEL_SERIALIZATION_MODE: _mode, ...rest } = env
  return { ...rest, ...more }
}
