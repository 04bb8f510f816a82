// Adds up vitest JSON reports: with --slowest N the files that took longest; what failed, by name and first words; then the one line that
// CI closes with: `N passed, N failed, N skipped`. A report that is missing (its run broke before the end) counts nothing here; the
// exit code of that step tells.
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

const { values, positionals } = parseArgs({ options: { slowest: { type: 'string', default: '0' } }, allowPositionals: true })
const total = { passed: 0, failed: 0, skipped: 0 }
const files = []
for (const path of positionals) {
  let report
  try {
    report = JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    continue
  }
  total.passed += report.numPassedTests
  total.failed += report.numFailedTests
  total.skipped += report.numPendingTests + report.numTodoTests
  for (const { name, message, assertionResults, startTime, endTime } of report.testResults) {
    const file = name.slice(name.lastIndexOf('/test/') + 1)
    files.push({ file, seconds: (endTime - startTime) / 1000, tests: assertionResults.length })
    const failed = assertionResults.filter(({ status }) => status === 'failed')
    for (const { fullName, failureMessages } of failed) tell(`${file} > ${fullName}`, failureMessages.join('\n'))
    if (failed.length === 0 && message) tell(file, message)
  }
}
const slowest = files.toSorted((a, b) => b.seconds - a.seconds).slice(0, Number(values.slowest))
if (slowest.length > 0) process.stdout.write(`Slowest of ${files.length} files\n`)
for (const { file, seconds, tests } of slowest) process.stdout.write(`${seconds.toFixed(1).padStart(8)} s  ${file} (${tests})\n`)
process.stdout.write(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`)

function tell(name, words) {
  process.stdout.write(`FAILED ${name}\n${words.slice(0, 1500).replace(/^/gm, '  ')}\n`)
}
