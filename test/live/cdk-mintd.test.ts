/** The wallet against a mint that nobody here wrote: cdk-mintd, with input fees, and a keyset rotation by a restart. */
import { describe } from 'vitest'
import { findCdkMintd, startCdkMintd } from '../support/cdk-mintd.ts'
import { mintSuite } from '../support/mint-suite.ts'

const found = findCdkMintd()

describe.skipIf('missing' in found)(`a real cdk-mintd${'missing' in found ? ` (skipped: ${found.missing})` : ''}`, () => {
  mintSuite((dir) => startCdkMintd('program' in found ? found.program : '', dir))
})
