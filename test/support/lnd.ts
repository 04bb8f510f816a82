/** Two real Lightning nodes (lnd) with a channel between them, on a chain of their own (btcd, regtest). */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { request as httpsRequest } from 'node:https'
import { join } from 'node:path'
import { endProcess, freePort } from './mint-process.ts'

const root = new URL('../..', import.meta.url).pathname
const CHANNEL_SATS = 1_000_000
const START_TRIES = 300

/** The folder of the programs, or the reason why there is none. */
export function findLnd(): { readonly bin: string } | { readonly missing: string } {
  const setup = spawnSync('sh', [join(root, 'test', 'live', 'setup-lnd.sh')], { encoding: 'utf8', timeout: 20_000 })
  if (setup.status !== 0) return { missing: (setup.stderr || setup.error?.message || 'test/live/setup-lnd.sh failed').trim().slice(-500) }
  return { bin: setup.stdout.trim() }
}

type Json = Readonly<Record<string, unknown>>

/** One request over TLS with a certificate that its server made. @throws with what it answered */
function ask(
  url: string,
  { cert, headers = {}, auth }: { cert: string; headers?: Record<string, string>; auth?: string },
  body?: Json,
): Promise<Json> {
  return new Promise((resolve, reject) => {
    const options = {
      method: body === undefined ? 'GET' : 'POST',
      ca: readFileSync(cert),
      headers,
      timeout: 90_000,
      ...(auth === undefined ? {} : { auth }),
    }
    const sent = httpsRequest(url, options, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('end', () => {
        const text = Buffer.concat(chunks).toString()
        if (answer.statusCode === 200) resolve(JSON.parse(text) as Json)
        else reject(new Error(`${url} answered ${answer.statusCode}: ${text.slice(0, 500)}`))
      })
    })
    sent.on('error', reject)
    sent.on('timeout', () => sent.destroy(new Error(`${url} gave no answer`)))
    sent.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  let problem: unknown
  for (let i = 0; i < START_TRIES; i++) {
    try {
      const found = await look()
      if (found !== undefined) return found
    } catch (error) {
      problem = error
    }
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  throw new Error(`${what} did not come: ${String(problem)}`)
}

function run(command: string, args: readonly string[], dir: string): ChildProcess {
  const out = openSync(join(dir, 'out.log'), 'a')
  const child = spawn(command, args, { cwd: dir, env: { PATH: process.env['PATH'] ?? '', HOME: dir }, stdio: ['ignore', out, out] })
  closeSync(out)
  return child
}

class Btcd {
  readonly #bin: string
  readonly #dir: string
  #child: ChildProcess | undefined
  rpcPort = 0

  constructor(bin: string, dir: string) {
    this.#bin = bin
    this.#dir = dir
  }

  get cert(): string {
    return join(this.#dir, 'rpc.cert')
  }

  async start(miningAddress?: string): Promise<void> {
    await this.stop()
    mkdirSync(this.#dir, { recursive: true })
    if (this.rpcPort === 0) this.rpcPort = await freePort()
    const args = [
      ...[
        '--regtest',
        '--rpcuser=test',
        '--rpcpass=test',
        `--rpclisten=127.0.0.1:${this.rpcPort}`,
        `--listen=127.0.0.1:${await freePort()}`,
      ],
      ...[`--datadir=${this.#dir}/data`, `--logdir=${this.#dir}/logs`, `--configfile=${this.#dir}/none.conf`, '--nodnsseed', '--txindex'],
      ...[
        `--rpccert=${this.cert}`,
        `--rpckey=${this.#dir}/rpc.key`,
        ...(miningAddress === undefined ? [] : [`--miningaddr=${miningAddress}`]),
      ],
    ]
    this.#child = run(join(this.#bin, 'btcd'), args, this.#dir)
    await until('btcd', () => this.rpc('getblockcount'))
  }

  async rpc(method: string, ...params: readonly unknown[]): Promise<Json> {
    const body = { jsonrpc: '1.0', id: 1, method, params }
    return await ask(`https://127.0.0.1:${this.rpcPort}/`, { cert: this.cert, auth: 'test:test' }, body)
  }

  async stop(): Promise<void> {
    if (this.#child !== undefined) await endProcess(this.#child)
    this.#child = undefined
  }
}

export class Lnd {
  readonly #bin: string
  readonly #dir: string
  readonly #chain: Btcd
  #child: ChildProcess | undefined
  #peerPort = 0
  #restPort = 0

  constructor(bin: string, dir: string, chain: Btcd) {
    this.#bin = bin
    this.#dir = dir
    this.#chain = chain
  }

  get restUrl(): string {
    return `https://127.0.0.1:${this.#restPort}`
  }
  get peerAddress(): string {
    return `127.0.0.1:${this.#peerPort}`
  }
  get certFile(): string {
    return join(this.#dir, 'tls.cert')
  }
  get macaroonFile(): string {
    return join(this.#dir, 'data', 'chain', 'bitcoin', 'regtest', 'admin.macaroon')
  }

  async start(): Promise<void> {
    mkdirSync(this.#dir, { recursive: true })
    if (this.#restPort === 0) [this.#restPort, this.#peerPort] = [await freePort(), await freePort()]
    const args = [
      ...[`--lnddir=${this.#dir}`, '--bitcoin.regtest', '--bitcoin.node=btcd', '--noseedbackup', '--nobootstrap', '--debuglevel=warn'],
      ...[
        `--btcd.rpchost=127.0.0.1:${this.#chain.rpcPort}`,
        '--btcd.rpcuser=test',
        '--btcd.rpcpass=test',
        `--btcd.rpccert=${this.#chain.cert}`,
      ],
      ...[`--rpclisten=127.0.0.1:${await freePort()}`, `--restlisten=127.0.0.1:${this.#restPort}`, `--listen=127.0.0.1:${this.#peerPort}`],
    ]
    this.#child = run(join(this.#bin, 'lnd'), args, this.#dir)
    await until('lnd', async () => (existsSync(this.macaroonFile) ? await this.call('/v1/getinfo') : undefined))
  }

  call(path: string, body?: Json): Promise<Json> {
    const headers = { 'Grpc-Metadata-macaroon': readFileSync(this.macaroonFile).toString('hex') }
    return ask(`${this.restUrl}${path}`, { cert: this.certFile, headers }, body)
  }

  async invoice(amountSats: number): Promise<string> {
    return String((await this.call('/v1/invoices', { value: String(amountSats) }))['payment_request'])
  }

  /** One that is neither settled nor refused until `settle` or `cancel` says so. */
  async holdInvoice(paymentHash: Uint8Array, amountSats: number): Promise<string> {
    const body = { hash: Buffer.from(paymentHash).toString('base64'), value: String(amountSats) }
    return String((await this.call('/v2/invoices/hodl', body))['payment_request'])
  }

  async isHeld(paymentHash: Uint8Array): Promise<boolean> {
    return (await this.call(`/v1/invoice/${Buffer.from(paymentHash).toString('hex')}`))['state'] === 'ACCEPTED'
  }

  async settle(preimage: Uint8Array): Promise<void> {
    await this.call('/v2/invoices/settle', { preimage: Buffer.from(preimage).toString('base64') })
  }

  async cancel(paymentHash: Uint8Array): Promise<void> {
    await this.call('/v2/invoices/cancel', { payment_hash: Buffer.from(paymentHash).toString('base64') })
  }

  async pay(request: string): Promise<void> {
    const answer = await this.call('/v1/channels/transactions', { payment_request: request })
    if (answer['payment_error'] !== '') throw new Error(String(answer['payment_error']))
  }

  async stop(): Promise<void> {
    if (this.#child !== undefined) await endProcess(this.#child)
    this.#child = undefined
  }
}

export interface Lightning {
  /** Behind a mint. */
  readonly ours: Lnd
  /** Somebody else's. */
  readonly other: Lnd
  stop(): Promise<void>
}

/** Both nodes with a channel whose sats lie half on each side. */
export async function startLightning(bin: string, dir: string): Promise<Lightning> {
  const chain = new Btcd(bin, join(dir, 'btcd'))
  const [ours, other] = [new Lnd(bin, join(dir, 'ours'), chain), new Lnd(bin, join(dir, 'other'), chain)]
  const stop = async () => {
    await Promise.all([ours.stop(), other.stop()])
    await chain.stop()
  }
  try {
    await chain.start()
    await ours.start()
    const { address } = await ours.call('/v1/newaddress')
    // Whom a block pays is said at the start of btcd.
    await chain.start(String(address))
    // The first coins ripen after 100 blocks, segwit begins after three periods of 144.
    await chain.rpc('generate', 440)
    await other.start()
    await openChannel(chain, ours, other)
    return { ours, other, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function openChannel(chain: Btcd, from: Lnd, to: Lnd): Promise<void> {
  await until('the funds of lnd', async () => {
    const { synced_to_chain: isSynced } = await from.call('/v1/getinfo')
    const { confirmed_balance: sats } = await from.call('/v1/balance/blockchain')
    return isSynced === true && Number(sats) > CHANNEL_SATS ? true : undefined
  })
  const { identity_pubkey: pubkey } = await until('lnd on its chain', async () => {
    const info = await to.call('/v1/getinfo')
    return info['synced_to_chain'] === true ? info : undefined
  })
  // It answers before it has begun to speak with others.
  await until('a peer', () => from.call('/v1/peers', { addr: { pubkey, host: to.peerAddress } }))
  const nodePubkey = Buffer.from(String(pubkey), 'hex').toString('base64')
  const amounts = { local_funding_amount: String(CHANNEL_SATS), push_sat: String(CHANNEL_SATS / 2) }
  await until('an opened channel', () => from.call('/v1/channels', { node_pubkey: nodePubkey, ...amounts }))
  await chain.rpc('generate', 6)
  for (const node of [from, to]) {
    await until('an active channel', async () => {
      const { channels } = (await node.call('/v1/channels?active_only=true')) as { channels?: unknown[] }
      return channels !== undefined && channels.length > 0 ? true : undefined
    })
  }
}
