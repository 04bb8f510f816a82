/** The flags that say how a node runs: the same for start and daemon. */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { RunOptions } from '../../daemon/launch/run-options.ts'
import type { ArgsOf, GlobalOptions } from '../command.ts'
import { pathOf } from '../terminal/values.ts'

export function addRunFlags<T extends GlobalOptions>(yargs: Argv<T>) {
  return yargs
    .option('mode', modeOption('What the node does (default: both)'))
    .option('relay', { ...valueOption('A relay to use instead of the configured ones; repeat for more'), array: true })
    .option('mint', { ...valueOption('A Cashu mint to trust; repeat for more'), array: true })
    .option('passphrase-file', valueOption('Opens (or, at first use, protects) the keys'))
}

export const modeOption = (describe: string) => ({ ...valueOption(describe), choices: ['host', 'provider', 'both'] as const }) as const

/** A text that must follow its flag. */
export const valueOption = (describe: string) => ({ type: 'string', requiresArg: true, describe }) as const

/** @throws usage */
export function runOptionsOf(flags: ArgsOf<typeof addRunFlags>): RunOptions {
  const relays = (flags.relay ?? []).map((url) => urlOf(url, ['ws:', 'wss:'], '--relay'))
  const mints = (flags.mint ?? []).map((url) => urlOf(url, ['http:', 'https:'], '--mint'))
  if (flags.sandbox && relays.length > 0 !== mints.length > 0) {
    throw new PylonError(
      'usage',
      '--sandbox with --relay or --mint joins another sandbox: name its relay and its mint, both; with neither the node has its own.',
    )
  }
  // A flag given twice comes as a list, whatever its type says: the last one counts.
  const mode = [flags.mode].flat().at(-1)
  const file = flags.passphraseFile === undefined ? undefined : resolve(pathOf(flags.passphraseFile, '--passphrase-file'))
  return { relays, mints, ...given({ mode, passphraseFile: file }) }
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
