// Shows that the tests see the mistakes of mutants.mjs: each is made in a copy of the tree, and the tests named with it must fail.
//   npm run mutants [-- PART-OF-A-NAME...]
// First the same tests must pass without any mistake. Exit code 1: one survived, or an anchor is not there once.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MUTANTS } from './mutants.mjs'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.ts'))
  .map((path) => ({ path: join('src', path), text: readFileSync(join(root, 'src', path), 'utf8') }))

/** The one file that holds the anchor. */
function placeOf(anchor) {
  const places = sources.flatMap((source) => Array.from({ length: source.text.split(anchor).length - 1 }, () => source))
  return places.length === 1 ? places[0] : `stands ${places.length} times in src`
}

const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs')
const words = process.argv.slice(2)
const chosen = MUTANTS.filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)))
const lost = chosen.filter(({ anchor }) => typeof placeOf(anchor) === 'string')
for (const { name, anchor } of lost) console.log(`LOST      ${name}: ${JSON.stringify(anchor)} ${placeOf(anchor)}`)
const copy = mkdtempSync(join(tmpdir(), 'pylon-mutants-'))
try {
  if (chosen.length === 0 || lost.length > 0 || !play()) process.exitCode = 1
} finally {
  rmSync(copy, { recursive: true, force: true })
}

/** @returns whether all were noticed */
function play() {
  for (const part of ['src', 'test', 'migrations', 'package.json', 'tsconfig.json', 'vitest.config.ts']) {
    cpSync(join(root, part), join(copy, part), { recursive: true })
  }
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  const sound = run([...new Set(chosen.flatMap(({ tests }) => tests))])
  if (sound.status !== 0) {
    console.log(`The tests fail without a mistake:\n${sound.stdout}${sound.stderr}`)
    return false
  }
  let killed = 0
  for (const { name, anchor, replacement, tests } of chosen) {
    const { path, text } = placeOf(anchor)
    const started = Date.now()
    writeFileSync(
      join(copy, path),
      text.replace(anchor, () => replacement),
    )
    const isKilled = run(tests).status !== 0
    writeFileSync(join(copy, path), text)
    if (isKilled) killed++
    console.log(`${isKilled ? 'killed  ' : 'SURVIVED'}  ${name} (${path}, ${((Date.now() - started) / 1000).toFixed(1)} s)`)
  }
  console.log(`${killed} of ${chosen.length} killed`)
  return killed === chosen.length
}

function run(tests) {
  return spawnSync(process.execPath, [vitest, 'run', '--bail', '1', ...tests], { cwd: copy, encoding: 'utf8' })
}
