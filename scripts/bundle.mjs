// Bundles the program to <outdir>/*.cjs and lays the assets it reads beside it. The same files run in development, in the
// tests and inside the packaged executable.
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, transform } from 'esbuild'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** Files that run as a worker thread: each a bundle of its own, found as `<name>.cjs` beside main. */
const WORKERS = { 'crypto-worker': 'src/wallet/ecash/crypto-worker.ts', 'inspection-worker': 'src/store/inspection-worker.ts' }

/** Of better-sqlite3, in its folder. */
export const ADDON = `prebuilds/${process.platform}-${process.arch}.node`

const TARGET = { platform: 'node', target: 'node22', logLevel: 'warning' }

/** zod's messages in fifty languages, of which we use one. */
const oneLanguage = {
  name: 'one-language',
  setup: ({ onLoad }) =>
    onLoad({ filter: /zod\/v4\/locales\/index\.js$/ }, () => ({ contents: "export { default as en } from './en.js'", loader: 'js' })),
}

/** yargs measures the text of its help with this; made at every start, it would be a tenth of a command. */
const lateSegmenter = {
  name: 'late-segmenter',
  setup: ({ onLoad }) =>
    onLoad({ filter: /string-width\/index\.js$/ }, ({ path }) => ({
      contents: readFileSync(path, 'utf8').replace('new Intl.Segmenter()', '{ segment: (text) => new Intl.Segmenter().segment(text) }'),
    })),
}

/** @throws an Error of one line; esbuild has then printed what is wrong where. */
export async function bundle(outdir) {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const common = {
    ...TARGET,
    absWorkingDir: root,
    outdir,
    bundle: true,
    format: 'esm',
    outExtension: { '.js': '.cjs' },
    // A native addon can't be bundled; it is laid beside, so that the folder stands alone: a guest sees nothing else.
    external: ['better-sqlite3'],
    // tiny-secp256k1 reads its wasm beside import.meta.url, which CommonJS lacks.
    // A library that only looks whether there is a WebSocket makes Node load all of its fetch, which nothing of ours uses.
    define: { PYLON_VERSION: JSON.stringify(version), 'import.meta.url': '__pylonModuleUrl', WebSocket: 'undefined' },
    plugins: [oneLanguage, lateSegmenter],
    keepNames: true,
    sourcemap: 'inline',
    sourcesContent: false,
    write: false,
  }
  try {
    // What is imported dynamically becomes a file of its own: `pylon status` reads no part of the daemon.
    const main = await build({ ...common, entryPoints: { pylon: 'src/main.ts' }, splitting: true })
    const workers = await build({ ...common, entryPoints: WORKERS })
    mkdirSync(outdir, { recursive: true })
    const files = [...main.outputFiles, ...workers.outputFiles]
    await Promise.all(files.map(({ path, text }) => writeCommonJs(outdir, basename(path), text)))
  } catch (error) {
    throw new Error(error.message.split('\n')[0].replace(/:$/, ''))
  }
  cpSync(join(root, 'migrations'), join(outdir, 'migrations'), { recursive: true })
  cpSync(join(root, 'src/guest/guest.sh'), join(outdir, 'guest.sh'))
  cpSync(join(root, 'node_modules/tiny-secp256k1/lib/secp256k1.wasm'), join(outdir, 'secp256k1.wasm'))
  writeFileSync(join(outdir, 'package.json'), '{"type":"commonjs"}\n')
  layAddon(outdir)
}

/** Of better-sqlite3 only its code and the addon of this platform. */
function layAddon(outdir) {
  const from = join(root, 'node_modules/better-sqlite3')
  for (const part of ['package.json', 'LICENSE', 'lib', ADDON])
    cpSync(join(from, part), join(outdir, 'node_modules/better-sqlite3', part), { recursive: true })
}

/** esbuild splits modules only, and the executable loads CommonJS only. */
async function writeCommonJs(outdir, name, module) {
  const { code, map } = await transform(module, {
    ...TARGET,
    format: 'cjs',
    supported: { 'dynamic-import': false },
    banner: "const __pylonModuleUrl = require('node:url').pathToFileURL(__filename).href;",
    // Beside the bundle: inside it the map would double what every start has to read.
    sourcemap: 'external',
    sourcesContent: false,
  })
  writeFileSync(join(outdir, name), `${code}//# sourceMappingURL=${name}.map\n`)
  writeFileSync(join(outdir, `${name}.map`), map)
}
