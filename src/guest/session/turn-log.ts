/** What a guest remembers of turns across its lives: how often each was begun, and which keys were answered. */
import type { Clock } from '../../base/clock.ts'
import type { Command } from '../../store/commands.ts'
import { getSetting, putSetting } from '../../store/settings.ts'
import type { Store } from '../../store/store.ts'

const MAX_ANSWERED = 500
const MAX_BEGUN = 200
const BEGUN = 'guest:turns_begun'
const ANSWERED = 'guest:turns_answered'

export class TurnLog {
  readonly #store: Store
  readonly #clock: Clock
  readonly #begun: Map<string, number>
  readonly #answered: Set<string>

  constructor(store: Store, clock: Clock) {
    this.#store = store
    this.#clock = clock
    this.#begun = new Map(getSetting<[string, number][]>(store, BEGUN) ?? [])
    this.#answered = new Set(getSetting<string[]>(store, ANSWERED) ?? [])
  }

  /** @returns how often it was begun by now */
  async begin(messageId: string): Promise<number> {
    const times = (this.#begun.get(messageId) ?? 0) + 1
    this.#begun.set(messageId, times)
    dropOldest(this.#begun, MAX_BEGUN)
    await this.#store.write(this.#put(BEGUN, [...this.#begun]))
    return times
  }

  isAnswered(groupId: string, key: string): boolean {
    return this.#answered.has(`${groupId} ${key}`)
  }

  /** For the commit that ends the turn. */
  end({ id, groupId }: { readonly id: string; readonly groupId: string }, key: string): readonly Command<unknown>[] {
    this.#begun.delete(id)
    this.#answered.add(`${groupId} ${key}`)
    dropOldest(this.#answered, MAX_ANSWERED)
    return [this.#put(BEGUN, [...this.#begun]), this.#put(ANSWERED, [...this.#answered])]
  }

  #put(key: string, value: unknown): Command<void> {
    return putSetting({ key, value, at: this.#clock.now() })
  }
}

function dropOldest(kept: Map<string, number> | Set<string>, max: number): void {
  for (const key of kept.keys()) {
    if (kept.size <= max) return
    kept.delete(key)
  }
}
