/** A sandbox in this process for tests: real sockets on loopback, a folder of its own that is removed at the end. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLogger } from '../../src/base/logger.ts'
import { runSandbox, type SandboxOptions } from '../../src/sandbox/sandbox.ts'

export interface TestSandbox {
  readonly relayUrl: string
  readonly mintUrl: string
  readonly lnurlBaseUrl: string
  readonly dir: string
  /** Switches faults on or off; see src/sandbox/faults.ts. */
  faults(orders: Record<string, unknown>): Promise<void>
  /** Stops the servers and, unless `keep`, removes the folder. */
  stop(options?: { keep?: boolean }): Promise<void>
}

/** @param options.dir an existing folder to go on with; else a new one. */
export async function startSandbox(options: Partial<SandboxOptions> = {}): Promise<TestSandbox> {
  const dir = options.dir ?? mkdtempSync(join(tmpdir(), 'pylon-sandbox-'))
  const sandbox = await runSandbox({ logger: silentLogger, ...options, dir })
  return {
    relayUrl: sandbox.relayUrl,
    mintUrl: sandbox.mintUrl,
    lnurlBaseUrl: sandbox.lnurlBaseUrl,
    dir,
    async faults(orders) {
      const response = await fetch(`${sandbox.mintUrl}/sandbox/faults`, { method: 'POST', body: JSON.stringify(orders) })
      if (!response.ok) throw new Error(`faults refused: ${await response.text()}`)
    },
    async stop({ keep = false } = {}) {
      await sandbox.close()
      if (!keep) rmSync(dir, { recursive: true, force: true })
    },
  }
}
