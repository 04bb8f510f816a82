// Agents in runtimes, talked to end to end encrypted, beside `ssh host agent` with the same agent in the same run; writes its section of
// docs/benchmarks.md. PYLON_BIN=build/pylon SSHD=/usr/sbin/sshd node bench/agents.mjs [--quick] [--provider local|incus]...
import { execFile, execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { cpus, loadavg, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { ensureIncus, startIncusDaemon } from '../test/support/incus-daemon.ts'
import { shellAgent } from '../test/support/shell-agents.ts'
import { sectionOf, withSection } from './sections.mjs'
import { noSshd, startSshd } from './ssh.mjs'

const TITLE = '## Agents'
const MLS_TITLE = '## Encryption'
const here = dirname(fileURLToPath(import.meta.url))
const root = dirname(here)
const quick = process.argv.includes('--quick')
const named = process.argv.filter((_, i, argv) => argv[i - 1] === '--provider')
const providers = named.length > 0 ? named : ['local', 'incus']
const bin = process.env.PYLON_BIN ?? join(root, 'build', 'pylon')
const command = bin.endsWith('.cjs') ? [process.execPath, bin] : [bin]
const home = mkdtempSync(join(tmpdir(), 'pyb-'))
const env = { ...process.env, PYLON_HOME: home, HOME: home }
const RUNS = quick ? 3 : 10
const MESSAGES = 4
const AGENT = shellAgent('pi')

const pylon = async (...args) =>
  (await promisify(execFile)(command[0], [...command.slice(1), ...args], { env, encoding: 'utf8', timeout: 300_000 })).stdout
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]

/** Over the control socket, as any program of the owner would. */
function call(method, path, body) {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': 'application/json', 'idempotency-key': randomUUID() }
    const asked = request({ socketPath: join(home, 'sandbox', 'control.sock'), method, path, headers }, (answer) => {
      let text = ''
      answer.setEncoding('utf8')
      answer.on('data', (chunk) => {
        text += chunk
      })
      answer.on('end', () =>
        answer.statusCode < 300 ? resolve(JSON.parse(text)) : reject(new Error(`${method} ${path}: ${answer.statusCode} ${text}`)),
      )
    })
    asked.once('error', reject)
    asked.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

/** Until its first words are here, and until its turn has ended; ms since the message was given to the node. */
async function turn(name, text) {
  const begun = performance.now()
  const { message } = await call('POST', `/v1/chats/${name}`, { type: 'prompt', text: `say ${text}` })
  let firstMs
  let words = ''
  for (let after = message.seq; ; ) {
    const { messages } = await call('GET', `/v1/chats/${name}?after=${after}&wait=20`)
    for (const one of messages) {
      after = one.seq
      if (one.own) continue
      const said = one.shown.filter(({ kind }) => kind === 'text' || kind === 'delta')
      if (said.length > 0) firstMs ??= performance.now() - begun
      words += said.map((part) => part.text).join('')
      if (!one.is_end) continue
      if (words !== text) throw new Error(`${name} was to say ${JSON.stringify(text)} and said ${JSON.stringify(words)}`)
      return { firstMs: firstMs ?? performance.now() - begun, doneMs: performance.now() - begun }
    }
  }
}

/** Why a command failed: the last line that it wrote, by its message. */
function reasonIn(error) {
  const last = String(error.stderr ?? '')
    .trim()
    .split('\n')
    .at(-1)
  return /"message":"([^"]*?)\.? *(?:"|Look at|Its runtime)/.exec(last)?.[1] ?? error.message.split('\n')[0]
}

/** One agent, from the command to its end. */
async function agent(provider, nth) {
  const name = `bench-${provider}-${nth}`
  const begun = performance.now()
  const made = JSON.parse(
    await pylon('agent', 'new', '--provider', provider, '--protocol', 'pi', '--command', AGENT, '--name', name, '--keep', '--json'),
  )
  const readyMs = performance.now() - begun
  if (made.agent.phase !== 'ready') throw new Error(`${name} is ${made.agent.phase}`)
  const turns = []
  for (let i = 0; i < MESSAGES; i++) turns.push(await turn(name, `word ${i}`))
  const { steps } = await call('GET', `/v1/managed/${name}/steps`)
  await pylon('agent', 'delete', name, '--yes')
  const reached = Object.fromEntries([...steps].reverse().map(({ phase, after_ms }) => [phase, after_ms]))
  return { readyMs, turns, reached }
}

/** The same agent at the other end of `ssh host`. */
async function plain(sshd) {
  const begun = performance.now()
  const connection = sshd.open(AGENT)
  const turns = []
  for (let i = 0; i < MESSAGES; i++) {
    const said = performance.now()
    connection.send({ id: i, type: 'prompt', message: `say word ${i}` })
    let firstMs
    for (let message; message?.type !== 'agent_end'; ) {
      message = await connection.next()
      if (message.assistantMessageEvent !== undefined) firstMs ??= performance.now() - (i === 0 ? begun : said)
    }
    turns.push({ firstMs, doneMs: performance.now() - said })
  }
  await connection.close()
  return { turns }
}

async function setUpIncus() {
  const missing = ensureIncus()
  if (missing !== undefined) return { missing }
  // What is mounted into an instance is read there by others than its owner.
  const guest = mkdtempSync(join(tmpdir(), 'pyg-'))
  chmodSync(guest, 0o755)
  const daemon = await startIncusDaemon()
  const end = async () => {
    await daemon.destroy()
    rmSync(guest, { recursive: true, force: true })
  }
  try {
    daemon.cli('storage', 'create', 'pylon', 'btrfs', 'size=4GiB')
    const settings = { enabled: 'true', socket: daemon.socketPath, guest_dir: join(guest, 'guest') }
    for (const [key, value] of Object.entries(settings)) await pylon('config', 'set', `runtimes.incus.${key}`, value, '--sandbox')
    await pylon('restart')
    await pylon('runtime', 'image', 'build')
  } catch (error) {
    await end()
    throw error
  }
  return { end }
}

const f = (ms) => (ms < 10 ? ms.toFixed(1) : ms.toFixed(0))
const both = (values) => `${f(median(values))} (${f(Math.max(...values))})`

function report(measured, load) {
  const later = (runs, field) => runs.flatMap(({ turns }) => turns.slice(1)).map((one) => one[field])
  const rows = [...measured.agents].map(([provider, runs]) => {
    const first = (field) => both(runs.map(({ turns }) => turns[0][field]))
    return `| Pylon, ${provider} | ${both(runs.map(({ readyMs }) => readyMs))} | ${first('firstMs')} | ${first('doneMs')} | ${both(later(runs, 'firstMs'))} | ${both(later(runs, 'doneMs'))} |`
  })
  const { ssh } = measured
  const peer =
    ssh === undefined
      ? `| \`ssh host agent\` | not measured: ${measured.noSsh} | | | | |`
      : `| \`ssh host agent\` | with the first word: ${both(ssh.map(({ turns }) => turns[0].firstMs))} | | | ${both(later(ssh, 'firstMs'))} | ${both(later(ssh, 'doneMs'))} |`
  const phases = [...measured.agents].map(([provider, runs]) => {
    const names = Object.keys(runs[0].reached).filter((phase) => runs.every(({ reached }) => reached[phase] !== undefined))
    const times = names.map((phase) => [phase, median(runs.map(({ reached }) => reached[phase]))]).sort(([, a], [, b]) => a - b)
    return `- ${provider}: ${times.map(([phase, ms]) => `${phase} ${f(ms)}`).join(', ')}`
  })
  const missing = measured.missing.map((why) => `\nNot measured: ${why}.\n`).join('')
  return `${TITLE}

Written by \`node bench/agents.mjs\` on ${new Date().toISOString().slice(0, 10)}, ${cpus().length} cores (${cpus()[0]?.model}), ${bin.endsWith('.cjs') ? 'bundle' : 'packaged executable'}, load average ${load.map((value) => value.toFixed(1)).join(' before, ')} after.
\`pylon agent new\` to ready, then messages over the control socket: each is encrypted, goes through a relay (the sandbox's, on
loopback), is decrypted in the runtime and given to the agent, and so back. Beside it the same agent (a shell script that speaks
pi's protocol and answers at once) by \`ssh\` to an sshd on loopback, in turn with it. Milliseconds: median of ${RUNS} agents (the worst).

| | command to ready | first message to first word | to its end | later messages to first word | to their end |
|---|---|---|---|---|---|
${[...rows, peer].join('\n')}
${missing}
Where the time until ready goes, ms since the command reached the node:

${phases.join('\n')}

A conversation by \`ssh\` ends with its connection, needs a way to the machine and a login there; a session needs a relay that both
reach, and goes on after either side was away. That is what the difference buys.
`
}

function mlsReport() {
  const it = JSON.parse(execFileSync(process.execPath, [join(here, 'mls.mjs'), ...(quick ? ['--quick'] : [])], { encoding: 'utf8' }))
  const rows = it.steps.map(
    ([what, { all, main }]) => `| ${what} | ${all.toFixed(2)} | ${main.toFixed(2)} | ${(all / it.signature_ms).toFixed(1)} |`,
  )
  return `${MLS_TITLE}

CPU of one session of two members, measured by \`node bench/mls.mjs\` on ${new Date().toISOString().slice(0, 10)}, beside one Schnorr signature of an event
(${it.signature_ms.toFixed(2)} ms). What is not on the main thread is in the thread pool of WebCrypto.

| what | ms of CPU | of it on the main thread | signatures |
|---|---|---|---|
${rows.join('\n')}

The stored state of such a group is ${it.state_bytes} bytes; the event of that message ${it.message_bytes}, one NIP-17 wrap of it ${it.dm_bytes}.
`
}

const measured = { agents: new Map(), ssh: undefined, noSsh: noSshd(), missing: [] }
let sshd
let incus
try {
  const load = [loadavg()[0]]
  mkdirSync(join(home, 'sandbox'), { recursive: true })
  await pylon('start', '--sandbox')
  await pylon('config', 'set', 'provider.probe', 'false', '--sandbox')
  if (measured.noSsh === undefined) {
    sshd = await startSshd()
    measured.ssh = []
  }
  if (providers.includes('incus')) {
    incus = await setUpIncus()
    if (incus.missing !== undefined) measured.missing.push(`incus (${incus.missing})`)
  }
  const usable = providers.filter((provider) => provider !== 'incus' || incus?.missing === undefined)
  for (const provider of usable) {
    try {
      // The first of each unpacks and warms.
      await agent(provider, 'warm')
      measured.agents.set(provider, [])
    } catch (error) {
      measured.missing.push(`${provider} (${reasonIn(error)})`)
    }
  }
  for (let i = 0; i < RUNS; i++) {
    for (const [provider, runs] of measured.agents) runs.push(await agent(provider, i))
    if (sshd !== undefined) measured.ssh.push(await plain(sshd))
  }
  load.push(loadavg()[0])
  const written = join(root, 'docs', 'benchmarks.md')
  const sections = [
    [TITLE, report(measured, load)],
    [MLS_TITLE, mlsReport()],
  ]
  for (const [, section] of sections) console.log(section)
  if (!quick) {
    const text = sections.reduce((all, [title, section]) => withSection(all, title, section), readFileSync(written, 'utf8'))
    if (sectionOf(text, TITLE) === '') throw new Error('the section was not written')
    writeFileSync(written, text)
  }
} finally {
  sshd?.stop()
  await pylon('stop', '--force').catch(() => undefined)
  await incus?.end?.()
  rmSync(home, { recursive: true, force: true })
}
