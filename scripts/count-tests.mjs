// Adds up vitest JSON reports: what failed, by name and first words, then the one line that CI closes with: `N passed, N
// failed, N skipped`. A report that is missing (its run broke before the end) counts nothing here; the exit code of that step tells.
import { readFileSync } from 'node:fs'

const total = { passed: 0, failed: 0, skipped: 0 }
for (const path of process.argv.slice(2)) {
  let report
  try {
    report = JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    continue
  }
  total.passed += report.numPassedTests
  total.failed += report.numFailedTests
  total.skipped += report.numPendingTests + report.numTodoTests
  for (const { name, message, assertionResults } of report.testResults) {
    const file = name.slice(name.lastIndexOf('/test/') + 1)
    const failed = assertionResults.filter(({ status }) => status === 'failed')
    for (const { fullName, failureMessages } of failed) tell(`${file} > ${fullName}`, failureMessages.join('\n'))
    if (failed.length === 0 && message) tell(file, message)
  }
}
process.stdout.write(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`)

function tell(name, words) {
  process.stdout.write(`FAILED ${name}\n${words.slice(0, 1500).replace(/^/gm, '  ')}\n`)
}
