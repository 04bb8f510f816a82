/** How much of what was said is kept. */
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { parseConfig } from '../../../src/base/config.ts'
import { forgetMessages } from '../../../src/session/retention.ts'
import { all } from '../../../src/store/commands.ts'
import { insertGroup } from '../../../src/store/sessions/groups.ts'
import { insertMessage, type NewMessage, newestMessages } from '../../../src/store/sessions/messages.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'

const DAY_MS = 86_400_000
const OWNER = 'a'.repeat(64)
const ONE = '1'.repeat(64)
const TWO = '2'.repeat(64)

it('forgets messages of sessions by age and by number as the configuration says, and none that is still to be sent', async () => {
  const store = openStore(join(tempDir(), 'a.db'))
  onTestFinished(() => store.close())
  const clock = new ManualClock()
  const now = clock.now()
  const bytes = Buffer.from([1])
  const group = (id: string) =>
    insertGroup({
      group: {
        ...{ owner: OWNER, id, mlsId: id, orderKey: null, name: id, members: [], admins: [], relays: [], epoch: 1, joinedEpoch: 1 },
        ...{ state: 'active', mlsState: bytes, welcomes: [], nextSaid: 1, updateDue: false, pending: null, pendingState: null },
        ...{ unheard: null, createdAt: 1 },
      },
      epoch: { owner: OWNER, groupId: id, epoch: 1, eventKey: bytes, legacySecret: bytes, leftState: null, leftBy: null, leftAt: null },
    })
  const message = (groupId: string, id: string, at: number, state: NewMessage['state'] = 'handled') =>
    insertMessage({
      ...{
        owner: OWNER,
        groupId,
        id: `${groupId[0]} ${id}`.padEnd(64, '.'),
        sender: 'b'.repeat(64),
        isOwn: state === 'sending',
        kind: 9,
        content: id,
        tags: [],
      },
      ...{ createdAt: 1, state, reason: null, key: null, epoch: 1, at },
    })
  await store.write(
    all(
      ...[ONE, TWO].map(group),
      message(ONE, 'old', now - 3 * DAY_MS),
      message(ONE, 'old and not sent', now - 3 * DAY_MS, 'sending'),
      message(ONE, 'young', now - DAY_MS),
      message(TWO, 'first and not sent', now, 'sending'),
      ...Array.from({ length: 1002 }, (_, i) => message(TWO, String(i), now)),
    ),
  )
  const forget = async (words: string) => {
    const { retention } = parseConfig(words)
    await forgetMessages({ store, scope: { clock, isClosing: false }, owner: OWNER, groups: [ONE, TWO], retention })
    return [ONE, TWO].map((group) => newestMessages(store, OWNER, group, 2000).map(({ content }) => content))
  }
  expect((await forget('')).map(({ length }) => length)).toEqual([3, 1003])
  const [one, two = []] = await forget('[retention]\nsession_messages_days = 2\nsession_messages_per_group = 1000\n')
  expect(one).toEqual(['old and not sent', 'young'])
  expect([two.length, two[0], two[1]]).toEqual([1001, 'first and not sent', '2'])
  expect(() => parseConfig('[retention]\nsession_messages_per_group = 10\n')).toThrow('session_messages_per_group')
})
