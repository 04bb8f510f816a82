/** Which conversation of an agent is which of ours, by the agent's own name for it; kept in a file where there is one. */
import { z } from 'zod'
import { readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import { parseJson } from '../../base/json.ts'

/** Conversations kept at once; the one that was quiet the longest is forgotten. */
const MAX_CONVERSATIONS = 64

const book = z.array(z.tuple([z.string(), z.string()]))

export class ConversationBook {
  readonly #path: string | undefined
  /** The last used at the end. */
  readonly #names: Map<string, string>

  /** @param path of a private file; without one it is forgotten with the process */
  constructor(path?: string) {
    this.#path = path
    const parsed = book.safeParse(parseJson(path === undefined ? '' : (readFileIfAny(path) ?? '')))
    this.#names = new Map(parsed.success ? parsed.data : [])
  }

  get(session: string): string | undefined {
    return this.#names.get(session)
  }

  /** Notes it as the one that was used last. */
  note(session: string, name: string): void {
    const isNews = this.#names.get(session) !== name
    this.#names.delete(session)
    this.#names.set(session, name)
    const [oldest] = this.#names.keys()
    if (this.#names.size > MAX_CONVERSATIONS && oldest !== undefined) this.#names.delete(oldest)
    if (isNews && this.#path !== undefined) writeFileAtomic(this.#path, JSON.stringify([...this.#names]))
  }
}
