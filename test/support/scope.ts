/** A scope for one test: a failure of what runs under it fails the test, unless the test says that its world is gone. */
import { type Clock, systemClock } from '../../src/base/clock.ts'
import { systemRandom } from '../../src/base/random.ts'
import { Scope } from '../../src/base/scope.ts'

export function testScope(clock: Clock = systemClock, isGone: () => boolean = () => false): Scope {
  return Scope.root('test', { clock, random: systemRandom }, ({ path, error }) => {
    if (!isGone()) throw new Error(`${path} failed`, { cause: error })
  })
}
