/** The lint bites: the layer table, the third-party doors, the ports of time and chance and the habits, each shown a file that breaks it. */
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'

const root = join(import.meta.dirname, '..', '..')

/** Each layer and the layers that it may import: the table of docs/architecture.md, written a second time. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  base: [],
  store: ['base'],
  sandbox: ['base'],
  inference: ['base'],
  control: ['base'],
  nostr: ['store', 'base'],
  wallet: ['nostr', 'store', 'base'],
  session: ['nostr', 'store', 'base'],
  runtime: ['store', 'base'],
  guest: ['session', 'inference', 'nostr', 'store', 'base'],
  customer: ['session', 'wallet', 'nostr', 'store', 'base'],
  provider: ['runtime', 'inference', 'wallet', 'nostr', 'store', 'base'],
  host: ['customer', 'session', 'inference', 'wallet', 'nostr', 'store', 'base'],
  daemon: [
    ...['control', 'host', 'provider', 'customer', 'runtime', 'guest'],
    ...['session', 'inference', 'wallet', 'nostr', 'sandbox', 'store', 'base'],
  ],
  cli: ['base'],
  mcp: ['base'],
}
const LAYERS = Object.keys(MAY_IMPORT)

/** Each package and the files that may import it. */
const DOORS: Record<string, readonly string[]> = {
  'better-sqlite3': ['src/store/x.ts', 'src/daemon/home/lease.ts', 'src/sandbox/x.ts'],
  'nostr-tools/pure': ['src/nostr/x.ts', 'src/sandbox/x.ts'],
  '@cashu/cashu-ts': ['src/wallet/x.ts', 'src/sandbox/x.ts'],
  'light-bolt11-decoder': ['src/wallet/x.ts', 'src/sandbox/x.ts'],
  '@agentclientprotocol/sdk': ['src/inference/x.ts'],
  '@modelcontextprotocol/sdk/server/mcp.js': ['src/mcp/x.ts'],
  'yargs/helpers': ['src/cli/x.ts'],
  ws: ['src/base/x.ts', 'src/sandbox/x.ts'],
  undici: ['src/base/x.ts'],
  'node:child_process': ['src/base/processes.ts'],
}

interface Case {
  readonly file: string
  readonly code: string
  /** The rule that must report the file, or null where none may. */
  readonly rule: string | null
}

const cases: Case[] = []
let serial = 0
const add = (dir: string, code: string, rule: string | null) => cases.push({ file: `${dir}/case${serial++}.ts`, code, rule })

for (const layer of LAYERS) {
  for (const target of LAYERS.filter((name) => name !== layer)) {
    const rule = MAY_IMPORT[layer]?.includes(target) ? null : 'plugin'
    add(`src/${layer}`, `export { x } from '../${target}/x.ts'`, rule)
    add(`src/${layer}/deep`, `import type { X } from '../../${target}/x.ts'\nexport type Y = X`, rule)
    add(`src/${layer}/very/deep`, `export const x = () => import('../../../${target}/x.ts')`, rule)
  }
  add(`src/${layer}/deep`, `export { x } from '../own.ts'`, null)
  add(`src/${layer}`, `export { main } from '../main.ts'`, 'plugin')
}
add('src/cli', `export { x } from '../control/client.ts'`, null)
add('src/cli', `export { x } from '../control/contract.ts'`, null)
add('src/cli', `export { x } from '../control/server.ts'`, 'plugin')
add('src/cli', `export { x } from '../daemon/launch.ts'`, null)
add('src/cli', `export { x } from '../daemon/daemon.ts'`, 'plugin')
add('src/mcp/tools', `export { x } from '../../control/client.ts'`, null)
add('src/mcp', `export { x } from '../control/server.ts'`, 'plugin')
add('src/guest', `export { x } from '../runtime/contract/status.ts'`, null)
add('src/guest', `export { x } from '../runtime/plan.ts'`, 'plugin')
add('src/provider/jobs', `export { x } from '../../nostr/control/envelope.ts'`, null)
add('src/nostr/nips', `export { x } from '../control/envelope.ts'`, null)
cases.push({ file: 'src/main.ts', code: `export { x } from './wallet/x.ts'`, rule: 'plugin' })

for (const [name, doors] of Object.entries(DOORS)) {
  for (const file of doors)
    cases.push({ file: file.replace('x.ts', `door${serial++}.ts`), code: `export { x } from '${name}'`, rule: null })
  for (const layer of LAYERS.filter((folder) => !doors.some((file) => file.startsWith(`src/${folder}/x`)))) {
    add(`src/${layer}`, `export { x } from '${name}'`, 'plugin')
  }
  add('test/unit', `export { x } from '${name}'`, null)
}

