/** The local substrate over a temporary folder, with the built program as the guest; every runtime is gone when the test ends. */
import { randomBytes } from 'node:crypto'
import { realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import type { GuestProgram } from '../../src/runtime/local/enclosure.ts'
import { LocalAdapter, type LocalOptions } from '../../src/runtime/local/local-adapter.ts'
import { testScope } from './scope.ts'
import { diskDir } from './temp.ts'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const node = realpathSync(process.execPath)

/** The bundle, as users run it: from the sources a guest would take four times as long to start. */
export const guestProgram: GuestProgram = {
  command: node,
  args: [join(root, 'dist/pylon.cjs'), 'guest'],
  readOnlyPaths: [node, root, realpathSync(join(root, 'node_modules'))],
}

/** The command line of a scripted agent. */
export function scriptedAgent(protocol: 'acp' | 'pi', ...args: string[]): string {
  return [node, join(root, `test/support/scripted-${protocol}-child.mjs`), ...args].join(' ')
}

export function localRuntimes(options: Partial<LocalOptions> = {}): { adapter: LocalAdapter; dir: string } {
  const dir = options.dir ?? diskDir()
  const adapter = new LocalAdapter({ dir, scope: testScope(), guest: guestProgram, ...options })
  onTestFinished(async () => {
    for (const { handle } of await adapter.listOwned()) await adapter.teardown(handle, { keepVolume: false })
  })
  return { adapter, dir }
}

export function newRuntimeId(provider = 'local'): string {
  return `${provider}-${randomBytes(8).toString('hex')}`
}
