/** A conversation that mdk 0.8 wrote (test/fixtures/marmot/mdk-0.8), played by ts-mls in the place of who was invited. */
import { readFileSync } from 'node:fs'
import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import * as nip44 from 'nostr-tools/nip44'
import type { Event } from 'nostr-tools/pure'
import {
  type ClientState,
  decode,
  defaultCryptoProvider,
  getCiphersuiteImpl,
  joinGroup,
  keyPackageDecoder,
  mlsExporter,
  mlsMessageDecoder,
  processMessage,
  unsafeTestingAuthenticationService,
} from 'ts-mls'
import { expect, test } from 'vitest'
import { removesUs } from '../../../src/session/mls/rules.ts'
import { isSelfRemove, readSelfRemove } from '../../../src/session/mls/self-remove.ts'

interface Person {
  readonly nostr_secret: string
  readonly pubkey: string
  readonly key_package?: {
    readonly event: Event
    readonly secrets: Readonly<Record<'init_private' | 'encryption_private' | 'signature_private', string>>
  }
}

interface Conversation {
  readonly people: Readonly<Record<string, Person>>
  readonly epochs: readonly { readonly epoch: number; readonly authenticator: string; readonly group_event: string }[]
  readonly steps: readonly { readonly by: string; readonly what: string; readonly content?: string; readonly event: Event }[]
}

const conversation: Conversation = JSON.parse(
  readFileSync(new URL('../../fixtures/marmot/mdk-0.8/conversation.json', import.meta.url), 'utf8'),
)
const cipherSuite = await getCiphersuiteImpl('MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519', defaultCryptoProvider)
const context = { cipherSuite, authService: unsafeTestingAuthenticationService }
const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'))
const base64 = (text: string) => Uint8Array.from(Buffer.from(text, 'base64'))
const toHex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

/** The welcome in a gift wrap, joined. */
async function joined({ nostr_secret, key_package }: Person, wrap: Event): Promise<ClientState> {
  const open = (from: string, content: string) => JSON.parse(nip44.decrypt(content, nip44.getConversationKey(hex(nostr_secret), from)))
  const seal = open(wrap.pubkey, wrap.content)
  const rumor: Event = open(seal.pubkey, seal.content)
  expect(rumor.kind).toBe(444)
  expect(rumor.tags).toContainEqual(['e', key_package?.event.id])
  const message = decode(mlsMessageDecoder, base64(rumor.content))
  const keyPackage = decode(keyPackageDecoder, base64(key_package?.event.content ?? ''))
  if (!(message && 'welcome' in message && keyPackage && key_package)) throw new Error('no welcome')
  const { init_private, encryption_private, signature_private } = key_package.secrets
  const privateKeys = {
    initPrivateKey: hex(init_private),
    hpkePrivateKey: hex(encryption_private),
    signaturePrivateKey: hex(signature_private),
  }
  return joinGroup({ context, welcome: message.welcome, keyPackage, privateKeys })
}

/** The MLSMessage in a 445. */
async function opened(state: ClientState, { content }: Event): Promise<Uint8Array> {
  const key = await mlsExporter(state.keySchedule.exporterSecret, 'marmot', new TextEncoder().encode('group-event'), 32, cipherSuite)
  const expected = conversation.epochs.find(({ epoch }) => BigInt(epoch) === state.groupContext.epoch)
  expect(toHex(key)).toBe(expected?.group_event)
  const sealed = base64(content)
  return chacha20poly1305(key, sealed.subarray(0, 12)).decrypt(sealed.subarray(12))
}

/** What somebody reads from their welcome on, until the end or until `last`. */
async function played(name: string, last: (step: Conversation['steps'][number]) => boolean = () => false) {
  const person = conversation.people[name]
  if (!person) throw new Error(`nobody is called ${name}`)
  let state: ClientState | undefined
  let isRemoved = false
  const read: string[] = []
  for (const step of conversation.steps) {
    if (isRemoved || (state && last(step))) break
    if (step.what === 'welcome') {
      if (step.event.tags.some(([, pubkey]) => pubkey === person.pubkey)) state = await joined(person, step.event)
      continue
    }
    if (!state) continue
    const bytes = await opened(state, step.event)
    if (isSelfRemove(bytes)) {
      state = (await readSelfRemove(bytes, state, cipherSuite)).newState
      continue
    }
    const message = decode(mlsMessageDecoder, bytes)
    if (!(message && 'privateMessage' in message)) throw new Error('no private message')
    const before = state
    const result = await processMessage({
      context,
      state,
      message,
      callback: (incoming) => {
        isRemoved = incoming.kind === 'commit' && removesUs(before, incoming.proposals)
        return isRemoved ? 'reject' : 'accept'
      },
    })
    state = result.newState
    if (result.kind === 'applicationMessage') read.push(JSON.parse(new TextDecoder().decode(result.message)).content)
  }
  if (!state) throw new Error(`${name} was not welcomed`)
  return { read, isRemoved, epoch: Number(state.groupContext.epoch), authenticator: toHex(state.keySchedule.epochAuthenticator) }
}

const said = (from: number) => conversation.steps.flatMap(({ content }, index) => (index >= from && content !== undefined ? [content] : []))
const authenticatorOf = (wanted: number) => conversation.epochs.find(({ epoch }) => epoch === wanted)?.authenticator

test('who was there from the first epoch reads all and ends where mdk ended: updates, additions, a new name, a leaving, a removal', async () => {
  const { read, ...end } = await played('bea')
  expect(read).toEqual(said(0))
  expect(end).toEqual({ isRemoved: false, epoch: 8, authenticator: authenticatorOf(8) })
})

test('who came later, by a key package of the old kind, reads from there on', async () => {
  const { read, epoch, authenticator } = await played('cleo', ({ by, what }) => by === 'cleo' && what === 'self_update')
  expect(read).toEqual(['I am new'])
  expect(authenticator).toBe(authenticatorOf(epoch))
})

test('who is removed notices it and goes no further', async () => {
  expect(await played('dora')).toMatchObject({ read: ['I came by 30443'], isRemoved: true, epoch: 7 })
})
