/** The cryptography gives the same in the worker thread as here, and a dead worker is an error, not a hang. */
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { createBlindSignature, createNewMintKeys, pointFromHex, serializeMintKeys } from '@cashu/cashu-ts'
import { build } from 'esbuild'
import { describe, expect, it, onTestFinished } from 'vitest'
import { runCryptoTask } from '../../../../src/wallet/ecash/crypto.ts'
import { createCrypto } from '../../../../src/wallet/ecash/crypto-pool.ts'
import { tempDir } from '../../../support/temp.ts'

const mint = createNewMintKeys(8, new Uint8Array(32).fill(7))
const keys = serializeMintKeys(mint.pubKeys)
const seed = new Uint8Array(64).fill(9)
const task = { seed, keysetId: mint.keysetId, counter: 3, amounts: [1, 2, 4] }

async function bundledWorker(): Promise<string> {
  const dir = tempDir()
  const outfile = join(dir, 'crypto-worker.cjs')
  await build({
    entryPoints: ['src/wallet/ecash/crypto-worker.ts'],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    logLevel: 'silent',
    define: { 'import.meta.url': JSON.stringify(pathToFileURL(outfile).href) },
  })
  cpSync('node_modules/tiny-secp256k1/lib/secp256k1.wasm', join(dir, 'secp256k1.wasm'))
  return outfile
}

describe('the crypto worker', () => {
  it('blinds as the main thread does, and refuses a signature without its proof', async () => {
    const crypto = createCrypto(await bundledWorker())
    onTestFinished(() => crypto.close())
    const outputs = await crypto.run('deterministic', task)
    expect(outputs).toEqual(runCryptoTask('deterministic', task))
    expect(await crypto.run('ys', { secrets: outputs.map((output) => output.secret) })).toEqual(
      runCryptoTask('ys', { secrets: outputs.map((output) => output.secret) }),
    )
    const signatures = outputs.map(({ amount, id, B_ }) => {
      const key = mint.privKeys[String(amount)] as Uint8Array
      return { amount, id, C_: createBlindSignature(pointFromHex(B_), key, id).C_.toHex(true) }
    })
    const pairs = outputs.map((output, i) => ({ output, signature: signatures[i] as (typeof signatures)[number] }))
    expect(await crypto.run('unblind', { pairs, keysets: { [task.keysetId]: keys } })).toEqual(
      outputs.map(() => ({ fault: expect.stringContaining('NUT-12') })),
    )
  })

  it('that is closed rejects what waits', async () => {
    const crypto = createCrypto(await bundledWorker())
    const waiting = crypto.run('deterministic', { ...task, amounts: new Array<number>(50).fill(1) })
    const rejected = expect(waiting).rejects.toThrow(/ended/)
    await crypto.close()
    await rejected
  })
})

describe('deterministic secrets', () => {
  it('are the same again, and others for other counters and seeds', () => {
    const secretOf = (counter: number, other = seed) =>
      runCryptoTask('deterministic', { ...task, seed: other, counter, amounts: [1] })[0]?.secret
    const first = secretOf(0)
    expect(secretOf(0)).toBe(first)
    expect(secretOf(1)).not.toBe(first)
    expect(secretOf(0, new Uint8Array(64).fill(10))).not.toBe(first)
  })
})
