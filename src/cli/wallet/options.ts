/** Options that commands about a wallet share. */
import type { Argv } from 'yargs'
import { flagOption, textOption } from '../options.ts'

export function withWallet<T>(yargs: Argv<T>) {
  return yargs.option('wallet', { ...textOption('Whose: node, customer or the name of an agent'), default: 'node' } as const)
}

export const includeOwedOption = flagOption(
  'Spend also what customers paid for jobs and leases that are not settled; a refund may have to wait then',
)
