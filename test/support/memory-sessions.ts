/** Sessions of two keys without cryptography or relays: what one says, the other has at once, in order. */
import { News } from '../../src/base/news.ts'
import type { Scope } from '../../src/base/scope.ts'
import type { Sessions } from '../../src/session/sessions.ts'
import type { Group, Said, SessionMessage } from '../../src/session/types.ts'
import { all, type Command } from '../../src/store/commands.ts'
import type { Store } from '../../src/store/store.ts'

export type MemorySessions = Pick<
  Sessions,
  'answer' | 'create' | 'group' | 'groups' | 'groupWith' | 'messages' | 'newest' | 'news' | 'onMessage' | 'send' | 'start'
>

const GROUP = 'ab'.repeat(32)

export class MemoryTalk {
  readonly #ends = new Map<string, { readonly news: News; handler: ((message: SessionMessage) => Promise<void>) | undefined }>()
  readonly #said: { readonly key: string; readonly by: string; readonly message: SessionMessage }[] = []
  readonly #nowS: () => number

  constructor(nowS: () => number) {
    this.#nowS = nowS
  }

  /** One end of the conversation. @param store where what is written beside a message goes */
  of(pubkey: string, scope: Scope, store: Store): MemorySessions {
    const end = { news: new News(scope), handler: undefined as ((message: SessionMessage) => Promise<void>) | undefined }
    this.#ends.set(pubkey, end)
    const members = () => [...this.#ends.keys()]
    const group = (): Group => ({
      ...{ id: GROUP, mlsId: 'cd', name: 'Chat', members: members(), admins: [], relays: [], epoch: 1, state: 'active', createdAt: 0 },
    })
    const messages = () => this.#said.map(({ by, message }) => ({ ...message, isOwn: by === pubkey }))
    const after = (seq: number, limit: number) =>
      messages()
        .filter((message) => message.seq > seq)
        .slice(0, limit)
    return {
      news: end.news,
      start: () => undefined,
      group: (id) => (id === GROUP ? group() : undefined),
      groups: () => [group()],
      groupWith: () => group(),
      create: async () => ({ group: group(), welcomes: [] }),
      send: (_id, said, key) => this.#say(pubkey, said, key),
      answer: async (_message, said, key, ...more: Command<unknown>[]) => {
        await store.write(all(...more))
        for (const [i, one] of said.entries()) await this.#say(pubkey, one, i === said.length - 1 ? key : `${key}:${i}`)
      },
      messages: (_id, page) => after(page.after ?? 0, page.limit),
      newest: (_id, limit) => messages().slice(-limit),
      onMessage: (handler) => {
        end.handler = handler
      },
    }
  }

  async #say(by: string, { content, kind = 9, tags = [] }: Said, key: string): Promise<SessionMessage> {
    const known = this.#said.find((said) => said.key === key && said.by === by)
    if (known !== undefined) return { ...known.message, isOwn: true }
    const seq = this.#said.length + 1
    const message: SessionMessage = {
      ...{ id: seq.toString(16).padStart(64, '0'), seq, groupId: GROUP, sender: by, isOwn: false, kind, content, tags },
      ...{ createdAt: this.#nowS(), state: 'sent', reason: null },
    }
    this.#said.push({ key, by, message })
    for (const [pubkey, end] of this.#ends) {
      if (pubkey !== by) await end.handler?.(message)
      end.news.tell(GROUP)
    }
    return { ...message, isOwn: true }
  }
}
