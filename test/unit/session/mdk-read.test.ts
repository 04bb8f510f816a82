/** The conversation that mdk 0.8 wrote (test/fixtures/marmot/mdk-0.8), read by our own layer in the place of who was invited. */
import { readFileSync } from 'node:fs'
import { encode, privateKeyPackageEncoder } from 'ts-mls'
import { describe, expect, it } from 'vitest'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { unwrap } from '../../../src/nostr/nips/nip59.ts'
import { createVerifier } from '../../../src/nostr/reading/verify.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { epochKeysOf, epochOf, groupDataOf, joinByWelcome, type MlsState, membersOf } from '../../../src/session/mls/group.ts'
import { assertUsable } from '../../../src/session/mls/key-package.ts'
import { readBytes } from '../../../src/session/mls/messages.ts'
import { readRumor } from '../../../src/session/rumors.ts'
import { openGroupEvent } from '../../../src/session/wire/group-event.ts'
import { readKeyPackageEvent } from '../../../src/session/wire/key-package-event.ts'
import { readWelcome } from '../../../src/session/wire/welcome.ts'

interface Person {
  readonly nostr_secret: string
  readonly pubkey: string
  readonly key_package?: {
    readonly event: NostrEvent
    readonly secrets: Readonly<Record<'init_private' | 'encryption_private' | 'signature_private', string>>
  }
}

interface Step {
  readonly what: string
  readonly content?: string
  readonly rumor_id?: string
  readonly name?: string
  readonly members?: readonly string[]
  readonly event: NostrEvent
}

const fixture = new URL('../../fixtures/marmot/mdk-0.8/conversation.json', import.meta.url)
const { people, steps, epochs, nostr_group_id } = JSON.parse(readFileSync(fixture, 'utf8')) as {
  people: Record<string, Person>
  steps: Step[]
  epochs: { epoch: number; authenticator: string }[]
  nostr_group_id: string
}
const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'))

async function joined({ nostr_secret, key_package }: Person, wrap: NostrEvent): Promise<MlsState> {
  if (key_package === undefined) throw new Error('no key package')
  const rumor = await unwrap(createSigner(hex(nostr_secret)), wrap, createVerifier(), 'anybody')
  const { init_private, encryption_private, signature_private } = key_package.secrets
  const privateBytes = encode(privateKeyPackageEncoder, {
    initPrivateKey: hex(init_private),
    hpkePrivateKey: hex(encryption_private),
    signaturePrivateKey: hex(signature_private),
  })
  const publicBytes = Uint8Array.from(Buffer.from(key_package.event.content, 'base64'))
  return joinByWelcome(readWelcome(rumor), { publicBytes, privateBytes, ref: '' })
}

describe('what mdk 0.8 writes', () => {
  it.each(['bea', 'cleo', 'dora'])('the key package of %s can be used', async (name) => {
    const { pubkey, key_package } = people[name] as Person
    const event = key_package?.event as NostrEvent
    const { keyPackage } = await readKeyPackageEvent(event)
    await expect(assertUsable(keyPackage, pubkey, event.created_at + 60)).resolves.toBeUndefined()
  })

  it('is read from the welcome to the end, over additions, removals, a leave, a new name and new keys', async () => {
    const bea = people['bea'] as Person
    let state: MlsState | undefined
    const heard: string[] = []
    for (const { what, event } of steps) {
      if (what === 'welcome') {
        if (state === undefined && event.tags.some(([, pubkey]) => pubkey === bea.pubkey)) state = await joined(bea, event)
        continue
      }
      if (state === undefined) throw new Error('not welcomed')
      const opened = openGroupEvent(event, [await epochKeysOf(state)])
      const received = await readBytes(state, opened?.message ?? new Uint8Array())
      if (!('state' in received)) throw new Error(`${what}: ${JSON.stringify(received)}`)
      if (received.kind === 'application') {
        const rumor = readRumor(received.bytes, received.sender)
        heard.push(typeof rumor === 'string' ? rumor : rumor.content)
      }
      state = received.state
    }
    expect(heard).toEqual(steps.flatMap(({ content }) => content ?? []))
    const last = epochs.at(-1)
    expect(state === undefined ? 0 : epochOf(state)).toBe(last?.epoch)
    expect(Buffer.from(state?.keySchedule.epochAuthenticator ?? []).toString('hex')).toBe(last?.authenticator)
    const lastCommit = steps.findLast(({ members }) => members !== undefined)
    if (state === undefined) throw new Error('not welcomed')
    expect(groupDataOf(state)).toMatchObject({ nostrGroupId: nostr_group_id, name: lastCommit?.name })
    expect([...membersOf(state)].sort()).toEqual([...(lastCommit?.members ?? [])].sort())
  })
})
