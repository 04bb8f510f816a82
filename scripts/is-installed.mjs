// Exits 0 when node_modules is what package-lock.json says. npm writes node_modules/.package-lock.json last, so a
// broken-off install has none; packages for other platforms are optional and may be absent.
import { readFileSync } from 'node:fs'

const read = (path) => JSON.parse(readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')).packages

function isInstalled() {
  const locked = read('package-lock.json')
  const installed = read('node_modules/.package-lock.json')
  const isSame = (path) => installed[path]?.version === locked[path]?.version && installed[path]?.integrity === locked[path]?.integrity
  const wanted = Object.keys(locked).filter((path) => path !== '' && (installed[path] || !locked[path].optional))
  return wanted.every(isSame) && Object.keys(installed).every((path) => locked[path])
}

try {
  process.exitCode = isInstalled() ? 0 : 1
} catch {
  process.exitCode = 1
}