const TIME = [
  'export const x = Date.now()',
  'export const x = new Date()',
  'export const x = performance.now()',
  'setTimeout(() => {}, 1)',
  'export const x = setInterval(() => {}, 1)',
  'globalThis.setTimeout(() => {}, 1)',
  'export const x = AbortSignal.timeout(1)',
  `import { setTimeout as delay } from 'node:timers/promises'\n\nexport const x = delay`,
]
const CHANCE = [
  'export const x = Math.random()',
  'export const x = crypto.randomUUID()',
  'export const x = crypto.getRandomValues(new Uint8Array(8))',
  `import { hash, randomBytes } from 'node:crypto'\n\nexport const x = [hash, randomBytes]`,
  `import { randomUUID } from 'node:crypto'\n\nexport const x = randomUUID`,
  `import { randomInt } from 'crypto'\n\nexport const x = randomInt`,
]
for (const code of TIME) {
  for (const dir of ['src/base', 'src/store', 'src/wallet/mint', 'src/daemon', 'src/sandbox/relay']) add(dir, code, 'plugin')
  for (const dir of ['src/cli/node', 'src/daemon/launch', 'test/unit']) add(dir, code, null)
}
for (const code of CHANCE) {
  for (const dir of ['src/base', 'src/store', 'src/wallet/mint', 'src/daemon/launch', 'src/sandbox/mint']) add(dir, code, 'plugin')
  for (const dir of ['src/cli/node', 'test/unit']) add(dir, code, null)
}
for (const layer of ['store', 'nostr', 'wallet', 'provider', 'customer', 'host', 'control', 'daemon'])
  add(`src/${layer}`, `import { systemClock } from '../base/clock.ts'\n\nexport const x = systemClock`, 'plugin')
add(
  'src/wallet/mint',
  `import { type Random, systemRandom } from '../../base/random.ts'\n\nexport const x: Random = systemRandom`,
  'plugin',
)
add('src/cli/node', `import { systemClock } from '../../base/clock.ts'\n\nexport const x = systemClock`, null)
add(
  'src/store',
  `import { setImmediate } from 'node:timers/promises'\nimport { hash } from 'node:crypto'\n\nexport const x = [setImmediate, hash]`,
  null,
)
add('src/store', 'export const x = (ms: number) => [new Date(ms), Date.parse("2026")]', null)

add('test/unit', `import { vi } from 'vitest'\n\nvi.mock('../../src/store/store.ts')`, 'plugin')
add('src/base', `export const port = JSON.parse('1') as unknown as string`, 'plugin')
add('src/base', `export const stop = () => process.exit(1)`, 'lint/nursery/noProcessExit')
add('src/base', `export const parse = (text: any) => text`, 'lint/suspicious/noExplicitAny')
add('src/base', `async function save() {}\n\nexport function run() {\n  save()\n}`, 'lint/nursery/noFloatingPromises')
add(
  'src/base',
  `export const isOdd = (n: number) => {\n  if (Promise.resolve(n)) return true\n  return false\n}`,
  'lint/nursery/noMisusedPromises',
)
add(
  'src/base',
  `export function name(state: 'on' | 'off') {\n  switch (state) {\n    case 'on':\n      return 1\n  }\n  return 0\n}`,
  'lint/nursery/useExhaustiveSwitchCases',
)
add('src/base', `export { y } from './ring.ts'\nexport const x = 1`, 'lint/suspicious/noImportCycles')

let dir: string
let reported: Map<string, Set<string>>

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'pylon-lint-'))
  const config = JSON.parse(await readFile(join(root, 'biome.json'), 'utf8'))
  await writeFile(join(dir, 'biome.json'), JSON.stringify({ ...config, $schema: undefined, vcs: { enabled: false } }))
  await cp(join(root, 'scripts/lint'), join(dir, 'scripts/lint'), { recursive: true })
  const ring = cases.find(({ rule }) => rule === 'lint/suspicious/noImportCycles')
  await mkdir(join(dir, 'src/base'), { recursive: true })
  await writeFile(join(dir, 'src/base/ring.ts'), `export { x } from './${ring?.file.split('/').at(-1)}'\nexport const y = 1\n`)
  for (const { file, code } of cases) {
    await mkdir(dirname(join(dir, file)), { recursive: true })
    await writeFile(join(dir, file), `${code}\n`)
  }
  reported = await lint()
}, 60_000)

afterAll(() => rm(dir, { recursive: true, force: true }))

/** Runs the linter over the folder: file to the rules that reported it. */
async function lint(): Promise<Map<string, Set<string>>> {
  const biome = join(root, 'node_modules/@biomejs/biome/bin/biome')
  const args = [biome, 'lint', '--reporter=json', '--max-diagnostics=none', '.']
  const json = await new Promise<string>((resolve) => {
    execFile(process.execPath, args, { cwd: dir, maxBuffer: 256 * 1024 * 1024, timeout: 50_000 }, (_error, stdout) => resolve(stdout))
  })
  const report: { diagnostics: { category: string; location: { path: string | { file: string } } }[] } = JSON.parse(json)
  const found = new Map<string, Set<string>>()
  for (const { category, location } of report.diagnostics) {
    const path = typeof location.path === 'string' ? location.path : location.path.file
    found.set(path, (found.get(path) ?? new Set()).add(category))
  }
  return found
}

test('every forbidden import and habit is reported', () => {
  const missed = cases.filter(({ file, rule }) => rule !== null && !reported.get(file)?.has(rule))
  expect(missed).toEqual([])
})

test('nothing that the tables allow is reported', () => {
  const wrong = cases.filter(({ file, rule }) => rule === null && reported.get(file)?.has('plugin'))
  expect(wrong).toEqual([])
})
