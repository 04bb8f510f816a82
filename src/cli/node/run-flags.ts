/** The flags that say how a node runs: the same for start and daemon. */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { PylonError } from '../../base/errors.ts'
import type { RunOptions } from '../../daemon/launch/run-options.ts'
import type { GlobalOptions } from '../command.ts'
import { pathOf } from '../terminal/values.ts'

export interface RunFlags {
  readonly mode?: string | undefined
  readonly relay?: readonly string[] | undefined
  readonly mint?: readonly string[] | undefined
  readonly passphraseFile?: string | undefined
}

export function addRunFlags<T extends GlobalOptions>(yargs: Argv<T>) {
  return yargs
    .option('mode', {
      type: 'string',
      choices: ['host', 'provider', 'both'],
      requiresArg: true,
      describe: 'What the node does (default: both)',
    })
    .option('relay', {
      type: 'string',
      array: true,
      requiresArg: true,
      describe: 'A relay to use instead of the configured ones; repeat for more',
    })
    .option('mint', { type: 'string', array: true, requiresArg: true, describe: 'A Cashu mint to trust; repeat for more' })
    .option('passphrase-file', { type: 'string', requiresArg: true, describe: 'Opens (or, at first use, protects) the keys' })
}

/** @throws usage */
export function runOptionsOf(flags: RunFlags & GlobalOptions): RunOptions {
  const relays = (flags.relay ?? []).map((url) => urlOf(url, ['ws:', 'wss:'], '--relay'))
  const mints = (flags.mint ?? []).map((url) => urlOf(url, ['http:', 'https:'], '--mint'))
  if (flags.sandbox && relays.length > 0 !== mints.length > 0) {
    throw new PylonError(
      'usage',
      '--sandbox with --relay or --mint joins another sandbox: name its relay and its mint, both; with neither the node has its own.',
    )
  }
  return {
    ...(flags.mode === undefined ? {} : { mode: lastOf(flags.mode) as 'host' | 'provider' | 'both' }),
    relays,
    mints,
    ...(flags.passphraseFile === undefined ? {} : { passphraseFile: resolve(pathOf(flags.passphraseFile, '--passphrase-file')) }),
  }
}

function urlOf(text: string, schemes: readonly string[], flag: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !schemes.includes(url.protocol) || url.username !== '' || url.hash !== '') {
    throw new PylonError(
      'usage',
      `${flag} must be a ${schemes.map((scheme) => `${scheme}//`).join(' or ')} URL, not ${JSON.stringify(text)}.`,
    )
  }
  return text.replace(/\/$/, '')
}

/** A flag given twice comes as a list, whatever its type says: the last one counts. */
function lastOf(value: string | readonly string[]): string {
  return [value].flat().at(-1) ?? ''
}
