/** The recording fake of Incus answers as the real one does: `live` runs the same suite on that. */
import { onTestFinished } from 'vitest'
import { IncusClient } from '../../src/runtime/incus/client.ts'
import { RecordingIncus } from '../support/recording-incus.ts'
import { testScope } from '../support/scope.ts'
import { tempDir } from '../support/temp.ts'
import { incusServerContract } from './incus-server.ts'

incusServerContract(async () => {
  const [server, scope] = [new RecordingIncus(tempDir()), testScope()]
  server.images.set('busybox', { 'pylon.guest': 'shell' })
  await server.listen()
  onTestFinished(async () => {
    await scope.close()
    await server.close()
  })
  return {
    incus: new IncusClient({ endpoint: { socketPath: server.socketPath }, project: 'pylon', scope }),
    pool: 'default',
    image: 'busybox',
  }
})
