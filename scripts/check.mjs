// The static checks, side by side: format and lint (with the layer table), types, dead code, and every
// scripts/check-*.mjs. Prints what fails and exits 1 if anything does.
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const scripts = dirname(fileURLToPath(import.meta.url))
const own = readdirSync(scripts).filter((name) => /^check-.+\.mjs$/.test(name))
const CHECKS = [
  ['format and lint', 'biome', ['ci', '.']],
  ['types', 'tsc', ['-p', '.']],
  ['dead code', 'knip', ['--no-progress']],
  ...own.map((name) => [name, process.execPath, [join(scripts, name)]]),
]

const results = await Promise.all(CHECKS.map(run))
for (const { name, isOk, output, seconds } of results) {
  if (!isOk) process.stdout.write(`\n${output.trimEnd()}\n\n`)
  process.stdout.write(`${isOk ? 'ok    ' : 'FAILED'} ${name} (${seconds} s)\n`)
}
process.exitCode = results.every(({ isOk }) => isOk) ? 0 : 1

function run([name, command, args]) {
  return new Promise((resolve) => {
    const startedAt = performance.now()
    const finish = (isOk, output) => resolve({ name, isOk, output, seconds: ((performance.now() - startedAt) / 1000).toFixed(1) })
    const child = spawn(command, args, { cwd: dirname(scripts), stdio: ['ignore', 'pipe', 'pipe'] })
    const chunks = []
    child.stdout.on('data', (chunk) => chunks.push(chunk))
    child.stderr.on('data', (chunk) => chunks.push(chunk))
    child.on('error', (error) => finish(false, `${command} could not run: ${error.message}`))
    child.on('close', (code) => finish(code === 0, Buffer.concat(chunks).toString()))
  })
}
