/** NIP-17 and NIP-59: the example of the NIP, nostr-tools as the other side, and wraps that lie. */
import { unwrapEvent } from 'nostr-tools/nip59'
import { describe, expect, it } from 'vitest'
import { seededRandom } from '../../../src/base/random.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import { buildDm04, openDm04 } from '../../../src/nostr/nips/nip04.ts'
import { parseSecret } from '../../../src/nostr/nips/nip19.ts'
import { buildDm17, unwrap } from '../../../src/nostr/nips/nip59.ts'
import { createVerifier } from '../../../src/nostr/reading/verify.ts'
import type { EventTemplate, LocalSigner, NostrEvent } from '../../../src/nostr/types.ts'
import { wrapOf } from '../../support/nostr-events.ts'
import { testSigner } from '../../support/test-signer.ts'

const NOW_S = 1_750_000_000
const verifier = createVerifier()
const [alice, bob, mallory] = [testSigner(1), testSigner(2), testSigner(3)]

/** The wrap to the receiver in the examples of NIP-17. */
const EXAMPLE: NostrEvent = {
  id: '2886780f7349afc1344047524540ee716f7bdc1b64191699855662330bf235d8',
  pubkey: '8f8a7ec43b77d25799281207e1a47f7a654755055788f7482653f9c9661c6d51',
  created_at: 1703128320,
  kind: 1059,
  tags: [['p', '918e2da906df4ccd12c8ac672d8335add131a4cf9d27ce42b3bb3625755f0788']],
  content:
    'AsqzdlMsG304G8h08bE67dhAR1gFTzTckUUyuvndZ8LrGCvwI4pgC3d6hyAK0Wo9gtkLqSr2rT2RyHlE5wRqbCOlQ8WvJEKwqwIJwT5PO3l2RxvGCHDbd1b1o40ZgIVwwLCfOWJ86I5upXe8K5AgpxYTOM1BD+SbgI5jOMA8tgpRoitJedVSvBZsmwAxXM7o7sbOON4MXHzOqOZpALpS2zgBDXSAaYAsTdEM4qqFeik+zTk3+L6NYuftGidqVluicwSGS2viYWr5OiJ1zrj1ERhYSGLpQnPKrqDaDi7R1KrHGFGyLgkJveY/45y0rv9aVIw9IWF11u53cf2CP7akACel2WvZdl1htEwFu/v9cFXD06fNVZjfx3OssKM/uHPE9XvZttQboAvP5UoK6lv9o3d+0GM4/3zP+yO3C0NExz1ZgFmbGFz703YJzM+zpKCOXaZyzPjADXp8qBBeVc5lmJqiCL4solZpxA1865yPigPAZcc9acSUlg23J1dptFK4n3Tl5HfSHP+oZ/QS/SHWbVFCtq7ZMQSRxLgEitfglTNz9P1CnpMwmW/Y4Gm5zdkv0JrdUVrn2UO9ARdHlPsW5ARgDmzaxnJypkfoHXNfxGGXWRk0sKLbz/ipnaQP/eFJv/ibNuSfqL6E4BnN/tHJSHYEaTQ/PdrA2i9laG3vJti3kAl5Ih87ct0w/tzYfp4SRPhEF1zzue9G/16eJEMzwmhQ5Ec7jJVcVGa4RltqnuF8unUu3iSRTQ+/MNNUkK6Mk+YuaJJs6Fjw6tRHuWi57SdKKv7GGkr0zlBUU2Dyo1MwpAqzsCcCTeQSv+8qt4wLf4uhU9Br7F/L0ZY9bFgh6iLDCdB+4iABXyZwT7Ufn762195hrSHcU4Okt0Zns9EeiBOFxnmpXEslYkYBpXw70GmymQfJlFOfoEp93QKCMS2DAEVeI51dJV1e+6t3pCSsQN69Vg6jUCsm1TMxSs2VX4BRbq562+VffchvW2BB4gMjsvHVUSRl8i5/ZSDlfzSPXcSGALLHBRzy+gn0oXXJ/447VHYZJDL3Ig8+QW5oFMgnWYhuwI5QSLEyflUrfSz+Pdwn/5eyjybXKJftePBD9Q+8NQ8zulU5sqvsMeIx/bBUx0fmOXsS3vjqCXW5IjkmSUV7q54GewZqTQBlcx+90xh/LSUxXex7UwZwRnifvyCbZ+zwNTHNb12chYeNjMV7kAIr3cGQv8vlOMM8ajyaZ5KVy7HpSXQjz4PGT2/nXbL5jKt8Lx0erGXsSsazkdoYDG3U',
  sig: 'a3c6ce632b145c0869423c1afaff4a6d764a9b64dedaf15f170b944ead67227518a72e455567ca1c2a0d187832cecbde7ed478395ec4c95dd3e71749ed66c480',
}

