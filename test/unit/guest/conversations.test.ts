/** A turn of an agent in a guest that is killed after any of its commits: the whole answer is said once, with its end. */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { News } from '../../../src/base/news.ts'
import { AgentSeat } from '../../../src/guest/agents/seat.ts'
import { Conversations, type ConversationsDeps } from '../../../src/guest/session/conversations.ts'
import { TurnLog } from '../../../src/guest/session/turn-log.ts'
import { decodeEnvelope } from '../../../src/session/envelope.ts'
import type { SessionMessage } from '../../../src/session/types.ts'
import { all } from '../../../src/store/commands.ts'
import type { Store } from '../../../src/store/store.ts'
import { fastClock } from '../../support/fast-clock.ts'
import { testScope } from '../../support/scope.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'

const OWNER = '11'.repeat(32)
const GROUP = '22'.repeat(32)
const PROMPT: SessionMessage = {
  ...{ id: '33'.repeat(32), seq: 1, groupId: GROUP, sender: OWNER, isOwn: false, kind: 9, content: 'say all', tags: [] },
  ...{ createdAt: 1_700_000_000, state: 'new', reason: null },
}

class Killed extends Error {}

/** What of a conversation is on disk. */
interface Disk {
  readonly store: Store
  readonly said: string[]
  isHandled: boolean
}

/** One life of a guest, which may commit so often. @returns whether it dealt with the prompt */
async function live(disk: Disk, commits: number): Promise<boolean> {
  const scope = testScope(fastClock(50), () => true)
  let left = commits
  const commit = () => {
    if (left-- <= 0) throw new Killed()
  }
  const typeOf = (content: string) => String(decodeEnvelope(content)?.body.type)
  let hear: (message: SessionMessage) => Promise<void> = async () => undefined
  const sessions: ConversationsDeps['sessions'] = {
    news: new News(scope),
    messages: () => [],
    onMessage: (handler) => {
      hear = handler
    },
    send: async (_groupId, { content }) => {
      commit()
      disk.said.push(typeOf(content))
      return PROMPT
    },
    answer: async (_message, said, _key, ...more) => {
      commit()
      disk.said.push(...said.map(({ content }) => typeOf(content)))
      disk.isHandled = true
      await disk.store.write(all(...more))
    },
  }
  const seat = new AgentSeat()
  seat.take({
    start: async () => undefined,
    prompt: async (_session, _text, _signal, options) => {
      options?.onEvent?.({ type: 'tool_call', callId: 't', name: 'look', input: {} })
      options?.onEvent?.({ type: 'text', text: 'all' })
      return { reply: 'all', stopReason: 'end_turn', events: [] }
    },
  })
  const log = new TurnLog(disk.store, scope.clock)
  new Conversations({ scope, sessions, seat, log, protocol: 'pi', owner: OWNER, onOwner: async () => undefined }).start()
  try {
    await hear(PROMPT)
    return true
  } catch (error) {
    expect(error).toBeInstanceOf(Killed)
    return false
  } finally {
    await scope.close()
  }
}

test('killed after any commit of a turn, an agent says the whole of its answer once, and its end with it', async () => {
  for (let commits = 0, isOver = false; !isOver; commits++) {
    const disk: Disk = { store: openStore(join(tempDir(), 'guest.db')), said: [], isHandled: false }
    isOver = await live(disk, commits)
    if (!disk.isHandled) expect(await live(disk, 100)).toBe(true)
    expect(
      disk.said.filter((type) => type === 'assistant_text'),
      `after ${commits} commits: ${disk.said.join(', ')}`,
    ).toHaveLength(1)
    expect(disk.said.slice(-2)).toEqual(['assistant_text', 'done'])
    disk.store.close()
    expect(commits).toBeLessThan(10)
  }
})
