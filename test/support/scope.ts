/** A scope for one test: a failure of what runs under it fails the test. */
import { type Clock, systemClock } from '../../src/base/clock.ts'
import { systemRandom } from '../../src/base/random.ts'
import { Scope } from '../../src/base/scope.ts'

export function testScope(clock: Clock = systemClock): Scope {
  return Scope.root('test', { clock, random: systemRandom }, ({ path, error }) => {
    throw new Error(`${path} failed`, { cause: error })
  })
}
