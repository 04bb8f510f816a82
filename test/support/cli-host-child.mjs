// Runs commands of the built program one after the other, each with the arguments, environment, folder and exit code that it would
// have as a process of its own: what a start costs is paid once. Standard input is empty.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { Writable } from 'node:stream'

const [, , dist] = process.argv
const program = join(dist, 'pylon.cjs')
const own = { env: { ...process.env }, cwd: process.cwd() }
const [, cli] = /require\("\.\/(cli-\w+\.cjs)"\)/.exec(readFileSync(program, 'utf8'))
const { runCli } = createRequire(program)(`./${cli}`)
const notHere = () => Promise.reject(new Error('this role needs a process of its own'))
const roles = { daemon: notHere, sandbox: notHere, mcp: notHere }

process.umask(0o077)
process.once('disconnect', () => process.kill(process.pid))
process.on('message', (order) => void run(order).then((answer) => process.send(answer)))

async function run({ args, env, cwd }) {
  const output = { stdout: [], stderr: [] }
  for (const name of ['stdout', 'stderr']) Object.defineProperty(process, name, { value: capture(output[name]), configurable: true })
  setEnv(env)
  process.chdir(cwd)
  process.argv = [process.execPath, program, ...args]
  process.exitCode = undefined
  const code = await runCli(args, roles)
  process.exitCode = undefined
  // The folder goes with its test.
  process.chdir(own.cwd)
  setEnv(own.env)
  return { code, stdout: Buffer.concat(output.stdout), stderr: Buffer.concat(output.stderr) }
}

/** Of one command: what it writes when it has ended is not heard any more. */
function capture(chunks) {
  return new Writable({
    write(chunk, _encoding, done) {
      chunks.push(chunk)
      done()
    },
  })
}

function setEnv(env) {
  for (const name of Object.keys(process.env)) delete process.env[name]
  Object.assign(process.env, env)
}
