/** `pylon sandbox`: a relay, a mint with play money and an LNURL server on loopback, in the foreground. */
import { resolve } from 'node:path'
import { given } from '../../base/given.ts'
import { defineCommand } from '../command.ts'
import { textOption } from '../options.ts'
import type { Roles } from '../roles.ts'
import { pathOf, wholeNumberIf } from '../terminal/values.ts'

export const sandboxCommand = (roles: Roles) =>
  defineCommand({
    command: 'sandbox',
    describe: 'Run a sandbox alone (relay, mint, LNURL); prints its URLs as JSON',
    builder: (yargs) =>
      yargs
        .option('dir', { type: 'string', demandOption: true, requiresArg: true, describe: 'Where its databases live' })
        .option('relay-port', textOption('Chosen and stored when not given'))
        .option('mint-port', textOption('Likewise'))
        .option('lnurl-port', textOption('Likewise')),
    handler: async (args) => {
      const port = (text: string | undefined, name: string) => wholeNumberIf(text, name, 1, 65_535)
      const ports = given({
        relayPort: port(args.relayPort, '--relay-port'),
        mintPort: port(args.mintPort, '--mint-port'),
        lnurlPort: port(args.lnurlPort, '--lnurl-port'),
      })
      process.exitCode = await roles.sandbox({ dir: resolve(pathOf(args.dir, '--dir')), ...ports })
    },
  })
