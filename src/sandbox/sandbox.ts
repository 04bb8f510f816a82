/** The sandbox: a relay, a Cashu mint with play money and an LNURL server on loopback, in one process. */
import { join } from 'node:path'
import { z } from 'zod'
import { type Clock, systemClock } from '../base/clock.ts'
import { createDialer } from '../base/dialer.ts'
import { ensurePrivateDir, readFileIfAny, writeFileAtomic } from '../base/files.ts'
import { parseJson } from '../base/json.ts'
import type { Logger } from '../base/logger.ts'
import { type Random, systemRandom } from '../base/random.ts'
import { SandboxDatabase } from './database.ts'
import { type FaultOrders, Faults } from './faults.ts'
import { startLnurlServer } from './lnurl/server.ts'
import { Mint } from './mint/mint.ts'
import { startMintServer } from './mint/server.ts'
import type { Relay } from './relay/relay.ts'
import { startRelay } from './relay/server.ts'

const port = z.int().min(1).max(65_535)
/** ports.json: chosen once and kept, so that the URLs of a sandbox stay what they were. */
const portsSchema = z.object({ relay: port, mint: port, lnurl: port })

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
  readonly random?: Random
  /** Switched on from the start; see faults.ts. */
  readonly faults?: FaultOrders
  /** Serve kinds 4 and 1059 only to their authenticated author and addressees (NIP-42). */
  readonly authForDms?: boolean
}

export interface Sandbox {
  /** `ws://127.0.0.1:PORT` */
  readonly relayUrl: string
  /** `http://127.0.0.1:PORT` */
  readonly mintUrl: string
  /** `http://127.0.0.1:PORT` */
  readonly lnurlBaseUrl: string
  close(): Promise<void>
}

/** Starts all three; resolves when they serve. @throws port_taken; what was started by then is closed again. */
export async function runSandbox(options: SandboxOptions): Promise<Sandbox> {
  process.umask(0o077)
  ensurePrivateDir(options.dir)
  const closers: (() => unknown)[] = []
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer()
  }
  try {
    return { ...(await startServers(options, closers)), close }
  } catch (error) {
    await close()
    throw error
  }
}

async function startServers(options: SandboxOptions, closers: (() => unknown)[]): Promise<Omit<Sandbox, 'close'>> {
  const { dir, logger } = options
  const clock = options.clock ?? systemClock
  const random = options.random ?? systemRandom
  const host = options.host ?? '127.0.0.1'
  const common = { host, clock, logger }
  const portsFile = join(dir, 'ports.json')
  // None the first time, or when the file is no longer readable as such.
  const stored = portsSchema.safeParse(parseJson(readFileIfAny(portsFile) ?? '')).data
  const faults = new Faults()

  const database = new SandboxDatabase(join(dir, 'sandbox.db'), random)
  closers.push(() => database.close())
  const mint = new Mint(database, clock, () => faults.takeHeldMelt())
  const relay = await startRelay({
    ...common,
    random,
    databasePath: join(dir, 'relay.db'),
    port: options.relayPort ?? stored?.relay ?? 0,
    faults,
    authForDms: options.authForDms ?? false,
  })
  closers.push(() => relay.close())
  const lnurl = await startLnurlServer({
    ...common,
    database,
    mint,
    port: options.lnurlPort ?? stored?.lnurl ?? 0,
    publish: (event) => relay.relay.publishOwn(event),
    ownRelay: relay.url,
  })
  closers.push(() => lnurl.close())
  const mintServer = await startMintServer({
    ...common,
    database,
    mint,
    port: options.mintPort ?? stored?.mint ?? 0,
    faults,
    post: (url, body) => postTo(url, body),
    siblings: { lnurl_base_url: lnurl.url, relay_url: relay.url },
  })
  closers.push(() => mintServer.close())

  faults.onOrder((orders) => {
    applyOnce(orders, relay.relay, mint)
    if (orders.peers !== undefined) mintServer.knowPeers(orders.peers)
  })
  if (options.faults !== undefined) faults.apply(options.faults)
  const ports = { relay: relay.port, mint: mintServer.port, lnurl: lnurl.port }
  writeFileAtomic(portsFile, `${JSON.stringify(ports)}\n`)
  return { relayUrl: relay.url, mintUrl: mintServer.url, lnurlBaseUrl: lnurl.url }
}

/** Other sandboxes are on this machine too. */
async function postTo(url: string, body: string): Promise<string> {
  const dialer = createDialer({ allowedOrigins: [new URL(url).origin] })
  try {
    return (await dialer.fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body })).text
  } finally {
    await dialer.close()
  }
}

function applyOnce(orders: FaultOrders, relay: Relay, mint: Mint): void {
  if (orders.close_subs === true) relay.closeAllSubscriptions()
  if (orders.drop_connections === true || orders.relay_down === true) relay.dropConnections()
  if (orders.rotate_keyset === true || orders.input_fee_ppk !== undefined) mint.rotateKeyset(orders.input_fee_ppk)
  if (orders.release_melts !== undefined) mint.releaseMelts(orders.release_melts)
}
