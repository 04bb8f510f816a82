/** What the recording fake of Incus is held to, on a real incusd that this test starts. */
import { afterAll, beforeAll, describe } from 'vitest'
import { buildImage } from '../../src/runtime/incus/image.ts'
import { importImage } from '../../src/runtime/incus/images.ts'
import { setUpIncus } from '../../src/runtime/incus/setup.ts'
import { incusServerContract } from '../contract/incus-server.ts'
import { ensureIncus, type IncusDaemon, startIncusDaemon } from '../support/incus-daemon.ts'

const missing = ensureIncus()

describe.skipIf(missing !== undefined)(`a real Incus${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  let daemon: IncusDaemon

  beforeAll(async () => {
    daemon = await startIncusDaemon()
    daemon.cli('storage', 'create', 'pylon', 'btrfs', 'size=1GiB')
    const incus = daemon.client('pylon')
    await setUpIncus(incus, { pool: 'pylon', profile: 'default', hostPaths: [] })
    await importImage(incus, 'pylon/busybox', await buildImage('busybox'))
  }, 280_000)

  afterAll(() => daemon?.destroy(), 120_000)

  incusServerContract(async () => ({ incus: daemon.client('pylon'), pool: 'pylon', image: 'pylon/busybox' }))
})
