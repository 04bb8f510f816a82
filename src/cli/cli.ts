/** The command line: parses argv, runs one command and gives the exit code. */
import yargs, { type Argv, type CommandModule } from 'yargs'
import { PylonError, toPylonError } from '../base/errors.ts'
import { nearest } from '../base/nearest.ts'
import { VERSION } from '../base/version.ts'
import type { GlobalOptions } from './command.ts'
import type { Roles } from './roles.ts'
import { exitCodeOf, printError } from './terminal/output.ts'
import { STDIN } from './terminal/values.ts'

// biome-ignore lint/suspicious/noExplicitAny: yargs types a list of commands with different options so.
type Command = CommandModule<GlobalOptions, any>

/** In the order of `--help`. Each is loaded when it is named: a short command is a quick one. */
const COMMANDS: Readonly<Record<string, (roles: Roles) => Promise<Command>>> = {
  start: async (roles) => (await import('./node/start.ts')).startCommand(roles),
  status: async () => (await import('./node/status.ts')).statusCommand,
  stop: async () => (await import('./node/stop.ts')).stopCommand,
  restart: async () => (await import('./node/restart.ts')).restartCommand,
  agent: async () => (await import('./agent/agent.ts')).agentCommand,
  alerts: async () => (await import('./node/alerts.ts')).alertsCommand,
  approvals: async () => (await import('./agent/approvals.ts')).approvalsCommand,
  job: async () => (await import('./market/job.ts')).jobCommand,
  jobs: async () => (await import('./market/jobs.ts')).jobsCommand,
  runtime: async () => (await import('./runtime/runtime.ts')).runtimeCommand,
  earnings: async () => (await import('./market/earnings.ts')).earningsCommand,
  wallet: async () => (await import('./wallet/wallet.ts')).walletCommand,
  mcp: async (roles) => (await import('./mcp/mcp.ts')).mcpCommand(roles),
  demo: async () => (await import('./demo/demo.ts')).demoCommand,
  doctor: async () => (await import('./node/doctor.ts')).doctorCommand,
  logs: async () => (await import('./node/logs.ts')).logsCommand,
  config: async () => (await import('./node/config.ts')).configCommand,
  init: async () => (await import('./node/init.ts')).initCommand,
  unlock: async () => (await import('./node/unlock.ts')).unlockCommand,
  bunker: async () => (await import('./node/bunker.ts')).bunkerCommand,
  backup: async () => (await import('./node/backup.ts')).backupCommand,
  restore: async () => (await import('./node/restore.ts')).restoreCommand,
  daemon: async (roles) => (await import('./node/daemon.ts')).daemonCommand(roles),
  sandbox: async (roles) => (await import('./node/sandbox.ts')).sandboxCommand(roles),
}

/** @param argv without the executable and script. @returns 0 ok, 1 failed, 2 usage, 3 not running, 130 after Ctrl-C. */
export async function runCli(argv: readonly string[], roles: Roles): Promise<number> {
  // Before the parser, so that its own errors keep to the form that was asked for.
  const asJson = argv.includes('--json')
  try {
    const commands = await commandsFor(argv, roles)
    const parsed = parser(argv, commands)
    if (argv.length === 0) {
      process.stderr.write(`${await parsed.getHelp()}\n`)
      return 2
    }
    await parsed.parseAsync()
    return typeof process.exitCode === 'number' ? process.exitCode : 0
  } catch (error) {
    const known = toPylonError(error)
    printError(known, asJson)
    return exitCodeOf(known)
  }
}

/** The one that is named; all where none is (for the help and the near misses). */
async function commandsFor(argv: readonly string[], roles: Roles): Promise<Command[]> {
  const name = argv.find((arg) => arg !== '--json' && arg !== '--sandbox') ?? ''
  const named = Object.hasOwn(COMMANDS, name) ? [COMMANDS[name]] : Object.values(COMMANDS)
  return await Promise.all(named.flatMap((load) => (load === undefined ? [] : [load(roles)])))
}

