/** The contract of runtimes on the Incus adapter, over a server that answers as incusd was measured to. */
import { expect, onTestFinished } from 'vitest'
import { guestScript } from '../../src/runtime/guest-script.ts'
import { IncusAdapter } from '../../src/runtime/incus/incus-adapter.ts'
import { guestProgram, scriptedAgent } from '../support/local-runtimes.ts'
import { RecordingIncus } from '../support/recording-incus.ts'
import { testScope } from '../support/scope.ts'
import { tempDir } from '../support/temp.ts'
import { runtimeAdapterContract } from './runtime-adapter.ts'

function bench(image: 'full' | 'shell') {
  return async () => {
    const server = new RecordingIncus(tempDir())
    server.images.set('image', { 'pylon.guest': image })
    await server.listen()
    const scope = testScope()
    const open = () => {
      return new IncusAdapter(
        {
          endpoint: { socketPath: server.socketPath },
          project: 'pylon',
          profile: 'default',
          pool: 'default',
          nodeId: 'contract',
          images: { managed: 'image', oneShot: 'image' },
          guest: { hostDir: '/usr', command: [guestProgram.command, ...guestProgram.args], shellScript: guestScript() },
          defaults: { vcpus: 1, memoryMib: 256, rootDiskGib: 1, processes: 128 },
        },
        scope.child('adapter'),
      )
    }
    onTestFinished(async () => {
      expect(await scope.close()).toEqual([])
      await server.close()
    })
    return { adapter: open(), restarted: open, agent: (protocol: 'acp' | 'pi') => scriptedAgent(protocol), mountPrefix: '$PYLON_ROOT' }
  }
}

runtimeAdapterContract('incus, full guest', { protocols: ['acp', 'pi'], oneShot: true, volumes: true }, bench('full'))
runtimeAdapterContract('incus, shell guest', { protocols: [], oneShot: true, volumes: false }, bench('shell'))
