/** The node behind the tools: the first of its homes that answers, and that one from then on. Play money never becomes real in the middle of a talk. */
import { isPylonError, PylonError } from '../base/errors.ts'
import { type Answer, type CallOptions, callRoute, type Input, type Output, type Route } from '../control/client.ts'

export class NodeClient {
  #sockets: readonly string[]
  readonly #howToStart: string

  /** @param sockets in the order in which they are tried */
  constructor(sockets: readonly string[], howToStart: string) {
    this.#sockets = sockets
    this.#howToStart = howToStart
  }

  /** @throws not_running with how to start it, and what the node answers */
  async call<R extends Route>(route: R, input: Input<R>, options: CallOptions = {}): Promise<Answer<Output<R>>> {
    for (const socket of this.#sockets) {
      try {
        const answer = await callRoute(socket, route, input, options)
        this.#sockets = [socket]
        return answer
      } catch (error) {
        if (isPylonError(error, 'not_running')) continue
        this.#sockets = [socket]
        throw error
      }
    }
    throw new PylonError('not_running', `Pylon is not running, so nothing was done; the owner starts it with: ${this.#howToStart}`)
  }
}
