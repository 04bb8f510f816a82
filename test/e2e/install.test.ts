/** install.sh and the toolchain bootstrap: installs over what runs, takes itself away again, and refuses in clear words. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'

const root = join(import.meta.dirname, '..', '..')
const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))

let dir: string
let child: ChildProcess | undefined

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'pylon-install-'))
})

afterEach(async () => {
  child?.kill('SIGKILL')
  child = undefined
  await rm(dir, { recursive: true, force: true })
})

interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  const options = { cwd: dir, timeout: 110_000, env: { PATH: process.env['PATH'], HOME: dir, PYLON_HOME: join(dir, 'home'), ...env } }
  return new Promise((resolve) => {
    const started = execFile(command, args, options, (_error, stdout, stderr) => {
      resolve({ code: started.exitCode ?? -1, stdout, stderr })
    })
    started.stdin?.end()
  })
}

const install = (args: readonly string[], env?: NodeJS.ProcessEnv) => run(join(root, 'install.sh'), args, env)

/** A folder with the system's tools for a PATH, less the names to leave out, plus stand-ins that print a fixed text. */
async function toolPath(without: readonly string[], standIns: Record<string, string> = {}): Promise<string> {
  const bin = join(dir, 'tools')
  await mkdir(bin)
  const names = [
    'sh',
    'dirname',
    'tr',
    'cat',
    'sed',
    'grep',
    'ls',
    'df',
    'awk',
    'mkdir',
    'rm',
    'mv',
    'date',
    'id',
    'uname',
    'tail',
    'head',
    'sleep',
  ]
  const taken = [...without, ...Object.keys(standIns)]
  for (const name of names.filter((tool) => !taken.includes(tool))) {
    const { stdout } = await run('/bin/sh', ['-c', `command -v ${name}`])
    await symlink(stdout.trim(), join(bin, name))
  }
  for (const [name, text] of Object.entries(standIns)) {
    await writeFile(join(bin, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  }
  return bin
}

/** A checkout in which nothing was ever installed. */
async function freshCheckout(): Promise<string> {
  const checkout = join(dir, 'checkout')
  await mkdir(join(checkout, 'scripts'), { recursive: true })
  for (const file of ['.nvmrc', 'install.sh', 'package.json', 'package-lock.json', 'scripts/toolchain.sh', 'scripts/is-installed.mjs']) {
    await copyFile(join(root, file), join(checkout, file))
  }
  return checkout
}

test('help and usage errors', async () => {
  const help = await install(['--help'])
  expect(help).toMatchObject({ code: 0, stderr: '' })
  expect(help.stdout).toContain('--prefix DIR')
  const unknown = await install(['--fast'])
  expect(unknown.code).toBe(2)
  expect(unknown.stderr).toContain('unknown option: --fast')
  expect((await install(['--prefix'])).code).toBe(2)
})

// It packages: more than the lane's time where other things run too.
test.runIf(process.platform === 'linux')(
  'installs over a running executable, and uninstalls',
  async () => {
    const target = join(dir, 'opt/bin/pylon')
    await mkdir(join(dir, 'opt/bin'), { recursive: true })
    const { stdout: sleep } = await run('/bin/sh', ['-c', 'command -v sleep'])
    await copyFile(sleep.trim(), target)
    child = spawn(target, ['300'])
    await new Promise((resolve) => child?.once('spawn', resolve))

    const outcome = await install(['--prefix', 'opt'])
    expect(outcome).toMatchObject({ code: 0, stderr: '' })
    expect(outcome.stdout).toContain(`pylon ${version} is installed`)
    expect(outcome.stdout).toContain(`${join(dir, 'opt/bin')} is not on your PATH`)
    expect(await readdir(join(dir, 'opt/bin'))).toEqual(['pylon'])
    expect(child.exitCode).toBeNull()
    expect((await run(target, ['--version'])).stdout.trim()).toBe(version)

    await mkdir(join(dir, 'home'))
    const removed = await install(['--prefix', 'opt', '--uninstall'])
    expect(removed.code).toBe(0)
    expect(removed.stdout).toContain(`removed ${target}`)
    expect(removed.stdout).toContain(`The home stays: ${join(dir, 'home')}`)
    expect(removed.stdout).toMatch(/Its wallet holds \d+ sats|could not be read/)
    expect(await readdir(dir)).toContain('home')
    expect(await readdir(join(dir, 'opt/bin'))).toEqual([])

    const again = await install(['--prefix', 'opt', '--uninstall'])
    expect(again.code).toBe(0)
    expect(again.stdout).toContain('is not installed')
  },
  300_000,
)

test('uninstall says what money the home holds, and stops the node first', async () => {
  const target = join(dir, 'bin/pylon')
  await mkdir(join(dir, 'bin'))
  await mkdir(join(dir, 'home'))
  const answers = [
    `"wallet balance --json") echo '{"network":"sandbox","balance_sats":1234,"mints":[{"url":"http://m","balance_sats":7}]}' ;;`,
    `"agent list --json") echo '{"network":"sandbox","agents":[{"name":"a","balance_sats":20},{"name":"b","balance_sats":22}]}' ;;`,
    `"earnings --json") echo '{"network":"sandbox","total_msats":56000}' ;;`,
    `stop) echo stopped >>"$PYLON_HOME/calls" ;;`,
    `status) [ ! -e "$PYLON_HOME/calls" ] ;;`,
  ]
  await writeFile(target, `#!/bin/sh\ncase "$*" in\n${answers.join('\n')}\nesac\n`, { mode: 0o755 })
  const { code, stdout } = await install(['--prefix', dir, '--uninstall'])
  expect(code).toBe(0)
  expect(stdout).toContain('Its wallet holds 1234 sats of play money.')
  expect(stdout).toContain('Its agents hold 42 sats of play money.')
  expect(stdout).toContain('It has earned 56 sats of play money so far.')
  expect(await readFile(join(dir, 'home/calls'), 'utf8')).toBe('stopped\n')
  expect(await readdir(join(dir, 'bin'))).toEqual([])
})

test.runIf(process.platform === 'linux')('refuses a target that it cannot write', async () => {
  await writeFile(join(dir, 'file'), '')
  const { code, stderr } = await install(['--prefix', join(dir, 'file')])
  expect(code).toBe(1)
  expect(stderr).toContain(`cannot create ${join(dir, 'file/bin')}`)
  await mkdir(join(dir, 'opt/bin/pylon'), { recursive: true })
  expect((await install(['--prefix', join(dir, 'opt')])).stderr).toContain('is a folder')
})

test('refuses another platform', async () => {
  const PATH = await toolPath([], { uname: '[ "$1" = -m ] && echo riscv64 || echo Linux' })
  expect(await install(['--prefix', dir], { PATH })).toMatchObject({ code: 1, stderr: expect.stringContaining('riscv64 is not supported') })
  const outcome = await run('/bin/sh', [join(root, 'scripts/toolchain.sh'), 'true'], { PATH })
  expect(outcome).toMatchObject({ code: 1, stderr: expect.stringContaining('riscv64 is not supported') })
})

test.runIf(process.platform === 'linux')('says that npm is missing and what to install', async () => {
  const checkout = await freshCheckout()
  const PATH = await toolPath([], { 'apt-get': '' })
  const { code, stderr, stdout } = await run(join(checkout, 'install.sh'), ['--prefix', join(dir, 'opt')], { PATH })
  expect(code).toBe(1)
  expect(stderr).toContain('npm was not found')
  expect(stderr).toContain('sudo apt-get install npm')
  expect(stdout).not.toContain('is installed')
  expect(await readdir(join(dir, 'opt/bin'))).toEqual([])
})

test.runIf(process.platform === 'linux')('says that the disk is full', async () => {
  const checkout = await freshCheckout()
  const PATH = await toolPath([], { df: 'echo head; echo "/dev/x 100 1 20480 1% /"', npm: 'exit 1' })
  const outcome = await run(join(checkout, 'install.sh'), ['--prefix', join(dir, 'opt')], { PATH })
  expect(outcome).toMatchObject({ code: 1, stderr: expect.stringContaining('not enough disk space: 20 MB free') })
})

test.runIf(process.platform === 'linux')('says that the registry cannot be reached, and leaves no lock', async () => {
  const checkout = await freshCheckout()
  const PATH = await toolPath([], { npm: 'echo "npm error code ENOTFOUND" >&2; exit 1' })
  const { code, stderr } = await run('/bin/sh', [join(checkout, 'scripts/toolchain.sh'), 'true'], { PATH })
  expect(code).toBe(1)
  expect(stderr).toContain('the npm registry could not be reached')
  expect(await readdir(join(checkout, '.toolchain'))).toEqual(['setup.log'])
})

test('a checkout that is set up runs the command at once and in silence, whatever its exit code', async () => {
  const outcome = await run('/bin/sh', [join(root, 'scripts/toolchain.sh'), 'node', '-p', 'process.exitCode = 7; process.version'])
  const pinned = (await readFile(join(root, '.nvmrc'), 'utf8')).trim()
  expect(outcome).toMatchObject({ code: 7, stderr: '' })
  if (process.platform === 'linux') expect(outcome.stdout.trim()).toBe(`v${pinned}`)
})

test('bin/pylon runs the checkout, also through a link', async () => {
  const link = join(dir, 'pylon')
  await symlink(join(root, 'bin/pylon'), link)
  expect(await run(link, ['--version'])).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: '' })
})
