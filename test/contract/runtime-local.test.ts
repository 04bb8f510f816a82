/** The contract of runtimes on the local substrate, enclosed by bubblewrap and bare. */
import { execFileSync } from 'node:child_process'
import { LocalAdapter } from '../../src/runtime/local/local-adapter.ts'
import { guestProgram, localRuntimes, scriptedAgent } from '../support/local-runtimes.ts'
import { testScope } from '../support/scope.ts'
import { runtimeAdapterContract } from './runtime-adapter.ts'

const abilities = { protocols: ['acp', 'pi'], oneShot: true, volumes: true } as const

for (const enclosed of bubblewrapWorks() ? [true, false] : [false]) {
  runtimeAdapterContract(enclosed ? 'local with bubblewrap' : 'local without bubblewrap', abilities, async () => {
    const options = enclosed ? {} : { bubblewrap: null }
    const { adapter, dir } = localRuntimes(options)
    return {
      adapter,
      restarted: () => new LocalAdapter({ dir, scope: testScope(), guest: guestProgram, ...options }),
      agent: (protocol) => scriptedAgent(protocol),
      mountPrefix: '$PYLON_ROOT',
    }
  })
}

function bubblewrapWorks(): boolean {
  try {
    execFileSync('bwrap', ['--unshare-user', '--ro-bind', '/', '/', 'true'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
