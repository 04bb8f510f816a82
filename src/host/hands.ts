/** What a brain has its agent do while it still thinks, by tools: actions of the tick that thinks, under its policy and its budget. */
import { hash } from 'node:crypto'
import { PylonError } from '../base/errors.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import { getAction } from '../store/agents/actions.ts'
import { getAgent } from '../store/agents/agents.ts'
import { addAction, getTick } from '../store/agents/ticks.ts'
import { parseAction } from './actions/action.ts'
import type { Publisher } from './actions/publish.ts'
import { runAction } from './actions/run.ts'
import type { ErrandView } from './errands.ts'
import type { Observation } from './observation.ts'
import type { HostDeps } from './parts.ts'
import { viewAction } from './view.ts'

/** Of one tick, refused ones too: a brain that tries for ever fills no database. */
const MAX_ACTIONS = 50

export class HandWork {
  readonly #deps: HostDeps
  readonly #publisher: Publisher
  /** By agent: the tick that thinks now. */
  readonly #thinking = new Map<string, { readonly tickId: string; readonly observation: Observation }>()
  /** Actions of one agent one after the other. */
  readonly #turns = new KeyedQueue()

  constructor(deps: HostDeps, publisher: Publisher) {
    this.#deps = deps
    this.#publisher = publisher
  }

  /** Lets the agent act until the work ends; what had begun by then is waited for. */
  async during<T>(pubkey: string, tick: { tickId: string; observation: Observation }, work: () => Promise<T>): Promise<T> {
    this.#thinking.set(pubkey, tick)
    try {
      return await work()
    } finally {
      this.#thinking.delete(pubkey)
      await this.#turns.run(pubkey, () => Promise.resolve())
    }
  }

  /** One action of the tick that thinks, once for each key. @throws conflict when none does, action_invalid, action_refused, shutting_down */
  async act(pubkey: string, wanted: unknown, key: string): Promise<ErrandView> {
    const action = parseAction(wanted)
    return await this.#turns.run(pubkey, async () => {
      const { store, clock } = this.#deps
      const tick = this.#thinking.get(pubkey)
      const agent = getAgent(store, pubkey)
      if (tick === undefined || agent === undefined) throw new PylonError('conflict', 'The tick has ended: nothing is done any more.')
      const id = hash('sha256', `${tick.tickId}\n${key}`).slice(0, 32)
      const planned = { id, type: action.type, params: action }
      const isStored = await store.write(
        addAction({ tickId: tick.tickId, agentPubkey: pubkey, action: planned, max: MAX_ACTIONS, at: clock.now() }),
      )
      if (!isStored) throw new PylonError('action_refused', `The tick has tried ${MAX_ACTIONS} actions: no more are taken.`)
      const row = getAction(store, id)
      if (row !== undefined) await runAction({ deps: this.#deps, publisher: this.#publisher, agent, row }, tick.observation)
      const done = getAction(store, id)
      if (done === undefined) throw new PylonError('internal', 'The action is gone.')
      return { ...viewAction(done), tick_number: getTick(store, tick.tickId)?.number ?? 0 }
    })
  }
}
