/** Where MCP clients keep their servers and what an entry looks like there. Pure: text in, text out; what is there stays. */
import { join } from 'node:path'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'

export const CLIENTS = ['claude', 'goose', 'vscode'] as const
export type ClientName = (typeof CLIENTS)[number]

export interface Entry {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
}

export interface Surroundings {
  readonly platform: NodeJS.Platform
  readonly home: string
  /** `XDG_CONFIG_HOME`, where it is set. */
  readonly configHome?: string | undefined
}

/** The user's own file of a client, as its documents name it. */
export function fileOf(client: ClientName, { platform, home, configHome }: Surroundings): string {
  const dotConfig = configHome || join(home, '.config')
  const settings = platform === 'darwin' ? join(home, 'Library', 'Application Support') : dotConfig
  switch (client) {
    case 'claude':
      return join(settings, 'Claude', 'claude_desktop_config.json')
    case 'vscode':
      return join(settings, 'Code', 'User', 'mcp.json')
    case 'goose':
      return join(platform === 'darwin' ? join(home, '.config') : dotConfig, 'goose', 'config.yaml')
  }
}

/** The entry alone, as it would be pasted. */
export function entryText(client: ClientName, entry: Entry): string {
  return client === 'goose'
    ? `extensions:\n${gooseBlock(entry)}`
    : `${JSON.stringify({ [listOf(client)]: { [entry.name]: jsonEntry(client, entry) } }, null, 2)}\n`
}

/** The file with the entry in it, in place of one of the same name. @param text undefined: there is no file @throws config_invalid */
export function withEntry(client: ClientName, text: string | undefined, entry: Entry): string {
  if (text === undefined || text.trim() === '') return entryText(client, entry)
  return client === 'goose' ? withGoose(text, entry) : withJson(client, text, entry)
}

const listOf = (client: 'claude' | 'vscode'): string => (client === 'claude' ? 'mcpServers' : 'servers')

function jsonEntry(client: 'claude' | 'vscode', { command, args, env }: Entry): Record<string, unknown> {
  return {
    ...(client === 'vscode' ? { type: 'stdio' } : {}),
    command,
    args,
    ...(Object.keys(env).length === 0 ? {} : { env }),
  }
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)

function withJson(client: 'claude' | 'vscode', text: string, entry: Entry): string {
  const whole = parseJson(text.replace(/^\ufeff/, ''))
  if (!isObject(whole)) throw unreadable('it is no JSON object (comments and trailing commas are not read here)')
  const list = whole[listOf(client)] ?? {}
  if (!isObject(list)) throw unreadable(`${listOf(client)} is no object`)
  return `${JSON.stringify({ ...whole, [listOf(client)]: { ...list, [entry.name]: jsonEntry(client, entry) } }, null, 2)}\n`
}

function gooseBlock({ name, command, args, env }: Entry): string {
  const text = JSON.stringify
  // JSON strings and lists are YAML too.
  return [
    `  ${name}:`,
    '    name: Pylon',
    '    description: The tools of a Pylon node',
    '    type: stdio',
    '    enabled: true',
    `    cmd: ${text(command)}`,
    `    args: ${text(args)}`,
    `    envs: ${text(env)}`,
    '    timeout: 300',
    '',
  ].join('\n')
}

/** By lines: the extensions are a block of their own at the left edge, each indented by two. What is written another way is left alone. */
function withGoose(text: string, entry: Entry): string {
  const lines = text.replace(/\r\n/g, '\n').split('\n')
  if (lines.some((line) => /^\s*\t/.test(line) || /^(?:---|\.\.\.)/.test(line))) throw unreadable('it has tabs or several documents')
  const starts = lines.flatMap((line, i) => (/^(?:extensions|"extensions"|'extensions')\s*:/.test(line) ? [i] : []))
  const [start] = starts
  if (start === undefined) return `${text.replace(/\n*$/, '\n')}extensions:\n${gooseBlock(entry)}`
  if (starts.length > 1 || !/^extensions:\s*(?:\{\s*\}|#.*)?\s*$/.test(lines[start] ?? ''))
    throw unreadable('its extensions are not written as a block')
  const end = lines.findIndex((line, i) => i > start && /^[^\s#]/.test(line))
  const block = lines.slice(start + 1, end < 0 ? lines.length : end)
  const kept = withoutEntry(block, entry.name)
  if (kept.some((line) => /^ [^ ]/.test(line) || (/^ {3,}[^ #]/.test(line) && !kept.some((other) => /^ {2}[^ #]/.test(other)))))
    throw unreadable('its extensions are not indented by two')
  const after = end < 0 ? [] : lines.slice(end)
  return [...lines.slice(0, start), 'extensions:', ...gooseBlock(entry).trimEnd().split('\n'), ...kept, ...after].join('\n')
}

function withoutEntry(block: readonly string[], name: string): string[] {
  let isOurs = false
  return block.filter((line) => {
    if (/^ {2}[^ #]/.test(line)) isOurs = new RegExp(`^ {2}["']?${name}["']?\\s*:`).test(line)
    return !isOurs || line.trim() === ''
  })
}

function unreadable(why: string): PylonError {
  return new PylonError('config_invalid', `The file can't be added to by itself: ${why}. Nothing was changed; paste what --print shows.`)
}
