/** A real nutshell mint for a test: a process of its own over a folder of its own, with invoices that pay themselves, or over a real lnd. */
import { type ChildProcess, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import type { Lnd } from './lnd.ts'
import { endProcess, freePort, startMintProcess } from './mint-process.ts'
import type { MintPeer } from './mint-suite.ts'

const root = new URL('../..', import.meta.url).pathname
const venv = join(root, '.toolchain', 'nutshell')

/** Installs nutshell where that can be done; the reason where it can't, undefined where it is there. */
export function ensureNutshell(): string | undefined {
  const script = join(root, 'test', 'live', 'setup-nutshell.sh')
  const setup = spawnSync('sh', [script, venv], { encoding: 'utf8', timeout: 280_000 })
  if (setup.status !== 0) return (setup.stderr || setup.error?.message || 'test/live/setup-nutshell.sh failed').trim().slice(-500)
  return undefined
}

const PAYS_ITSELF = {
  MINT_BACKEND_BOLT11_SAT: 'FakeWallet',
  ...{ FAKEWALLET_BRR: 'TRUE', FAKEWALLET_DELAY_INCOMING_PAYMENT: '0.1', FAKEWALLET_DELAY_OUTGOING_PAYMENT: '0' },
}

/** Lightning of a mint by a real node. */
const throughLnd = (lnd: Lnd) => ({
  ...{ MINT_BACKEND_BOLT11_SAT: 'LndRestWallet', MINT_LND_ENABLE_MPP: 'TRUE', MINT_LND_REST_ENDPOINT: lnd.restUrl },
  ...{ MINT_LND_REST_CERT: lnd.certFile, MINT_LND_REST_MACAROON: lnd.macaroonFile },
})

export async function startNutshell(dir: string, lnd?: Lnd): Promise<MintPeer> {
  const [port, rpcPort] = [await freePort(), await freePort()]
  const child = await start(dir, port, rpcPort, lnd === undefined ? PAYS_ITSELF : throughLnd(lnd))
  return {
    mintUrl: `http://127.0.0.1:${port}`,
    stop: () => endProcess(child),
    rotate(inputFeePpk) {
      const code = 'from cashu.mint.management_rpc.cli.cli import cli; cli()'
      const where = ['--host', '127.0.0.1', '--port', String(rpcPort), '--insecure']
      const env = { PATH: process.env['PATH'] ?? '', HOME: dir, CASHU_DIR: dir }
      const args = ['-c', code, ...where, 'next-keyset', 'sat', String(inputFeePpk)]
      const said = spawnSync(join(venv, 'bin', 'python'), args, { cwd: dir, env, encoding: 'utf8', timeout: 60_000 })
      if (!said.stdout.includes('New keyset')) throw new Error(`nutshell did not rotate: ${said.stdout}${said.stderr}`)
    },
  }
}

async function start(dir: string, port: number, rpcPort: number, lightning: Readonly<Record<string, string>>): Promise<ChildProcess> {
  const env = {
    ...{ PATH: process.env['PATH'] ?? '', HOME: dir, CASHU_DIR: dir, TOR: 'FALSE' },
    ...{ MINT_PRIVATE_KEY: 'a key for tests', MINT_DATABASE: join(dir, 'mint'), MINT_RATE_LIMIT: 'FALSE' },
    ...{ ...lightning, MINT_INPUT_FEE_PPK: '100' },
    ...{ MINT_RPC_SERVER_ENABLE: 'TRUE', MINT_RPC_SERVER_PORT: String(rpcPort), MINT_RPC_SERVER_MUTUAL_TLS: 'FALSE' },
    MINT_QUOTE_BACKEND_CHECK_RATE_LIMIT: '0',
  }
  const code = 'from cashu.mint.main import main; main()'
  const args = ['-c', code, '--host', '127.0.0.1', '--port', String(port)]
  return startMintProcess({ name: 'nutshell', command: join(venv, 'bin', 'python'), args, dir, env, port })
}
