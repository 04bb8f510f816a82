// Bundles main and each worker to dist/*.cjs and lays the assets they read beside them. The same files run in
// development, in the tests and inside the packaged executable.
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const dist = join(root, 'dist')
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

rmSync(dist, { recursive: true, force: true })
mkdirSync(dist, { recursive: true })

await build({
  entryPoints: {
    pylon: join(root, 'src/main.ts'),
    'crypto-worker': join(root, 'src/wallet/crypto-worker.ts'),
  },
  outdir: dist,
  outExtension: { '.js': '.cjs' },
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'cjs',
  external: ['better-sqlite3'],
  define: { PYLON_VERSION: JSON.stringify(version), 'import.meta.url': '__pylonModuleUrl' },
  banner: { js: "const __pylonModuleUrl = require('node:url').pathToFileURL(__filename).href;" },
  keepNames: true,
  sourcemap: 'inline',
  sourcesContent: false,
  logLevel: 'warning',
})
cpSync(join(root, 'migrations'), join(dist, 'migrations'), { recursive: true })
cpSync(join(root, 'node_modules/tiny-secp256k1/lib/secp256k1.wasm'), join(dist, 'secp256k1.wasm'))
writeFileSync(join(dist, 'package.json'), '{"type":"commonjs"}\n')
