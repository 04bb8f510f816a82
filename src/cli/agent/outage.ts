/** While a turn is waited for: whether the machine of the agent went down, told once each way. */
import { isPylonError, PylonError } from '../../base/errors.ts'
import type { Output } from '../../control/client.ts'
import { managedRoutes } from '../../control/contract/managed.ts'
import { runtimesRoutes } from '../../control/contract/runtimes.ts'
import { callNode } from '../command.ts'
import { fieldsOf, textOf } from '../runtime/runtime-call.ts'
import { plain } from '../terminal/output.ts'

type Managed = Output<typeof managedRoutes.getManaged>

const LOOK_S = 5

/** As far as a look tells. */
interface Sight {
  readonly state: string
  readonly reason: string
  readonly cause: string
  readonly updatedAt: string
}

export class OutageWatch {
  readonly #name: string
  readonly #look: () => Promise<Sight | undefined>
  readonly #tell: (words: string) => void
  #first: Sight | undefined
  #isAway = false

  /** @param look undefined where there is no machine, or nobody says how it is */
  constructor(name: string, look: () => Promise<Sight | undefined>, tell: (words: string) => void) {
    this.#name = name
    this.#look = look
    this.#tell = tell
  }

  /** To be called whenever nothing was heard for a while. @throws conflict for an agent whose machine is gone for good */
  async look(): Promise<void> {
    const sight = await this.#look()
    if (sight === undefined) return
    const before = this.#first
    this.#first ??= sight
    const { state, reason, cause } = sight
    if (state === 'failed' || state === 'teardown' || state === 'gone') {
      const words = `The machine of ${this.#name} is gone (${reason}): it does not answer any more. To see more: pylon agent show ${this.#name}`
      throw new PylonError('conflict', words)
    }
    if (state !== 'ready')
      return this.#away(cause === 'network' ? 'cannot be reached; it is looked for again' : 'has stopped; it is being started again')
    if (this.#isAway) this.#tell(`${this.#name} is back`)
    // It was away between two looks.
    else if (before !== undefined && before.reason !== reason && before.updatedAt !== sight.updatedAt)
      this.#tell(`${this.#name} had stopped and was started again`)
    this.#isAway = false
    this.#first = sight
  }

  #away(words: string): void {
    if (!this.#isAway) this.#tell(`${this.#name} ${words}`)
    this.#isAway = true
  }
}

export function sightOf(runtime: Readonly<Record<string, unknown>>): Sight {
  const fields = fieldsOf(runtime['metadata'])
  const { state, state_reason, updated_at, outage } = fields
  return { state: textOf(state), reason: textOf(state_reason), cause: textOf(fieldsOf(outage)['cause']), updatedAt: textOf(updated_at) }
}

/** Of an agent that runs in a runtime; of another it sees nothing. */
export function watchOutage(args: { readonly sandbox: boolean }, name: string): OutageWatch {
  let managed: Managed | 'none' | undefined
  const look = async (): Promise<Sight | undefined> => {
    managed ??= await found(args, name)
    if (managed === 'none' || managed.runtime_id === null) return undefined
    try {
      const { server, runtime_id } = managed
      const request = { server, command: { command: 'get_runtime', runtime_id }, timeout_s: LOOK_S }
      return sightOf((await callNode(args, runtimesRoutes.askRuntime, request)).value.runtime)
    } catch (error) {
      if (!isPylonError(error)) throw error
      // Its node does not say: whoever waits goes on to.
      return undefined
    }
  }
  return new OutageWatch(name, look, (words) => process.stderr.write(`(${plain(words)})\n`))
}

async function found(args: { readonly sandbox: boolean }, name: string): Promise<Managed | 'none'> {
  try {
    return (await callNode(args, managedRoutes.getManaged, { name })).value
  } catch (error) {
    if (isPylonError(error)) return 'none'
    throw error
  }
}
