/** The next daemon of a home, started by the one that ends; unlocked keys go over a pipe that only the two share. */
import type { Home } from '../../base/paths.ts'
import type { RunOptions } from './run-options.ts'
import { spawnDaemon } from './start.ts'

export interface Successor {
  readonly run: RunOptions
  /** Of an unlocked identity under a passphrase; undefined where it needs none or was locked. */
  readonly words: string | undefined
}

/** Call with the lease released. Resolves once the words are in the pipe. */
export async function startSuccessor(home: Home, network: 'sandbox' | 'live', { run, words }: Successor): Promise<void> {
  const child = spawnDaemon(home, network, run, 'pipe')
  const pipe = child.stdio[3]
  await new Promise<void>((resolve) => {
    if (pipe === null || pipe === undefined || !('end' in pipe)) return resolve()
    pipe.on('error', () => resolve())
    pipe.end(words ?? '', () => resolve())
  })
  child.unref()
}
