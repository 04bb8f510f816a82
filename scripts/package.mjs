// Builds build/pylon: one executable that holds Node, the bundle and the files it reads. Takes nothing
// from the network: pkg finds the Node that runs this script in its cache, which is kept inside .toolchain.
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ADDON, bundle } from './bundle.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const pinned = readFileSync(join(root, '.nvmrc'), 'utf8').trim()
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const platform = `${process.platform}-${process.arch}`

process.on('uncaughtException', (error) => {
  process.stderr.write(`package: ${error.message.trimEnd()}\n`)
  process.exitCode = 1
})

if (!['linux-x64', 'linux-arm64'].includes(platform)) {
  fail(`The executable is built for linux-x64 and linux-arm64 only, and this is ${platform}. Run from source instead: bin/pylon`)
}
if (process.versions.node !== pinned) {
  fail(`Packaging needs Node ${pinned} exactly (this is ${process.versions.node}). Use: npm run package`)
}

const cacheHome = join(root, '.toolchain', 'pkg')
seedNode(join(cacheHome, '.pkg-cache', 'sea'))

// Real, since pkg names files by their real path and the entry by the given one.
const work = realpathSync(mkdtempSync(join(root, '.toolchain', 'package-')))
const stage = join(work, 'pylon')
try {
  await layOut(stage)
  const output = join(work, 'pylon.out')
  const args = [
    patchedPkg(join(work, 'pkg')),
    '--sea',
    '--targets',
    `node${pinned}-${platform}`,
    '--output',
    output,
    join(stage, 'package.json'),
  ]
  run(process.execPath, args, { cwd: stage, env: { ...process.env, HOME: cacheHome, NODE_OPTIONS: '' } })
  smoke(output)
  mkdirSync(join(root, 'build'), { recursive: true })
  renameSync(output, join(root, 'build/pylon'))
  process.stdout.write('built build/pylon\n')
} finally {
  rmSync(work, { recursive: true, force: true })
}

/** Puts the running Node where pkg looks for a download that it has verified and unpacked (both marked by `.ok`). */
function seedNode(cache) {
  const name = `node-v${pinned}-${platform}`
  const node = join(cache, name, 'bin', 'node')
  if (existsSync(`${node}.ok`) && existsSync(node)) return
  mkdirSync(dirname(node), { recursive: true })
  const fresh = `${node}.${process.pid}`
  rmSync(fresh, { force: true })
  try {
    linkSync(process.execPath, fresh)
  } catch {
    cpSync(process.execPath, fresh)
  }
  chmodSync(fresh, 0o755)
  renameSync(fresh, node)
  for (const path of [join(cache, `${name}.tar.gz`), join(cache, `${name}.tar.gz.ok`), `${node}.ok`]) writeFileSync(path, '')
}

/**
 * A copy of pkg whose bootstrap leaves child_process alone: as published, a packaged program that spawns `node x.js`, or
 * a shell command that begins so, runs itself instead, and that would break every exec backend and brain on Node. And the
 * executable takes nothing from NODE_OPTIONS, since that would run inside the process with the keys.
 * @returns its command-line entry
 */
function patchedPkg(dir) {
  cpSync(join(root, 'node_modules/@yao-pkg/pkg'), dir, { recursive: true })
  const path = join(dir, 'prelude/sea-bootstrap.bundle.js')
  const parts = readFileSync(path, 'utf8').split(/^ *shared\.patchChildProcess\(entrypoint2?\);$/m)
  if (parts.length !== 2) fail('The bootstrap of @yao-pkg/pkg has changed: its patch of child_process was not found.')
  writeFileSync(path, parts.join(''))
  const sea = join(dir, 'lib-es5/sea.js')
  const written = readFileSync(sea, 'utf8').split('main: bootstrapPath,')
  if (written.length !== 2) fail('The way that @yao-pkg/pkg writes sea-config.json has changed.')
  writeFileSync(sea, written.join("main: bootstrapPath, execArgvExtension: 'none',"))
  return join(dir, 'lib-es5/bin.js')
}

/** The tree that goes into the executable: the bundle. */
async function layOut(dir) {
  await bundle(dir)
  const scripts = readdirSync(dir).filter((name) => name.endsWith('.cjs') && name !== 'pylon.cjs')
  const assets = ['migrations/**/*', '*.wasm', 'guest.sh', 'package.json', `node_modules/better-sqlite3/${ADDON}`]
  const config = { name: 'pylon', version, type: 'commonjs', bin: 'pylon.cjs', pkg: { scripts, assets } }
  writeFileSync(join(dir, 'package.json'), JSON.stringify(config))
}

function smoke(executable) {
  const env = { ...process.env, NODE_OPTIONS: '--require /nowhere/at/all.cjs' }
  const { status, stdout, stderr } = spawnSync(executable, ['--version'], { encoding: 'utf8', timeout: 30_000, env })
  if (status !== 0 || !stdout.includes(version)) fail(`The executable that was built does not run: ${stdout}${stderr}`)
}

function run(command, args, options) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', ...options })
  if (status !== 0) fail(`${args[0]} failed: ${error?.message ?? ''}\n${stdout}${stderr}`)
}

/** Thrown to the top, so that the work folder is removed on the way. */
function fail(message) {
  throw new Error(message)
}
