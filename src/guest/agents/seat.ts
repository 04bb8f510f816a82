/** The place of the agent: who wants to speak to it finds it here, or waits until it is there. */
import type { Scope } from '../../base/scope.ts'
import type { Agent } from './agent.ts'

export class AgentSeat {
  readonly #waiting = new Set<(agent: Agent) => void>()
  #agent: Agent | undefined

  /** The agent now, or undefined while it starts again. */
  get agent(): Agent | undefined {
    return this.#agent
  }

  take(agent: Agent): void {
    this.#agent = agent
    for (const tell of [...this.#waiting]) tell(agent)
  }

  leave(): void {
    this.#agent = undefined
  }

  /** @returns undefined when `ms` were over first @throws shutting_down */
  async wait(scope: Scope, ms: number): Promise<Agent | undefined> {
    if (this.#agent !== undefined) return this.#agent
    return await scope.hear<Agent>(ms, (tell) => {
      this.#waiting.add(tell)
      return () => this.#waiting.delete(tell)
    })
  }
}
