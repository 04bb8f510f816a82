/** A real nutshell mint for a test: a process of its own over a folder of its own, with invoices that pay themselves. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'

const root = new URL('../..', import.meta.url).pathname
const venv = join(root, '.toolchain', 'nutshell')

/** Installs nutshell where that can be done; the reason where it can't, undefined where it is there. */
export function ensureNutshell(): string | undefined {
  const script = join(root, 'test', 'live', 'setup-nutshell.sh')
  const setup = spawnSync('sh', [script, venv], { encoding: 'utf8', timeout: 280_000 })
  if (setup.status !== 0) return (setup.stderr || setup.error?.message || 'test/live/setup-nutshell.sh failed').trim().slice(-500)
  return undefined
}

export interface Nutshell {
  readonly mintUrl: string
  stop(): Promise<void>
  /** The keyset signs no more, another one does, at this fee. */
  rotate(inputFeePpk: number): void
}

export async function startNutshell(dir: string): Promise<Nutshell> {
  const [port, rpcPort] = [await freePort(), await freePort()]
  const child = await start(dir, port, rpcPort)
  return {
    mintUrl: `http://127.0.0.1:${port}`,
    stop: () => end(child),
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

async function start(dir: string, port: number, rpcPort: number): Promise<ChildProcess> {
  const log = join(dir, 'nutshell.log')
  const out = openSync(log, 'a')
  const env = {
    ...{ PATH: process.env['PATH'] ?? '', HOME: dir, CASHU_DIR: dir, TOR: 'FALSE' },
    ...{ MINT_PRIVATE_KEY: 'a key for tests', MINT_DATABASE: join(dir, 'mint'), MINT_RATE_LIMIT: 'FALSE' },
    ...{ MINT_BACKEND_BOLT11_SAT: 'FakeWallet', MINT_INPUT_FEE_PPK: '100' },
    ...{ FAKEWALLET_BRR: 'TRUE', FAKEWALLET_DELAY_INCOMING_PAYMENT: '0.1', FAKEWALLET_DELAY_OUTGOING_PAYMENT: '0' },
    ...{ MINT_RPC_SERVER_ENABLE: 'TRUE', MINT_RPC_SERVER_PORT: String(rpcPort), MINT_RPC_SERVER_MUTUAL_TLS: 'FALSE' },
    MINT_QUOTE_BACKEND_CHECK_RATE_LIMIT: '0',
  }
  const code = 'from cashu.mint.main import main; main()'
  const args = ['-c', code, '--host', '127.0.0.1', '--port', String(port)]
  const child = spawn(join(venv, 'bin', 'python'), args, { cwd: dir, env, stdio: ['ignore', out, out] })
  closeSync(out)
  for (let i = 0; i < 300 && child.exitCode === null; i++) {
    const isUp = await fetch(`http://127.0.0.1:${port}/v1/info`).then(
      (response) => response.ok,
      () => false,
    )
    if (isUp) return child
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  child.kill('SIGKILL')
  throw new Error(`nutshell did not start:\n${readFileSync(log, 'utf8').slice(-3000)}`)
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
  await ended
  clearTimeout(timer)
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
}
