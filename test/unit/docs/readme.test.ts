/** The documents keep up with the program: every command and flag of the README exists, every command is in it, every link leads somewhere. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test, vi } from 'vitest'
import { runCli } from '../../../src/cli/cli.ts'

const root = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))))
const readme = readFileSync(join(root, 'README.md'), 'utf8')
const unused = () => Promise.reject(new Error('No command here starts a process.'))
const roles = { daemon: unused, sandbox: unused, mcp: unused }

/** Flags that every command has, and those of install.sh. */
const COMMON = ['--json', '--sandbox', '--help', '--demo', '--version']

async function help(...command: string[]): Promise<string> {
  let out = ''
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    out += String(text)
    return true
  })
  // yargs prints help by console.log, which vitest takes for itself.
  const log = vi.spyOn(console, 'log').mockImplementation((text) => {
    out += `${String(text)}\n`
  })
  try {
    await runCli([...command, '--help'], roles)
  } finally {
    write.mockRestore()
    log.mockRestore()
    process.exitCode = undefined
  }
  return out
}

/** `pylon a`, `pylon a b`: what a help text lists. */
function commandsIn(text: string): string[] {
  const lines = text.slice(text.indexOf('Commands:')).split('\n\n')[0] ?? ''
  return [...lines.matchAll(/^ {2}pylon ((?:[a-z]+ ?)+)/gm)].map((match) => (match[1] ?? '').trim())
}

async function allCommands(): Promise<string[]> {
  const found: string[] = []
  const pending = commandsIn(await help())
  for (let command = pending.shift(); command !== undefined; command = pending.shift()) {
    const inner = await help(...command.split(' '))
    if (inner.includes('Commands:')) pending.push(...commandsIn(inner).filter((one) => one !== command))
    else found.push(command)
  }
  return found
}

test('the README names every command', async () => {
  const commands = await allCommands()
  expect(commands.length).toBeGreaterThan(40)
  const missing = commands.filter((command) => {
    const words = command.split(' ')
    const last = words.at(-1) ?? ''
    // In a table row of its group a command may stand alone: `list`, `show ID`.
    return !readme.includes(`pylon ${command}`) && !new RegExp(`pylon ${words[0]}[^\n]*\\b${last}\\b`).test(readme)
  })
  expect(missing).toEqual([])
})

test('every flag in the command tables exists', async () => {
  const rows = readme.split('\n').filter((line) => line.startsWith('| `pylon '))
  expect(rows.length).toBeGreaterThan(20)
  for (const row of rows) {
    const [, code = ''] = /^\| `([^`]+)`/.exec(row) ?? []
    const command = (/^pylon ((?:[a-z]+ ?)+)/.exec(code)?.[1] ?? '').trim().split(' ')
    const text = await help(...command)
    // It serves, and has a command below it.
    if (command.join(' ') !== 'mcp') expect(text, code).not.toContain('Commands:')
    for (const [flag] of code.matchAll(/--[a-z-]+/g)) if (!COMMON.includes(flag)) expect(text, `${code}: ${flag}`).toContain(flag)
  }
})

test('every link between the documents leads to a file and heading that are there', () => {
  const files = ['README.md', 'CHANGELOG.md', ...list('docs'), ...list('docs/adr')]
  for (const file of files) {
    const text = readFileSync(join(root, file), 'utf8')
    for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue
      const [path = '', heading] = target.split('#')
      const full = path === '' ? join(root, file) : join(root, dirname(file), path)
      expect(existsSync(full), `${file}: ${target}`).toBe(true)
      if (heading !== undefined) expect(headings(readFileSync(full, 'utf8')), `${file}: ${target}`).toContain(heading)
    }
  }
})

function list(dir: string): string[] {
  return readdirSync(join(root, dir))
    .filter((name) => name.endsWith('.md'))
    .map((name) => join(dir, name))
}

function headings(text: string): string[] {
  return [...text.matchAll(/^#+ (.+)$/gm)].map((match) =>
    (match[1] ?? '')
      .toLowerCase()
      .replace(/[^a-z0-9 _-]/g, '')
      .replaceAll(' ', '-'),
  )
}
