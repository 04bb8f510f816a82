// Measures the executable that users get, each figure beside something else from the same run, and writes docs/benchmarks.md.
// PYLON_BIN=build/pylon node bench/run.mjs [--quick] [--flood]; with --flood it measures a flood of unpaid requests alone.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Sqlite from 'better-sqlite3'
import { signSchnorr, verifySchnorr, xOnlyPointFromScalar } from 'tiny-secp256k1'
import { inlineMoreWasm } from '../src/base/wasm-inlining.ts'
import { sectionOf } from './sections.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const root = dirname(here)
const quick = process.argv.includes('--quick')
if (process.argv.includes('--flood')) {
  const { status } = spawnSync(process.execPath, [join(here, 'flood.mjs'), ...(quick ? ['--quick'] : [])], { stdio: 'inherit' })
  process.exit(status ?? 1)
}
const bin = process.env.PYLON_BIN ?? join(root, 'build', 'pylon')
const command = bin.endsWith('.cjs') ? [process.execPath, bin] : [bin]
const home = mkdtempSync(join(tmpdir(), 'pyb-'))
const env = { ...process.env, PYLON_HOME: home, HOME: home }
const RUNS = quick ? 3 : 5
const LOADS = quick
  ? [
      [1, 100],
      [16, 300],
      [64, 500],
    ]
  : [
      [1, 300],
      [16, 1000],
      [64, 2000],
    ]

const pylon = (...args) => execFileSync(command[0], [...command.slice(1), ...args], { env, encoding: 'utf8' })
const node = (...args) => execFileSync(process.execPath, args, { encoding: 'utf8', cwd: root })
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]
const timeMs = (fn) => {
  const before = performance.now()
  fn()
  return performance.now() - before
}
const rssMiB = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024
/** CPU that a process has used, user and system; ticks are hundredths of a second on Linux. */
const cpuMs = (pid) => {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10
}
const childrenOf = (pid) =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter((child) => child !== '')

function measureProcess() {
  const baseMs = median(Array.from({ length: RUNS }, () => timeMs(() => node('-e', '0'))))
  pylon('init')
  pylon('start', '--sandbox')
  pylon('stop')
  const startMs = []
  const statusMs = []
  for (let i = 0; i < RUNS; i++) {
    startMs.push(timeMs(() => pylon('start', '--sandbox')))
    statusMs.push(timeMs(() => pylon('status', '--json')))
    if (i < RUNS - 1) pylon('stop')
  }
  return { baseMs, startMs: median(startMs), statusMs: median(statusMs) }
}

function startPeer(relayUrl) {
  const child = spawn(process.execPath, [join(here, 'peer-dvm.mjs'), relayUrl], { stdio: ['ignore', 'pipe', 'inherit'], cwd: root })
  return new Promise((resolve) => child.stdout.once('data', (data) => resolve({ child, pubkey: data.toString().trim() })))
}

const load = (relayUrl, provider, [concurrency, jobs]) =>
  JSON.parse(node(join(here, 'load.mjs'), relayUrl, provider, String(jobs), String(concurrency)))

/** As the node and the sandbox compute it: compiled with the same bounds, and hot. */
function measureCrypto() {
  inlineMoreWasm()
  const [key, digest] = [Buffer.alloc(32, 7), Buffer.alloc(32, 9)]
  const pubkey = xOnlyPointFromScalar(key)
  const signature = signSchnorr(digest, key)
  const each = (fn) => median(Array.from({ length: 5 }, () => timeMs(() => Array.from({ length: 400 }, fn)) / 400))
  return { verifyMs: each(() => verifySchnorr(digest, pubkey, signature)), signMs: each(() => signSchnorr(digest, key)) }
}

function jobsInDatabase() {
  const db = new Sqlite(join(home, 'sandbox', 'pylon.db'), { readonly: true })
  const row = db
    .prepare(`SELECT count(*) AS jobs, count(result) AS results FROM jobs WHERE status IN ('ready', 'delivered', 'settled')`)
    .get()
  db.close()
  return row
}

function report({ process: timing, memory, rows, crypto, stored, expected }) {
  const f = (value, digits = 0) => value.toFixed(digits)
  const table = rows.map(
    ({ ours, peer, concurrency }) =>
      `| ${concurrency} | ${f(ours.jobs_per_s)} | ${f(peer.jobs_per_s)} | ${f(ours.jobs_per_s / peer.jobs_per_s, 2)} | ${f(ours.median_ms, 1)} | ${f(peer.median_ms, 1)} | ${f(ours.median_ms / peer.median_ms, 2)} |`,
  )
  return `# Benchmarks

Written by \`npm run bench\` on ${new Date().toISOString().slice(0, 10)}, ${cpus().length} cores (${cpus()[0]?.model}), ${bin.endsWith('.cjs') ? 'bundle' : 'packaged executable'}.
Figures are medians; absolute numbers depend on the machine, the ratios much less.

| what | Pylon | beside it | ratio |
|---|---|---|---|
| \`pylon start --sandbox\` until ready (node and sandbox) | ${f(timing.startMs)} ms | \`node -e 0\`: ${f(timing.baseMs)} ms | ${f(timing.startMs / timing.baseMs, 1)} |
| \`pylon status\` | ${f(timing.statusMs)} ms | \`node -e 0\`: ${f(timing.baseMs)} ms | ${f(timing.statusMs / timing.baseMs, 1)} |
| idle memory of the node | ${f(memory.node)} MiB | the peer below: ${f(memory.peer)} MiB | ${f(memory.node / memory.peer, 2)} |
| idle memory of the sandbox | ${f(memory.sandbox)} MiB | the peer below: ${f(memory.peer)} MiB | ${f(memory.sandbox / memory.peer, 2)} |

## Free jobs

Kind 5001, one customer with requests signed beforehand, through one relay (the sandbox's) on the same machine. Pylon verifies the
signature, commits the claim, then the result with its outbox (\`synchronous=FULL\`), and publishes a 7000 and a 6001. The peer is
\`bench/peer-dvm.mjs\`: the shortest vending machine on nostr-tools, which publishes the same two events and persists nothing.

| in flight | Pylon jobs/s | peer jobs/s | ratio | Pylon median ms | peer median ms | ratio |
|---|---|---|---|---|---|---|
${table.join('\n')}

Where the time goes: at ${rows.at(-1).concurrency} in flight a job took ${f(rows.at(-1).cpu.node, 2)} ms of CPU in the node and ${f(rows.at(-1).cpu.sandbox, 2)} ms in the sandbox, which verifies
all three events and stores them; both and the customer share the cores. On this machine one wasm signature verification takes
${f(crypto.verifyMs, 2)} ms and one signature ${f(crypto.signMs, 2)} ms: the node does one and two of them a job, the relay three of the first.

Afterwards the database held ${stored.jobs} finished jobs with ${stored.results} results of ${expected} requested.
`
}

