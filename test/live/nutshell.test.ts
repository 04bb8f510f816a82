/** The wallet against a mint that nobody here wrote: nutshell, with input fees and a keyset rotation. */
import { describe } from 'vitest'
import { mintSuite } from '../support/mint-suite.ts'
import { ensureNutshell, startNutshell } from '../support/nutshell.ts'

const missing = ensureNutshell()

describe.skipIf(missing !== undefined)(`a real nutshell mint${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  mintSuite(startNutshell)
})
