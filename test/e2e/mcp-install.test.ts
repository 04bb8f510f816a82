/** Entries in the files of MCP clients: what was there stays, and what can't be read is left alone. */
import { chmodSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, test } from 'vitest'
import { entryText, fileOf, withEntry } from '../../src/cli/mcp/client-entry.ts'
import { Rig } from '../support/rig.ts'

const entry = { name: 'pylon', command: '/opt/py "lon"', args: ['mcp', '--agent', 'ada'], env: { PYLON_HOME: '/h' } }

it.each([
  ['claude', 'linux', '/h/.config/Claude/claude_desktop_config.json'],
  ['claude', 'darwin', '/h/Library/Application Support/Claude/claude_desktop_config.json'],
  ['vscode', 'linux', '/h/.config/Code/User/mcp.json'],
  ['vscode', 'darwin', '/h/Library/Application Support/Code/User/mcp.json'],
  ['goose', 'linux', '/h/.config/goose/config.yaml'],
  ['goose', 'darwin', '/h/.config/goose/config.yaml'],
] as const)('%s on %s keeps it in %s', (client, platform, path) => {
  expect(fileOf(client, { platform, home: '/h' })).toBe(path)
})

it('adds to JSON and replaces its own entry', () => {
  const before = JSON.stringify({ theme: 'dark', mcpServers: { other: { command: 'x' }, pylon: { command: 'old' } } })
  const after = JSON.parse(withEntry('claude', before, entry)) as unknown
  expect(after).toEqual({
    theme: 'dark',
    mcpServers: { other: { command: 'x' }, pylon: { command: entry.command, args: entry.args, env: entry.env } },
  })
  expect(JSON.parse(withEntry('vscode', '{"inputs":[]}', entry))).toMatchObject({ inputs: [], servers: { pylon: { type: 'stdio' } } })
  expect(JSON.parse(withEntry('claude', undefined, entry))).toMatchObject({ mcpServers: { pylon: { args: entry.args } } })
})

const BLOCK = entryText('goose', entry).replace('extensions:\n', '').trimEnd()

it.each([
  ['no extensions', 'GOOSE_MODE: auto\n', `GOOSE_MODE: auto\nextensions:\n${BLOCK}\n`],
  ['none yet', 'extensions: {}\nlast: 1\n', `extensions:\n${BLOCK}\nlast: 1\n`],
  [
    'others',
    '# mine\nextensions:\n  dev:\n    enabled: true # yes\n\nlast: 1\n',
    `# mine\nextensions:\n${BLOCK}\n  dev:\n    enabled: true # yes\n\nlast: 1\n`,
  ],
  [
    'an old one',
    'extensions:\n  pylon:\n    cmd: old\n    args:\n      - a\n  dev:\n    enabled: true\n',
    `extensions:\n${BLOCK}\n  dev:\n    enabled: true\n`,
  ],
])('adds to YAML with %s, and once', (_what, before, after) => {
  expect(withEntry('goose', before, entry)).toBe(after)
  expect(withEntry('goose', withEntry('goose', before, entry), entry)).toBe(withEntry('goose', before, entry))
})

it.each([
  ['claude', '{ // mine\n "mcpServers": {} }'],
  ['claude', '[]'],
  ['claude', '{"mcpServers": []}'],
  ['vscode', '{"servers": "none"}'],
  ['goose', 'extensions: {dev: {enabled: true}}\n'],
  ['goose', 'extensions:\n    dev:\n        enabled: true\n'],
  ['goose', 'extensions:\n\tdev: 1\n'],
  ['goose', 'extensions: &all\n  dev: 1\n'],
  ['goose', 'a: 1\n---\nextensions:\n  dev: 1\n'],
] as const)('leaves alone what it cannot read: %s %j', (client, before) => {
  expect(() => withEntry(client, before, entry)).toThrow('Nothing was changed')
})

test('writes the file with a copy of what was there, keeps links and modes, and touches nothing it cannot read', async () => {
  await using rig = new Rig()
  const dir = join(rig.dir, '.config', 'Claude')
  const file = join(dir, 'claude_desktop_config.json')
  const install = (...args: string[]) => rig.run(['mcp', 'install', '--client', 'claude', ...args])
  expect((await install('--print')).json()).toMatchObject({ mcpServers: { pylon: { env: { PYLON_HOME: rig.home.dir } } } })
  const made = await install('--json')
  expect(made.json()).toEqual({ client: 'claude', name: 'pylon', file, backup: null })
  const written = JSON.parse(readFileSync(file, 'utf8')) as { mcpServers: { pylon: { command: string; args: string[] } } }
  expect(written.mcpServers.pylon.args.at(-1)).toBe('mcp')
  expect(written.mcpServers.pylon.command).toMatch(/^\//)
  expect((await install('--json', '--name', 'ada', '--agent', 'ada')).json()).toMatchObject({ backup: `${file}.before-pylon` })
  expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({
    mcpServers: { ...written.mcpServers, ada: { args: expect.arrayContaining(['--agent', 'ada']) } },
  })
  expect(JSON.parse(readFileSync(`${file}.before-pylon`, 'utf8'))).toEqual(written)

  const kept = join(rig.dir, 'dotfiles.json')
  writeFileSync(kept, '{"a":1}')
  chmodSync(kept, 0o644)
  mkdirSync(join(rig.dir, '.vscode'))
  symlinkSync(kept, join(rig.dir, '.vscode', 'mcp.json'))
  await rig.ok('mcp', 'install', '--client', 'vscode', '--file', '.vscode/mcp.json')
  expect(JSON.parse(readFileSync(kept, 'utf8'))).toMatchObject({ a: 1, servers: { pylon: { type: 'stdio' } } })
  expect(statSync(kept).mode & 0o777).toBe(0o644)

  writeFileSync(file, '{ broken')
  const refused = await install()
  expect(refused).toMatchObject({ code: 1, stdout: '' })
  expect(refused.stderr).toContain(`${file}: The file can't be added to by itself`)
  expect(readFileSync(file, 'utf8')).toBe('{ broken')
  expect((await install('--name', 'a b')).code).toBe(2)
})
