/** The command line: parses argv, runs one command and gives the exit code. */
import yargs, { type Argv } from 'yargs'
import { PylonError, toPylonError } from '../base/errors.ts'
import { VERSION } from '../base/version.ts'
import { agentCommand } from './agent.ts'
import { backupCommand } from './backup.ts'
import type { GlobalOptions } from './command.ts'
import { configCommand } from './config.ts'
import { daemonCommand } from './daemon.ts'
import { demoCommand } from './demo.ts'
import { doctorCommand } from './doctor.ts'
import { earningsCommand } from './earnings.ts'
import { initCommand } from './init.ts'
import { jobCommand } from './job.ts'
import { jobsCommand } from './jobs.ts'
import { logsCommand } from './logs.ts'
import { exitCodeOf, printError } from './output.ts'
import { restartCommand } from './restart.ts'
import { restoreCommand } from './restore.ts'
import type { Roles } from './roles.ts'
import { runtimeCommand } from './runtime.ts'
import { sandboxCommand } from './sandbox.ts'
import { startCommand } from './start.ts'
import { statusCommand } from './status.ts'
import { stopCommand } from './stop.ts'
import { unlockCommand } from './unlock.ts'
import { STDIN } from './values.ts'
import { walletCommand } from './wallet.ts'

/** @param argv without the executable and script. @returns 0 ok, 1 failed, 2 usage, 3 not running. */
export async function runCli(argv: readonly string[], roles: Roles): Promise<number> {
  // Before the parser, so that its own errors keep to the form that was asked for.
  const asJson = argv.includes('--json')
  try {
    await parser(argv, roles).parseAsync()
    return typeof process.exitCode === 'number' ? process.exitCode : 0
  } catch (error) {
    const known = toPylonError(error)
    printError(known, asJson)
    return exitCodeOf(known)
  }
}

function parser(argv: readonly string[], roles: Roles): Argv<GlobalOptions> {
  const base = yargs(argv.map((arg) => (arg === '-' ? STDIN : arg)))
    .scriptName('pylon')
    .usage('Usage: $0 <command>\n\nOne node that hosts your agents and sells work for sats.')
    .option('json', { type: 'boolean', default: false, describe: 'Print the answer as JSON', global: true })
    .option('sandbox', { type: 'boolean', default: false, describe: 'Mean the sandbox node (play money)', global: true })
    .version(VERSION)
    .help()
    .alias('h', 'help')
    .strict()
    .demandCommand(1, 'Name a command: pylon --help lists them.')
    .recommendCommands()
    .parserConfiguration({
      'duplicate-arguments-array': true,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'greedy-arrays': false,
    })
    .wrap(100)
    .exitProcess(false)
    .fail((message, error) => {
      throw error === undefined || error.name === 'YError' ? new PylonError('usage', wordsFor(message ?? error.message)) : error
    })
  return addCommands(base, roles)
}

/** What the parser says, where it says too little. */
function wordsFor(message: string): string {
  if (message.startsWith('Not enough non-option arguments')) return 'An argument is missing; add --help to see what the command takes.'
  if (message.startsWith('Did you mean')) return `There is no such command. ${message} pylon --help lists all.`
  return message
}

/** In the order of `--help`. */
function addCommands(base: Argv<GlobalOptions>, roles: Roles): Argv<GlobalOptions> {
  return base
    .command(startCommand(roles))
    .command(statusCommand)
    .command(stopCommand)
    .command(restartCommand)
    .command(agentCommand)
    .command(jobCommand)
    .command(jobsCommand)
    .command(runtimeCommand)
    .command(earningsCommand)
    .command(walletCommand)
    .command(demoCommand)
    .command(doctorCommand)
    .command(logsCommand)
    .command(configCommand)
    .command(initCommand)
    .command(unlockCommand)
    .command(backupCommand)
    .command(restoreCommand)
    .command(daemonCommand(roles))
    .command(sandboxCommand(roles))
}