describe('NIP-17', () => {
  it('opens the example of the NIP', async () => {
    const receiver = createSigner(parseSecret('nsec12ywtkplvyq5t6twdqwwygavp5lm4fhuang89c943nf2z92eez43szvn4dt'))
    expect(verifier.verify(EXAMPLE)).toBe(true)
    expect(await unwrap(receiver, EXAMPLE, verifier)).toMatchObject({
      kind: 14,
      content: 'Hola, que tal?',
      pubkey: '44900586091b284416a0c001f677f9c49f7639a55c3f1e2ec130a8e1a7998e1b',
    })
  })

  it('is the same to the signature where a seed repeats the run, and another for another seed', async () => {
    const wrapsOf = async (seed: number) =>
      (await buildDm17(createSigner(new Uint8Array(32).fill(1), seededRandom(seed)), [bob.pubkey], 'hi', NOW_S)).wraps.map(
        ({ event }) => event,
      )
    expect(await wrapsOf(1)).toEqual(await wrapsOf(1))
    const ids = [...(await wrapsOf(1)), ...(await wrapsOf(2))].map(({ id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
  })

  it('wraps for every recipient and the author, backdated and unlinkable, one rumor', async () => {
    const { rumor, wraps } = await buildDm17(alice, [bob.pubkey], 'hi', NOW_S, { replyTo: 'a'.repeat(64), subject: 's' })
    expect(wraps.map((wrap) => wrap.recipient)).toEqual([bob.pubkey, alice.pubkey])
    for (const { recipient, event } of wraps) {
      expect(verifier.verify(event)).toBe(true)
      expect(event.created_at).toBeLessThanOrEqual(NOW_S)
      expect(event.created_at).toBeGreaterThan(NOW_S - 2 * 86_400 - 1)
      expect([alice.pubkey, bob.pubkey]).not.toContain(event.pubkey)
      expect(await unwrap(recipient === bob.pubkey ? bob : alice, event, verifier)).toEqual(rumor)
    }
    expect(rumor).toMatchObject({
      kind: 14,
      created_at: NOW_S,
      tags: [
        ['p', bob.pubkey],
        ['e', 'a'.repeat(64)],
        ['subject', 's'],
        ['salt', expect.stringMatching(/^[0-9a-f]{16}$/)],
      ],
    })
  })

  it('is opened by nostr-tools', async () => {
    const secret = new Uint8Array(32).fill(5)
    const receiver = createSigner(secret)
    const wrap = (await buildDm17(alice, [receiver.pubkey], 'to others', NOW_S)).wraps[0]?.event
    expect(unwrapEvent({ ...wrap, tags: wrap?.tags.map((tag) => [...tag]) } as Parameters<typeof unwrapEvent>[0], secret)).toMatchObject({
      content: 'to others',
      pubkey: alice.pubkey,
    })
  })
})

describe('unwrap refuses', async () => {
  const template: EventTemplate = { kind: 14, created_at: NOW_S, tags: [['p', bob.pubkey]], content: 'hi' }

  function craft(seal: (rumorJson: string) => NostrEvent, rumor: unknown, wrapper: LocalSigner = testSigner(99)): NostrEvent {
    const sealed = seal(JSON.stringify(rumor))
    return wrapper.sign({
      kind: 1059,
      created_at: NOW_S,
      tags: [['p', bob.pubkey]],
      content: wrapper.nip44Encrypt(bob.pubkey, JSON.stringify(sealed)),
    })
  }
  const sealBy =
    (signer: LocalSigner, kind = 13) =>
    (rumor: string) =>
      signer.sign({ kind, created_at: NOW_S, tags: [], content: signer.nip44Encrypt(bob.pubkey, rumor) })
  const rumor = identify(alice.pubkey, template)

  const cases: [string, NostrEvent, string][] = [
    ['a rumor of another author', craft(sealBy(mallory), rumor), 'event_invalid'],
    ['a seal of another kind', craft(sealBy(alice, 1), rumor), 'event_invalid'],
    ['a forged seal', craft((text) => ({ ...sealBy(alice)(text), sig: '0'.repeat(128) }), rumor), 'event_invalid'],
    ['a signed rumor', craft(sealBy(alice), alice.sign(template)), 'event_invalid'],
    ['a wrong rumor id', craft(sealBy(alice), { ...rumor, id: 'a'.repeat(64) }), 'event_invalid'],
    [
      'a rumor for someone else',
      craft(sealBy(alice), identify(alice.pubkey, { ...template, tags: [['p', mallory.pubkey]] })),
      'event_invalid',
    ],
    ['a rumor that is none', craft(sealBy(alice), 'text'), 'event_invalid'],
    ['a wrap for someone else', await wrapOf(alice, rumor, mallory.pubkey, NOW_S), 'decrypt_failed'],
    ['another kind', alice.sign(template), 'event_invalid'],
  ]
  it.each(cases)('%s', async (_name, wrap, code) => {
    await expect(unwrap(bob, wrap, verifier)).rejects.toMatchObject({ code })
  })

  it('nothing where only the id is left out', async () => {
    const { id, ...rest } = rumor
    expect((await unwrap(bob, craft(sealBy(alice), rest), verifier)).id).toBe(id)
  })
})

describe('kind 4', () => {
  it('is opened by both sides and nobody else', async () => {
    const event = alice.sign(await buildDm04(alice, bob.pubkey, 'old style', NOW_S))
    expect(await openDm04(bob, event)).toEqual({ from: alice.pubkey, to: bob.pubkey, text: 'old style' })
    expect((await openDm04(alice, event)).text).toBe('old style')
    await expect(openDm04(mallory, event)).rejects.toMatchObject({ code: 'event_invalid' })
  })
})

describe('the verifier', () => {
  it('remembers a signature, never an id alone', () => {
    const fresh = createVerifier()
    const event = alice.sign({ kind: 1, created_at: 1, tags: [], content: 'true' })
    expect([fresh.verify(event), fresh.verify(event)]).toEqual([true, true])
    expect(fresh.verify({ ...event, content: 'false' })).toBe(false)
    expect(fresh.verify({ ...event, sig: '0'.repeat(128) })).toBe(false)
    expect(fresh.verify({ ...event, pubkey: bob.pubkey })).toBe(false)
    expect(fresh.verify({ ...identify('f'.repeat(64), event), sig: event.sig })).toBe(false)
    expect(fresh.verify(event)).toBe(true)
  })
})