const INCUS_TITLE = '## Runtimes on Incus'
/** Written by bench/agents.mjs. */
const AGENT_TITLES = ['## Agents', '## Encryption']

/** Where Incus can't be started, what was measured before stays. */
function incusReport(before) {
  const more = quick ? ['--quick'] : []
  const runs = ['dir', 'btrfs'].map((pool) =>
    spawnSync(process.execPath, [join(here, 'incus.mjs'), '--pool', pool, ...more], { encoding: 'utf8', timeout: 600_000 }),
  )
  if (runs.some(({ status }) => status !== 0)) {
    return sectionOf(before, INCUS_TITLE)
  }
  const rows = runs.map(({ stdout }) => {
    const it = JSON.parse(stdout.trim().split('\n').at(-1))
    return `| ${it.pool} | ${it.plain_launch_ms} | ${it.provision_ms} | ${it.ratio} | ${it.provision_with_volume_ms} | ${it.ratio_with_volume} | ${it.plain_at_once_ms} | ${it.provision_at_once_ms} | ${it.ratio_at_once} |`
  })
  return `${INCUS_TITLE}

Until the instance runs, against \`incus launch\` of the same image (busybox) with the same limits, on an Incus of the benchmark's own,
measured on ${new Date().toISOString().slice(0, 10)}: alone, alone with a volume, and twenty at once. Times in ms.

| pool | launch | provision | ratio | with a volume | ratio | 20 launches | 20 provisions | ratio |
|---|---|---|---|---|---|---|---|---|
${rows.join('\n')}
`
}

let peer
try {
  const timing = measureProcess()
  pylon('config', 'set', 'provider.prices.5001.amount_msats', '0', '--sandbox')
  pylon('config', 'set', 'provider.per_customer_limit', '10000', '--sandbox')
  pylon('restart', '--sandbox')
  const status = JSON.parse(pylon('status', '--json'))
  const relayUrl = status.sandbox.relay_url
  peer = await startPeer(relayUrl)
  await new Promise((resolve) => setTimeout(resolve, 3000))
  const memory = { node: rssMiB(status.pid), sandbox: rssMiB(childrenOf(status.pid)[0]), peer: rssMiB(peer.child.pid) }
  const warm = 200
  load(relayUrl, status.identity.pubkey, [16, warm])
  load(relayUrl, peer.pubkey, [16, warm])
  const sandboxPid = childrenOf(status.pid)[0]
  const rows = LOADS.map((shape) => {
    const before = { node: cpuMs(status.pid), sandbox: cpuMs(sandboxPid) }
    const ours = load(relayUrl, status.identity.pubkey, shape)
    const cpu = { node: (cpuMs(status.pid) - before.node) / shape[1], sandbox: (cpuMs(sandboxPid) - before.sandbox) / shape[1] }
    return { concurrency: shape[0], ours, cpu, peer: load(relayUrl, peer.pubkey, shape) }
  })
  pylon('stop')
  const expected = warm + LOADS.reduce((sum, [, jobs]) => sum + jobs, 0)
  const stored = jobsInDatabase()
  const written = join(root, 'docs', 'benchmarks.md')
  const before = existsSync(written) ? readFileSync(written, 'utf8') : ''
  const kept = AGENT_TITLES.map((title) => sectionOf(before, title)).filter((section) => section !== '')
  const parts = [report({ process: timing, memory, rows, crypto: measureCrypto(), stored, expected }), incusReport(before), ...kept]
  const text = parts.filter((part) => part !== '').join('\n')
  if (!quick) writeFileSync(written, text)
  console.log(text)
  if (stored.jobs !== expected || stored.results !== expected)
    throw new Error(`the database holds ${stored.jobs} jobs and ${stored.results} results, expected ${expected}`)
  if (rows.some(({ ours }) => ours.results !== ours.jobs || ours.processing !== ours.jobs || !ours.sample_valid))
    throw new Error('a job lacks its answer')
} finally {
  peer?.child.kill()
  try {
    pylon('stop', '--force')
  } catch {}
  rmSync(home, { recursive: true, force: true })
}
