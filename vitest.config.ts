import { defineConfig } from 'vitest/config'

const lane = (name: string, timeoutMs: number, extra: object = {}) => ({
  test: { name, include: [`test/${name}/**/*.test.ts`], testTimeout: timeoutMs, hookTimeout: timeoutMs, ...extra },
})

export default defineConfig({
  test: {
    projects: [
      lane('unit', 20_000),
      lane('property', 60_000),
      lane('contract', 60_000),
      lane('stranger', 60_000),
      lane('e2e', 120_000),
      lane('fault', 120_000),
      lane('live', 300_000),
    ],
  },
})
