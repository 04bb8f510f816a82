/** The substrate of simulations keeps what every other one promises. */
import { systemClock } from '../../src/base/clock.ts'
import { seededRandom } from '../../src/base/random.ts'
import { Substrate } from '../simulation/substrate.ts'
import { runtimeAdapterContract } from './runtime-adapter.ts'

runtimeAdapterContract('of the simulation', { protocols: ['pi'], oneShot: false, volumes: false }, async () => {
  const substrate = new Substrate(systemClock, seededRandom(1))
  return { adapter: substrate.adapterOf({ isAlive: true }), restarted: () => substrate.adapterOf({ isAlive: true }) }
})
