/** A sandbox in a process of its own, for tests that kill it: prints its URLs as one JSON line and runs until then. */
import { silentLogger } from '../../src/base/logger.ts'
import { runSandbox } from '../../src/sandbox/sandbox.ts'

const dir = process.argv[2]
if (dir === undefined) throw new Error('usage: sandbox-child DIR')
const { relayUrl, mintUrl, lnurlBaseUrl } = await runSandbox({ dir, logger: silentLogger })
process.stdout.write(`${JSON.stringify({ relayUrl, mintUrl, lnurlBaseUrl })}\n`)