function parser(argv: readonly string[], commands: readonly Command[]): Argv<GlobalOptions> {
  const base: Argv<GlobalOptions> = yargs(argv.map((arg) => (arg === '-' ? STDIN : arg)))
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
    .wrap(Math.min(100, process.stdout.columns || 100))
    .exitProcess(false)
    .fail((message, error) => {
      if (error !== undefined && error.name !== 'YError') throw error
      throw new PylonError('usage', mistyped(argv, optionsOf(base)) ?? wordsFor(message ?? error?.message ?? ''))
    })
  for (const one of commands) base.command(one)
  keepNoHelp(base)
  return base.completion('completion', 'Print what completes commands: eval "$(pylon completion)" in .bashrc or .zshrc')
}

/** After each command yargs makes the text of its help, which `fail` above never shows: a tenth of the work of a command. */
function keepNoHelp(parsed: Argv<GlobalOptions>): void {
  type Internals = { getUsageInstance(): { cacheHelpMessage(): void } }
  const { getInternalMethods } = parsed as { getInternalMethods?(): Internals }
  if (getInternalMethods !== undefined) getInternalMethods.call(parsed).getUsageInstance().cacheHelpMessage = () => undefined
}

/** The options of the command that was parsed last, as they are typed: yargs has them, though its types do not say so. */
function optionsOf(parsed: Argv<GlobalOptions>): readonly string[] {
  const { key, alias } = (parsed as { getOptions?(): { key?: object; alias?: Record<string, readonly string[]> } }).getOptions?.() ?? {}
  return [...Object.keys(key ?? {}), ...Object.values(alias ?? {}).flat()].filter((name) => name.length === 1 || !/[A-Z]/.test(name))
}

/** The first option among the words that does not exist, with what was probably meant; undefined where all do. */
function mistyped(argv: readonly string[], options: readonly string[]): string | undefined {
  if (options.length === 0) return undefined
  const end = argv.indexOf('--')
  for (const word of end < 0 ? argv : argv.slice(0, end)) {
    const name = /^--(?:no-)?([A-Za-z][A-Za-z0-9-]*)/.exec(word)?.[1] ?? /^-([A-Za-z])$/.exec(word)?.[1]
    const kebab = name?.replaceAll(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`)
    if (name === undefined || kebab === undefined || options.includes(kebab)) continue
    const meant = nearest(
      name,
      options.filter((option) => option.length > 1),
    )
    return `There is no option ${name.length === 1 ? '-' : '--'}${name}${meant === undefined ? '; add --help to see what the command takes.' : `; did you mean --${meant}?`}`
  }
  return undefined
}

/** What the parser says, where it says too little. */
function wordsFor(message: string): string {
  const choice = /^Invalid values:\n\s+Argument: ([^,]+), Given: (.*), Choices: (.*)$/s.exec(message)
  if (choice !== null) {
    const allowed = choice[3]?.replaceAll('"', '') ?? ''
    const meant = nearest((choice[2] ?? '').replaceAll('"', ''), allowed.split(', '))
    return `${choice[1]} is one of ${allowed}; not ${choice[2]}${meant === undefined ? '.' : `: did you mean ${meant}?`}`
  }
  const missing = /^Missing required arguments?: (.+)$/.exec(message)?.[1]
  if (missing !== undefined)
    return `${missing
      .split(', ')
      .map((name) => `--${name}`)
      .join(' and ')} must be given; --help says what for.`
  const extra = /^Unknown arguments?: (.+)$/.exec(message)?.[1]
  if (extra !== undefined) return `${JSON.stringify(extra)} is more than the command takes; add --help to see what it does.`
  const valueless = /^Not enough arguments following: (.+)$/.exec(message)?.[1]
  if (valueless !== undefined) return `${valueless.length === 1 ? '-' : '--'}${valueless} needs a value.`
  if (message.startsWith('Not enough non-option arguments')) return 'An argument is missing; add --help to see what the command takes.'
  if (message.startsWith('Did you mean')) return `There is no such command. ${message} pylon --help lists all.`
  return message
}
