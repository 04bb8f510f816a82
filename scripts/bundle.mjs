// Bundles main and each worker to <outdir>/*.cjs and lays the assets they read beside them. The same files run in
// development, in the tests and inside the packaged executable.
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** Bundle name to source: main, and every file that runs as a worker thread (found as `<name>.cjs` beside main). */
const ENTRY_POINTS = {
  pylon: 'src/main.ts',
  'crypto-worker': 'src/wallet/crypto-worker.ts',
  'verify-worker': 'src/nostr/verify-worker.ts',
}

/** @throws an Error of one line; esbuild has then printed what is wrong where. */
export async function bundle(outdir) {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const entries = Object.entries(ENTRY_POINTS).map(([name, source]) => [name, join(root, source)])
  await build({
    entryPoints: Object.fromEntries(entries.filter(([, source]) => existsSync(source))),
    outdir,
    outExtension: { '.js': '.cjs' },
    bundle: true,
    platform: 'node',
    target: 'node22',
    format: 'cjs',
    // A native addon can't be bundled; it is loaded from node_modules, or as an asset of the executable.
    external: ['better-sqlite3'],
    // tiny-secp256k1 reads its wasm beside import.meta.url, which CommonJS lacks.
    define: { PYLON_VERSION: JSON.stringify(version), 'import.meta.url': '__pylonModuleUrl' },
    banner: { js: "const __pylonModuleUrl = require('node:url').pathToFileURL(__filename).href;" },
    keepNames: true,
    // Beside the bundle: inside it the map would double what every start has to read.
    sourcemap: 'linked',
    sourcesContent: false,
    logLevel: 'warning',
  }).catch((error) => {
    throw new Error(error.message.split('\n')[0].replace(/:$/, ''))
  })
  cpSync(join(root, 'migrations'), join(outdir, 'migrations'), { recursive: true })
  cpSync(join(root, 'src/guest/guest.sh'), join(outdir, 'guest.sh'))
  cpSync(join(root, 'node_modules/tiny-secp256k1/lib/secp256k1.wasm'), join(outdir, 'secp256k1.wasm'))
  writeFileSync(join(outdir, 'package.json'), '{"type":"commonjs"}\n')
}
