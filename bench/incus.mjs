// Measures what Pylon adds to a plain `incus launch` of the same image until the instance runs: pairs in turn, one run, one ratio.
// As root on a machine that can run Incus: node bench/incus.mjs [--quick] [--pool dir|btrfs]
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { decodeRuntimeSpec } from '../src/runtime/contract/spec.ts'
import { guestScript } from '../src/runtime/guest-script.ts'
import { buildImage } from '../src/runtime/incus/image.ts'
import { importImage } from '../src/runtime/incus/images.ts'
import { IncusAdapter } from '../src/runtime/incus/incus-adapter.ts'
import { setUpIncus } from '../src/runtime/incus/setup.ts'
import { ensureIncus, startIncusDaemon } from '../test/support/incus-daemon.ts'
import { testScope } from '../test/support/scope.ts'

/** Without input: `incus launch` would read a configuration from a pipe, and wait for its end. */
const run = (program, args, { env }) =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, { env, stdio: ['ignore', 'ignore', 'pipe'], timeout: 60_000 })
    // Each launch warns that there is no network: it is shown only where something fails.
    const words = []
    child.stderr.on('data', (chunk) => words.push(chunk))
    child.once('error', reject)
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${program} ${args[0]} ended with ${code}: ${Buffer.concat(words)}`)),
    )
  })
const PAIRS = process.argv.includes('--quick') ? 5 : 12
const AT_ONCE = 20
const driver = process.argv.includes('--pool') ? process.argv[process.argv.indexOf('--pool') + 1] : 'dir'
const never = new AbortController().signal
const LIMITS = { vcpus: 1, memoryMib: 64, rootDiskGib: 1, processes: 128 }
/** The same limits and security as ours, so that the difference is Pylon's. */
const PLAIN = ['limits.cpu=1', 'limits.memory=64MiB', 'limits.processes=128', 'security.idmap.isolated=true', 'boot.autostart=false']

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]
const timeMs = async (work) => {
  const before = performance.now()
  await work()
  return performance.now() - before
}

const missing = ensureIncus()
if (missing !== undefined) {
  process.stderr.write(`bench: no Incus here: ${missing}\n`)
  process.exit(3)
}
const daemon = await startIncusDaemon()
try {
  daemon.cli('storage', 'create', 'pylon', driver, ...(driver === 'dir' ? [] : ['size=4GiB']))
  const client = daemon.client('pylon')
  await setUpIncus(client, { pool: 'pylon', profile: 'default', hostPaths: [] })
  await importImage(client, 'pylon/busybox', await buildImage('busybox'))
  const scope = testScope()
  const adapter = new IncusAdapter(
    {
      endpoint: { socketPath: daemon.socketPath },
      project: 'pylon',
      profile: 'default',
      pool: 'pylon',
      nodeId: 'bench',
      images: { managed: 'pylon/busybox', oneShot: 'pylon/busybox' },
      guest: { hostDir: '/nowhere', command: ['/nowhere'], shellScript: guestScript() },
      defaults: LIMITS,
    },
    scope,
  )

  const made = []
  const plain = async () => {
    const name = `plain-${randomBytes(8).toString('hex')}`
    made.push(name)
    await run('incus', ['launch', 'pylon/busybox', name, '--project', 'pylon', '--quiet', ...PLAIN.flatMap((pair) => ['-c', pair])], {
      env: daemon.env,
    })
  }
  const ours = async (mounts = []) => {
    const runtimeId = `incus-${randomBytes(8).toString('hex')}`
    const spec = decodeRuntimeSpec({ identity: { runtime_id: runtimeId, instance_name: runtimeId }, entry_command: 'sleep 600', mounts })
    made.push(await adapter.provision({ runtimeId, ownerPubkey: '11'.repeat(32), spec, protocol: null }, never))
  }
  const withVolume = () => ours([{ kind: 'persistent_volume', guest_path: '/data', source: 'state', mode: 'read_write' }])
  const clean = async () => {
    for (const one of made.splice(0)) {
      if (typeof one === 'string') await run('incus', ['delete', '--force', one, '--project', 'pylon'], { env: daemon.env })
      else await adapter.teardown(one.handle, { keepVolume: false })
    }
  }
  const atOnce = (work) => Promise.all(Array.from({ length: AT_ONCE }, () => work()))

  // The first of each unpacks and warms.
  for (const work of [plain, ours, withVolume]) await work()
  await clean()
  const times = { plain: [], ours: [], withVolume: [], plainAtOnce: [], oursAtOnce: [] }
  for (let pair = 0; pair < PAIRS; pair++) {
    // In turn, and each first as often as last.
    const order = pair % 2 === 0 ? ['plain', 'ours', 'withVolume'] : ['withVolume', 'ours', 'plain']
    for (const name of order) times[name].push(await timeMs({ plain, ours: () => ours(), withVolume }[name]))
    await clean()
  }
  for (let pair = 0; pair < Math.ceil(PAIRS / 3); pair++) {
    const order = [
      ['plainAtOnce', plain],
      ['oursAtOnce', () => ours()],
    ]
    for (const [name, work] of pair % 2 === 0 ? order : order.reverse()) {
      times[name].push(await timeMs(() => atOnce(work)))
      await clean()
    }
  }
  const ms = Object.fromEntries(Object.entries(times).map(([name, values]) => [name, Math.round(median(values))]))
  const ratio = (a, b) => Number((median(a) / median(b)).toFixed(2))
  console.log(
    JSON.stringify({
      pool: driver,
      pairs: PAIRS,
      until: 'instance running',
      plain_launch_ms: ms.plain,
      provision_ms: ms.ours,
      provision_with_volume_ms: ms.withVolume,
      ratio: ratio(times.ours, times.plain),
      ratio_with_volume: ratio(times.withVolume, times.plain),
      at_once: AT_ONCE,
      plain_at_once_ms: ms.plainAtOnce,
      provision_at_once_ms: ms.oursAtOnce,
      ratio_at_once: ratio(times.oursAtOnce, times.plainAtOnce),
    }),
  )
  await scope.close()
} finally {
  await daemon.destroy()
}
