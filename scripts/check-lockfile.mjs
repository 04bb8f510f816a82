// package-lock.json is good for every platform and every registry: each optional dependency that some package names has
// an entry (npm leaves out those that its registry did not carry for another platform, and then refuses `npm ci` and
// never installs them there), and no entry names a download address. `--write` repairs both.
import { readFileSync, writeFileSync } from 'node:fs'

const SYSTEMS = ['aix', 'android', 'darwin', 'freebsd', 'linux', 'netbsd', 'openbsd', 'openharmony', 'sunos', 'win32']
const PROCESSORS = ['arm', 'arm64', 'ia32', 'loong64', 'mips64el', 'ppc64', 'riscv64', 's390x', 'wasm32', 'x64']

const path = new URL('../package-lock.json', import.meta.url)
const lock = JSON.parse(readFileSync(path, 'utf8'))
const problems = []

for (const [parent, entry] of Object.entries(lock.packages)) {
  if (entry.resolved) {
    problems.push(`${parent} names a download address`)
    delete entry.resolved
  }
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const key = `node_modules/${name}`
    if (lock.packages[key] || lock.packages[`${parent}/${key}`]) continue
    problems.push(`${key} has no entry`)
    lock.packages[key] = { version, ...platformOf(name), ...(entry.dev ? { dev: true } : {}), optional: true }
  }
}

if (problems.length > 0 && process.argv.includes('--write')) {
  const [top, ...rest] = Object.entries(lock.packages)
  lock.packages = Object.fromEntries([top, ...rest.sort(([a], [b]) => a.localeCompare(b, 'en'))])
  writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`)
} else if (problems.length > 0) {
  process.stdout.write(`package-lock.json (repair it with: npm run fix)\n${problems.map((problem) => `  ${problem}\n`).join('')}`)
  process.exitCode = 1
}

/** The platform fields of a prebuilt package, from its name (`@scope/tool-linux-x64-musl`). */
function platformOf(name) {
  const words = name.split(/[-/]/)
  const os = words.filter((word) => SYSTEMS.includes(word))
  const cpu = words.filter((word) => PROCESSORS.includes(word))
  const isMusl = words.some((word) => word.startsWith('musl'))
  const libc = os.includes('linux') ? [isMusl ? 'musl' : 'glibc'] : []
  return Object.fromEntries(Object.entries({ cpu, libc, os }).filter(([, values]) => values.length > 0))
}
