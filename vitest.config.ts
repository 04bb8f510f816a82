/**
 * The test lanes, one project each. Most tests wait (for a commit, a socket, a guest), so more files run at once than there
 * are cores. Those that take long come first, and between those that wait the long ones that need nothing but cores. What else needs
 * nothing but cores comes last, in small pieces.
 */
import { readFileSync, statfsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

const MEMORY = '/dev/shm'
/** Homes of tests are small; the installed program, and what many tests at once hold, is not. */
const ROOM_BYTES = 4 * 2 ** 30

// Nothing of a test outlives a loss of power, and its thousands of commits would wait for the disk.
if (process.env['TMPDIR'] === undefined && isUsable(MEMORY)) process.env['TMPDIR'] = MEMORY

/** Whether there is memory as a folder, from which programs may be run. */
function isUsable(dir: string): boolean {
  try {
    const mounts = readFileSync('/proc/mounts', 'utf8').split('\n')
    const options = mounts.map((line) => line.split(' ')).find(([, where]) => where === dir)?.[3]
    const { bavail, bsize } = statfsSync(dir)
    return options !== undefined && !options.split(',').includes('noexec') && bavail * bsize >= ROOM_BYTES
  } catch {
    // No Linux: the disk then.
    return false
  }
}

const cores = availableParallelism()
const blocking = { maxWorkers: 2 * cores, order: 0 }
const alone = { maxWorkers: 2, order: 1 }

const QUICK_SECP = fileURLToPath(new URL('test/simulation/quick-secp.ts', import.meta.url))

/** Lanes that run the node's own code, and so see its statements. */
const IN_PROCESS = ['unit', 'property', 'contract', 'simulation']

/** What e2e plays instead of the bundle, where it is packaged. */
const executable = process.env['PYLON_E2E_BIN']

const lane = (name: string, timeoutMs: number, { maxWorkers, order }: typeof blocking) => ({
  resolve: { alias: name === 'simulation' ? [{ find: /^tiny-secp256k1$/, replacement: QUICK_SECP }] : [] },
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    env: name === 'e2e' && executable !== undefined ? { PYLON_BIN: executable } : {},
    setupFiles: [
      ...(name === 'property' ? ['test/support/fast-check-setup.ts'] : []),
      ...(IN_PROCESS.includes(name) ? ['test/support/plans.ts'] : []),
    ],
    testTimeout: timeoutMs,
    hookTimeout: timeoutMs,
    pool: 'forks' as const,
    maxWorkers,
    // Files of a lane follow each other in a process: what they import is loaded, and compiled, once. Strangers bring their own
    // globals (and their pool of connections) along.
    isolate: name === 'stranger' || name === 'live',
    sequence: { groupOrder: order },
  },
})

/** A clean clone does not know yet which files take long: begun last, one of these alone would be the end of the run. */
const LONG = [
  'simulation/seeds-0',
  'e2e/daemon-sandbox',
  'simulation/seeds-1',
  'e2e/daemon.test',
  'e2e/runtime-rent',
  'e2e/agent-new',
  'simulation/seeds-2',
  'e2e/stranger-buys',
  'e2e/load',
  'e2e/install',
  'simulation/seeds-3',
  'e2e/cli-wallet',
  'fault/kill-',
  'contract/runtime-local',
  'contract/runtime-guest/',
  'contract/runtime-incus',
  'contract/machines/plain-client',
  'contract/wallet/small-coins',
  'contract/nostr/',
  'property/wallet-conservation',
  'property/provider/jobs',
]

class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const found = LONG.findIndex((part) => moduleId.includes(`/test/${part}`))
      return found === -1 ? LONG.length : found
    }
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b))
  }
}

/** Where CI wants the counts as JSON, beside what a person reads. */
const report = process.env['PYLON_TEST_REPORT']

export default defineConfig({
  test: {
    // Tests that run at once inside a file start processes of their own: two cores carry no more.
    maxConcurrency: 2,
    reporters: report ? ['default', ['json', { outputFile: report }]] : ['default'],
    sequence: { sequencer: LongFirst },
    projects: [
      lane('contract', 60_000, blocking),
      lane('unit', 60_000, blocking),
      lane('property', 60_000, blocking),
      lane('simulation', 60_000, blocking),
      lane('stranger', 60_000, blocking),
      lane('e2e', 120_000, blocking),
      lane('fault', 120_000, blocking),
      lane('live', 300_000, alone),
    ],
  },
})
