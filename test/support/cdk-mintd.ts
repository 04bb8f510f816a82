/** A real cdk-mintd for a test: a process of its own over a folder of its own, with invoices that pay themselves. */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { newWords } from '../../src/nostr/keys/mnemonic.ts'
import { endProcess, freePort, startMintProcess } from './mint-process.ts'
import type { MintPeer } from './mint-suite.ts'

const root = new URL('../..', import.meta.url).pathname

/** Where it is, or the reason why it is not. */
export function findCdkMintd(): { readonly program: string } | { readonly missing: string } {
  const setup = spawnSync('sh', [join(root, 'test', 'live', 'setup-cdk.sh')], { encoding: 'utf8', timeout: 20_000 })
  if (setup.status !== 0) return { missing: (setup.stderr || setup.error?.message || 'test/live/setup-cdk.sh failed').trim().slice(-500) }
  return { program: setup.stdout.trim() }
}

export async function startCdkMintd(program: string, dir: string): Promise<MintPeer> {
  const port = await freePort()
  const mintUrl = `http://127.0.0.1:${port}`
  const env = { PATH: process.env['PATH'] ?? '', HOME: dir, MINT_WORDS: newWords() }
  const file = join(dir, 'cdk.toml')
  const configure = (inputFeePpk: number, ...how: readonly string[]) => {
    writeFileSync(file, documentOf({ mintUrl, port, inputFeePpk }))
    const args = ['--work-dir', dir, 'config', ...how, '--file', file]
    const said = spawnSync(program, args, { cwd: dir, env, encoding: 'utf8', timeout: 60_000 })
    if (said.status !== 0) throw new Error(`cdk-mintd took no configuration: ${said.stdout}${said.stderr}`)
  }
  const start = () => startMintProcess({ name: 'cdk-mintd', command: program, args: ['--work-dir', dir], dir, env, port })
  configure(100, 'init', '--new-mint')
  let child = await start()
  return {
    mintUrl,
    stop: () => endProcess(child),
    // Another fee is another keyset, from the next start on.
    async rotate(inputFeePpk) {
      await endProcess(child)
      configure(inputFeePpk, 'apply')
      child = await start()
    },
  }
}

const documentOf = ({ mintUrl, port, inputFeePpk }: { mintUrl: string; port: number; inputFeePpk: number }): string => `
[info]
url = "${mintUrl}"
listen_host = "127.0.0.1"
listen_port = ${port}
mnemonic = "env:MINT_WORDS"
input_fee_ppk = ${inputFeePpk}

[database]
engine = "sqlite"

[payment_backend]
backend = "fakewallet"

[fake_wallet]
fee_percent = 0.02
reserve_fee_min = 1
custom_payment_methods = []
min_delay_time = 0
max_delay_time = 0
`
