/** Mints named at the start come on the list when they answer: whoever needs one of them before that waits for the first try at it. */
import type { Scope } from '../../base/scope.ts'

/** As long as a slow mint may take, and less than a caller waits. */
const PATIENCE_MS = 10_000

export class FirstLook {
  readonly #scope: Scope
  readonly #open: Set<string>
  readonly #isListed: (url?: string) => boolean
  readonly #looks = new Set<() => void>()

  /** @param expected none of them tried yet. @param isListed this mint, or any */
  constructor(scope: Scope, expected: readonly string[], isListed: (url?: string) => boolean) {
    this.#scope = scope
    this.#isListed = isListed
    this.#open = new Set(expected)
  }

  /** A try at this mint has ended, well or not. */
  ended(url: string): void {
    this.#open.delete(url)
    for (const look of this.#looks) look()
  }

  /** Resolves when this mint (or any) is listed, was tried once (or all were), was never expected, or takes too long. */
  async over(url?: string): Promise<void> {
    const isOver = () => this.#isListed(url) || (url === undefined ? this.#open.size === 0 : !this.#open.has(url))
    if (isOver()) return
    await new Promise<void>((resolve) => {
      const end = () => {
        cancel()
        this.#looks.delete(look)
        closing.removeEventListener('abort', end)
        resolve()
      }
      const look = () => {
        if (isOver()) end()
      }
      const { closing } = this.#scope
      const cancel = this.#scope.clock.after(PATIENCE_MS, end)
      closing.addEventListener('abort', end, { once: true })
      this.#looks.add(look)
    })
  }
}
