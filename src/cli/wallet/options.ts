/** Options that commands about a wallet share. */
import type { Argv } from 'yargs'

export function withWallet<T>(yargs: Argv<T>) {
  return yargs.option('wallet', {
    type: 'string',
    nargs: 1,
    default: 'node',
    describe: 'Whose: node, customer or the name of an agent',
  })
}

export const includeOwedOption = {
  type: 'boolean',
  default: false,
  describe: 'Spend also what customers paid for jobs and leases that are not settled; a refund may have to wait then',
} as const
