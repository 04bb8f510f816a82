import { getConversationKey, v2 } from 'nostr-tools/nip44'
import { describe, expect, it } from 'vitest'
import { systemRandom } from '../../../src/base/random.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { decodeGroupData, encodeGroupData, newGroupData } from '../../../src/session/wire/group-data.ts'
import { groupOf, openGroupEvent, sealGroupEvent } from '../../../src/session/wire/group-event.ts'

const GROUP = '95f8f81ea019703630150504334f0e056b2bc0e653ccb2d8b725c89141166c4c'
const ADMIN = 'bd8ae21380a1fb8680d59643628bf702bddd74912a3037d6de9d8195b1684ead'
/** As mdk 0.8 writes it: version 2, "Agent Chat", no description, one admin, one relay, no image. */
const GROUP_DATA = `0002${GROUP}0a4167656e74204368617400${'20'}${ADMIN}151477733a2f2f3132372e302e302e313a343439363100000000`

describe('data of a group', () => {
  const data = newGroupData({ nostrGroupId: GROUP, name: 'Agent Chat', admins: [ADMIN], relays: ['ws://127.0.0.1:44961'] })

  it('is written and read as mdk does', () => {
    expect(Buffer.from(encodeGroupData(data)).toString('hex')).toBe(GROUP_DATA)
    expect(decodeGroupData(Uint8Array.from(Buffer.from(GROUP_DATA, 'hex')))).toEqual(data)
  })

  it('may be long', () => {
    const admins = Array.from({ length: 150 }, (_, n) => n.toString(16).padStart(64, '0'))
    const long = {
      ...data,
      name: 'é'.repeat(400),
      description: 'd'.repeat(9000),
      admins,
      image: [32, 32, 12, 32].map((n) => new Uint8Array(n)),
    }
    expect(decodeGroupData(encodeGroupData(long))).toEqual(long)
  })

  it.each([
    ['cut off', GROUP_DATA.slice(0, -2)],
    ['longer than it says', `${GROUP_DATA}00`],
    ['of version 0', `0000${GROUP_DATA.slice(4)}`],
    ['with a name that is no text', GROUP_DATA.replace('0a4167', '0aff67')],
    ['with half an admin', GROUP_DATA.replace(`20${ADMIN}`, `1f${ADMIN.slice(2)}`)],
    ['with a length of eight bytes', `0002${GROUP}c0`],
    ['nothing', ''],
  ])('%s is refused', (_, hex) => {
    expect(() => decodeGroupData(Uint8Array.from(Buffer.from(hex, 'hex')))).toThrow(expect.objectContaining({ code: 'session_refused' }))
  })
})

describe('a group event', () => {
  const keys = { epoch: 3, key: new Uint8Array(32).fill(7), legacySecret: new Uint8Array(32).fill(8) }
  const message = Uint8Array.from(Buffer.from('an MLS message'))

  it('is opened by the key of its epoch alone', () => {
    const event = sealGroupEvent(GROUP, keys.key, message, 1_700_000_000, systemRandom)
    expect(event).toMatchObject({
      kind: 445,
      tags: [
        ['h', GROUP],
        ['encoding', 'base64'],
      ],
    })
    expect(groupOf(event)).toBe(GROUP)
    const other = { ...keys, epoch: 4, key: new Uint8Array(32).fill(9) }
    expect(openGroupEvent(event, [other, keys])).toEqual({ epoch: 3, message })
    expect(openGroupEvent(event, [other])).toBeUndefined()
    expect(sealGroupEvent(GROUP, keys.key, message, 1_700_000_000, systemRandom).pubkey).not.toBe(event.pubkey)
  })

  it('of the form before is read, where it does not say that it is of the new one', () => {
    const signer = createSigner(Uint8Array.from(keys.legacySecret))
    const content = v2.encrypt('an MLS message', getConversationKey(keys.legacySecret, signer.pubkey))
    const event = signer.sign({ kind: 445, created_at: 1_700_000_000, tags: [['h', GROUP]], content })
    expect(openGroupEvent(event, [keys])).toEqual({ epoch: 3, message })
    expect(openGroupEvent({ ...event, tags: [...event.tags, ['encoding', 'base64']] }, [keys])).toBeUndefined()
    const changed = `${content.slice(0, -8)}AAAA${content.slice(-4)}`
    expect(openGroupEvent({ ...event, content: changed }, [keys])).toBeUndefined()
  })
})
