/** A one-shot run: when it is said to have ended, all that it printed is there to be collected. */
import { pbkdf2 } from 'node:crypto'
import { mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { LifecycleWriter } from '../../../src/guest/lifecycle-writer.ts'
import { runOnce } from '../../../src/guest/run-once.ts'
import { pathsUnder, STDOUT_LOG } from '../../../src/runtime/contract/paths.ts'
import { testScope } from '../../support/scope.ts'
import { tempDir } from '../../support/temp.ts'

it('ends when its words are in the log', async () => {
  const dir = tempDir()
  const paths = pathsUnder(dir)
  const sizes: number[] = []
  class Watching extends LifecycleWriter {
    override finish(terminal: Parameters<LifecycleWriter['finish']>[0]): void {
      sizes.push(statSync(join(paths.logs_dir, STDOUT_LOG)).size)
      super.finish(terminal)
    }
  }
  mkdirSync(join(dir, 'work'))
  const run = {
    command: 'echo second',
    timeoutSecs: 20,
    cwd: join(dir, 'work'),
    env: {},
    paths,
    restartPolicy: 'never',
  } as const
  // Writes wait for a thread, as on a busy machine.
  const busy = Array.from({ length: 8 }, () => promisify(pbkdf2)('a', 'b', 300_000, 64, 'sha512'))
  expect(await runOnce(run, new Watching(paths, systemClock), testScope(systemClock), new AbortController().signal)).toBe(0)
  expect(sizes).toEqual(['second\n'.length])
  await Promise.all(busy)
})
