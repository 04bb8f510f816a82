/** `pylon sandbox`: a relay, a mint with play money and an LNURL server on loopback, in the foreground. */
import { resolve } from 'node:path'
import { PylonError } from '../base/errors.ts'
import { defineCommand } from './command.ts'
import type { Roles } from './roles.ts'

export const sandboxCommand = (roles: Roles) =>
  defineCommand({
    command: 'sandbox',
    describe: 'Run a sandbox alone (relay, mint, LNURL); prints its URLs as JSON',
    builder: (yargs) =>
      yargs
        .option('dir', { type: 'string', demandOption: true, requiresArg: true, describe: 'Where its databases live' })
        .option('relay-port', { type: 'number', requiresArg: true, describe: 'Chosen and stored when not given' })
        .option('mint-port', { type: 'number', requiresArg: true })
        .option('lnurl-port', { type: 'number', requiresArg: true }),
    handler: async (args) => {
      const ports = { relayPort: args.relayPort, mintPort: args.mintPort, lnurlPort: args.lnurlPort }
      const given = Object.entries(ports).filter((entry): entry is [string, number] => entry[1] !== undefined)
      for (const [, port] of given) {
        if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new PylonError('usage', 'A port is a number from 1 to 65535.')
      }
      process.exitCode = await roles.sandbox({ dir: resolve(args.dir), ...Object.fromEntries(given) })
    },
  })
