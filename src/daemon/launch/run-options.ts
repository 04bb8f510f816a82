/** What a node was told to do on its command line: kept so that restart can say it again. */
import { existsSync } from 'node:fs'
import { z } from 'zod'
import type { Home } from '../../base/paths.ts'
import { getSetting } from '../../store/settings.ts'
import { Store } from '../../store/store.ts'

const schema = z.strictObject({
  mode: z.enum(['host', 'provider', 'both']).optional(),
  relays: z.array(z.string()).default([]),
  mints: z.array(z.string()).default([]),
  passphraseFile: z.string().optional(),
})

export type RunOptions = z.infer<typeof schema>
export type Mode = NonNullable<RunOptions['mode']>

/** How one daemon process runs; paths are absolute. */
export interface DaemonOptions {
  readonly home: Home
  readonly network: 'sandbox' | 'live'
  readonly run: RunOptions
  /** Spawned by `pylon start`: logs to its file only, and can start its own successor. */
  readonly isDetached: boolean
  /** A descriptor from which the words of the identity come (restart). */
  readonly keyFd?: number
}

export const RUN_OPTIONS_KEY = 'run_options'

/** argv of `pylon daemon` for these options. */
export function runArgs(run: RunOptions, network: 'sandbox' | 'live'): string[] {
  return [
    ...(network === 'sandbox' ? ['--sandbox'] : []),
    ...(run.mode === undefined ? [] : ['--mode', run.mode]),
    ...run.relays.flatMap((url) => ['--relay', url]),
    ...run.mints.flatMap((url) => ['--mint', url]),
    ...(run.passphraseFile === undefined ? [] : ['--passphrase-file', run.passphraseFile]),
  ]
}

/** Of the last run of a stopped node; the defaults when it never ran. */
export function lastRunOptions(home: Home): RunOptions {
  if (!existsSync(home.database)) return schema.parse({})
  const store = Store.open(home.database, { readonly: true })
  try {
    return schema.parse(getSetting(store, RUN_OPTIONS_KEY) ?? {})
  } finally {
    store.close()
  }
}
