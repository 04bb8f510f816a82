/** `pylon mcp install`: the entry of this node in the configuration of an MCP client. */
import { chmodSync, copyFileSync, mkdirSync, realpathSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, resolve } from 'node:path'
import { fileError, PylonError } from '../../base/errors.ts'
import { readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import { selfCommand } from '../../daemon/launch/self-command.ts'
import { defineCommand } from '../command.ts'
import { flagOption, textOption } from '../options.ts'
import { print, printFacts } from '../terminal/output.ts'
import { one, pathOf } from '../terminal/values.ts'
import { CLIENTS, type ClientName, type Entry, entryText, fileOf, withEntry } from './client-entry.ts'

const WORDS: Readonly<Record<ClientName, string>> = {
  claude: 'Restart Claude Desktop',
  goose: 'Start a new session of Goose',
  vscode: 'Open the chat of VS Code in agent mode',
}

export const installCommand = defineCommand({
  command: 'install',
  describe: "Put this node into an MCP client's configuration, or print what to paste",
  builder: (yargs) =>
    yargs
      .option('client', { choices: CLIENTS, demandOption: true, describe: 'Claude Desktop, Goose or VS Code' })
      .option('agent', textOption('Act as this agent (as you by default)'))
      .option('name', { type: 'string', nargs: 1, default: 'pylon', describe: 'What the client calls it' })
      .option('file', textOption("Another file, e.g. .vscode/mcp.json (the user's own by default)"))
      .option('print', flagOption('Only print the entry')),
  handler: (args) => {
    const name = one(args.name, '--name')
    if (!/^[a-zA-Z0-9_-]{1,64}$/.test(name)) throw new PylonError('usage', '--name takes 1 to 64 letters, digits, - and _.')
    const entry = entryOf(name, args.sandbox, args.agent === undefined ? undefined : one(args.agent, '--agent'))
    if (args.print) return print(entryText(args.client, entry).trimEnd())
    const surroundings = { platform: process.platform, home: process.env['HOME'] || homedir(), configHome: process.env['XDG_CONFIG_HOME'] }
    const file = args.file === undefined ? fileOf(args.client, surroundings) : resolve(pathOf(args.file, '--file'))
    const backup = install(args.client, file, entry)
    const before = backup === undefined ? '' : ` As it was before: ${backup}`
    const words = `${file} has ${name} now.${before}\n${WORDS[args.client]}, then ask: what is the state of my node?`
    printFacts(args, { client: args.client, name, file, backup: backup ?? null }, words)
  },
})

/** By absolute paths: clients start it from anywhere, with little in its environment. */
function entryOf(name: string, isSandbox: boolean, agent: string | undefined): Entry {
  const flags = [...(agent === undefined ? [] : ['--agent', agent]), ...(isSandbox ? ['--sandbox'] : [])]
  const { command, args } = selfCommand(['mcp', ...flags])
  const home = process.env['PYLON_HOME']
  return { name, command, args, env: home === undefined || home === '' ? {} : { PYLON_HOME: resolve(home) } }
}

/** @returns where the file is as it was before, if there was one @throws config_invalid, home_unusable */
function install(client: ClientName, path: string, entry: Entry): string | undefined {
  try {
    const before = readFileIfAny(path)
    const after = withEntry(client, before, entry)
    mkdirSync(dirname(path), { recursive: true })
    if (before === undefined) {
      writeFileAtomic(path, after)
      return undefined
    }
    // A link stays one: what it leads to is replaced.
    const target = realpathSync(path)
    const backup = `${target}.before-pylon`
    if (after !== before) {
      copyFileSync(target, backup)
      const { mode } = statSync(target)
      writeFileAtomic(target, after)
      chmodSync(target, mode & 0o777)
    }
    return after === before ? undefined : backup
  } catch (error) {
    if (error instanceof PylonError && error.code === 'config_invalid') throw new PylonError('config_invalid', `${path}: ${error.message}`)
    throw fileError(error, path) ?? error
  }
}
