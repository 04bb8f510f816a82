/** The runtimes of this node, each an actor: registers and finds them. */

import type { Scope } from '../../base/scope.ts'
import type { RuntimeState } from '../../base/states.ts'
import { runtimesIn } from '../../store/selling/runtimes.ts'
import { RuntimeActor } from './runtime-actor.ts'
import { afterRestart, isServing, LIVING_STATES } from './runtime-life.ts'
import type { RuntimeDeps } from './runtime-record.ts'

/** How often those that are over are let go, and those that nobody asked for yet get their actor. */
const REGISTER_MS = 1000
const NOT_GONE: readonly RuntimeState[] = ['requested', ...LIVING_STATES]

export class Runtimes {
  readonly #scope: Scope
  readonly #deps: RuntimeDeps
  readonly #actors = new Map<string, RuntimeActor>()

  constructor(scope: Scope, deps: RuntimeDeps) {
    this.#scope = scope
    this.#deps = deps
  }

  /** @throws shutting_down */
  of(id: string): RuntimeActor {
    const known = this.#actors.get(id)
    if (known !== undefined) return known
    const actor = new RuntimeActor(id, this.#scope.child(id), this.#deps)
    this.#actors.set(id, actor)
    return actor
  }

  /** Somebody brings it from state to state. */
  isBrought(id: string): boolean {
    return this.#actors.get(id)?.isBrought ?? false
  }

  /** Takes up what a restart left. @param withCommand ids of runtimes whose command goes on by itself */
  start(withCommand: ReadonlySet<string>): void {
    for (const row of runtimesIn(this.#deps.store, NOT_GONE)) {
      const actor = this.of(row.id)
      if (isServing(row)) this.#scope.spawn(`door of ${row.id}`, () => actor.openDoor())
      // Its command, or who asked for it meanwhile, brings it further; but not out.
      if (row.state !== 'teardown' && (withCommand.has(row.id) || actor.isBrought)) continue
      const due = afterRestart(row)
      if (due === 'bring') this.#scope.spawn(`bring ${row.id}`, () => actor.bring())
      if (due === 'tear down') this.#scope.spawn(`tear down ${row.id}`, () => actor.goOnTearingDown())
    }
    this.#scope.every('register', REGISTER_MS, () => this.#register())
  }

  /** All at once: what takes long inside one holds up no other. */
  async close(drainMs: number): Promise<readonly { readonly path: string }[]> {
    const late = await Promise.all([...this.#actors.values()].map((actor) => actor.close(drainMs)))
    return [...late.flat(), ...(await this.#scope.close())]
  }

  #register(): void {
    for (const row of runtimesIn(this.#deps.store, NOT_GONE)) this.of(row.id)
    for (const actor of this.#actors.values()) {
      if (!actor.isOver) continue
      this.#actors.delete(actor.id)
      this.#scope.spawn(`end ${actor.id}`, () => actor.close())
    }
  }
}
