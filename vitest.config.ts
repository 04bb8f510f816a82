/** The test lanes, one project each. Files run two at a time; lanes that start processes wait for the light ones. */
import { defineConfig } from 'vitest/config'

const lane = (name: string, timeoutMs: number, order: number) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    testTimeout: timeoutMs,
    hookTimeout: timeoutMs,
    pool: 'forks' as const,
    maxWorkers: 2,
    sequence: { groupOrder: order },
  },
})

/** Where CI wants the counts as JSON, beside what a person reads. */
const report = process.env['PYLON_TEST_REPORT']

export default defineConfig({
  test: {
    // Tests that run at once inside a file start processes of their own: two cores carry no more.
    maxConcurrency: 2,
    reporters: report ? ['default', ['json', { outputFile: report }]] : ['default'],
    projects: [
      lane('unit', 20_000, 0),
      lane('property', 60_000, 0),
      lane('simulation', 60_000, 0),
      lane('contract', 60_000, 1),
      lane('stranger', 60_000, 1),
      lane('e2e', 120_000, 2),
      lane('fault', 120_000, 3),
      lane('live', 300_000, 4),
    ],
  },
})
