/** Parts of a whole in order: each is built after those that it names, and ended before them. */
import type { Logger } from '../base/logger.ts'
import type { RunningWork, Scope } from '../base/scope.ts'
import { Part, type PartSpec } from './part.ts'

type Needs = Readonly<Record<string, Part<unknown>>>

export class PartList {
  readonly #scope: Scope
  readonly #logger: Logger
  readonly #list: Part<unknown>[] = []

  /** @param deps its scope owns all that runs */
  constructor({ scope, logger }: { readonly scope: Scope; readonly logger: Logger }) {
    this.#scope = scope
    this.#logger = logger
  }

  protected part<T, N extends Needs = Record<never, never>, W extends Needs = Record<never, never>>(spec: PartSpec<T, N, W>): Part<T> {
    const part = new Part(spec)
    this.#list.push(part)
    return part
  }

  /** Each in turn; one that can't be built leaves its reason, and those that need it give it on. */
  build(): void {
    for (const part of this.#list) part.build(this.#logger, this.#scope)
  }

  /** @returns when each runs or has failed */
  protected async startAllBut(first: Part<unknown>): Promise<void> {
    await Promise.all(this.#list.filter((part) => part !== first).map((part) => part.start(this.#logger)))
  }

  async reload(): Promise<void> {
    await Promise.all(this.#list.map((part) => part.reload(this.#logger)))
  }

  /** What no other part uses any more ends first, all of it at the same time. @returns what was late */
  async close(drainMs: number): Promise<RunningWork[]> {
    const late: RunningWork[] = []
    for (let open = this.#list; open.length > 0; ) {
      const used = new Set(open.flatMap((part) => part.uses))
      const free = open.filter((part) => !used.has(part))
      for (const works of await Promise.all(free.map((part) => part.stop(this.#logger, drainMs)))) late.push(...works)
      open = open.filter((part) => used.has(part))
    }
    return late
  }
}
