/** What is added to ts-mls: commits with a path, and leaving by self_remove. */
import {
  type ClientState,
  createCommit,
  createGroup,
  defaultCapabilities,
  defaultLifetime,
  encode,
  generateKeyPackage,
  getCiphersuiteImpl,
  joinGroup,
  type MlsFramedMessage,
  makeCustomExtension,
  mlsMessageEncoder,
  nobleCryptoProvider,
  type Proposal,
  processMessage,
  unsafeTestingAuthenticationService,
} from 'ts-mls'
import { describe, expect, test } from 'vitest'
import { makeCommit } from '../../../src/session/mls/commit.ts'
import { removesUs } from '../../../src/session/mls/rules.ts'
import { createSelfRemove, isSelfRemove, readSelfRemove, SELF_REMOVE } from '../../../src/session/mls/self-remove.ts'

const cipherSuite = await getCiphersuiteImpl('MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519', nobleCryptoProvider)
const context = { cipherSuite, authService: unsafeTestingAuthenticationService }

type Order = { state: ClientState; proposals: Proposal[]; signatureKeys?: { signKey: Uint8Array; publicKey: Uint8Array } }

/** By value what is given, by reference what was proposed. */
async function createPathCommit({ state, proposals, signatureKeys }: Order) {
  const keys = signatureKeys === undefined ? {} : { newSignatureKeys: signatureKeys }
  const made = await makeCommit(context, state, { proposals, references: Object.keys(state.unappliedProposals), ...keys })
  return { commit: made.message, newState: made.after }
}

const add = (publicPackage: Awaited<ReturnType<typeof person>>['publicPackage']): Proposal => ({
  proposalType: 1,
  add: { keyPackage: publicPackage },
})
const remove = (removed: number): Proposal => ({ proposalType: 3, remove: { removed } })

async function person(n: number) {
  const capabilities = { ...defaultCapabilities(), extensions: [SELF_REMOVE, 0xf2ee], proposals: [SELF_REMOVE] }
  const credential = { credentialType: 1, identity: new Uint8Array(32).fill(n) } as const
  return generateKeyPackage({ credential, capabilities, lifetime: defaultLifetime(), extensions: [], cipherSuite })
}

/** A group of so many; member 0 made it. */
async function groupOf(size: number): Promise<ClientState[]> {
  const [first, ...others] = await Promise.all(Array.from({ length: size }, (_, n) => person(n)))
  if (!first) throw new Error('nobody')
  const state = await createGroup({
    context,
    groupId: new Uint8Array(16),
    keyPackage: first.publicPackage,
    privateKeyPackage: first.privatePackage,
  })
  const { newState, welcome } = await createCommit({
    context,
    state,
    ratchetTreeExtension: true,
    extraProposals: others.map(({ publicPackage }) => add(publicPackage)),
  })
  if (!welcome) return [newState]
  const joined = others.map(({ publicPackage, privatePackage }) =>
    joinGroup({ context, welcome: welcome.welcome, keyPackage: publicPackage, privateKeys: privatePackage }),
  )
  return [newState, ...(await Promise.all(joined))]
}

const hear = async (state: ClientState, message: MlsFramedMessage) => (await processMessage({ context, state, message })).newState
const authenticator = ({ keySchedule }: ClientState) => Buffer.from(keySchedule.epochAuthenticator).toString('hex')
const at = <T>(list: readonly T[], index: number): T => {
  const item = list[index]
  if (item === undefined) throw new Error(`nothing at ${index}`)
  return item
}

describe('a commit with a path', () => {
  test.each<[string, number, Proposal[]]>([
    ['a removal', 3, [remove(2)]],
    ['a removal in the middle', 5, [remove(2)]],
    [
      'a change of extensions',
      3,
      [
        {
          proposalType: 7,
          groupContextExtensions: { extensions: [makeCustomExtension({ extensionType: 0xf2ee, extensionData: new Uint8Array(3) })] },
        },
      ],
    ],
    ['nothing but new keys', 4, []],
  ])('is followed by all who stay: %s', async (_, size, proposals) => {
    const members = await groupOf(size)
    const { commit, newState } = await createPathCommit({ state: at(members, 1), proposals })
    const staying = proposals.some(({ proposalType }) => proposalType === 3) ? members.filter((_, n) => n !== 2) : members
    for (const member of staying.filter((one) => one !== members[1]))
      expect(authenticator(await hear(member, commit))).toBe(authenticator(newState))
  })

  test('is more than zeroes to who was removed and left one alone', async () => {
    const [ada, bea] = await groupOf(2)
    if (!ada || !bea) throw new Error('nobody')
    const one = await createPathCommit({ state: ada, proposals: [remove(1)] })
    const other = await createPathCommit({ state: ada, proposals: [remove(1)] })
    expect(authenticator(one.newState)).not.toBe(authenticator(other.newState))
    const { publicPackage, privatePackage } = await person(9)
    const readded = await createCommit({ context, state: one.newState, ratchetTreeExtension: true, extraProposals: [add(publicPackage)] })
    if (!readded.welcome) throw new Error('no welcome')
    const joined = await joinGroup({ context, welcome: readded.welcome.welcome, keyPackage: publicPackage, privateKeys: privatePackage })
    expect(authenticator(joined)).toBe(authenticator(readded.newState))
  })

  test('changes the signature key, and both sign on with the right ones', async () => {
    const [ada, bea] = await groupOf(2)
    if (!ada || !bea) throw new Error('nobody')
    const signatureKeys = await cipherSuite.signature.keygen()
    const first = await createPathCommit({ state: ada, proposals: [], signatureKeys })
    const heard = await hear(bea, first.commit)
    const second = await createPathCommit({ state: first.newState, proposals: [] })
    expect(authenticator(await hear(heard, second.commit))).toBe(authenticator(second.newState))
  })
})

describe('self_remove', () => {
  test('is told, committed by somebody, and followed; who leaves is not asked to apply it', async () => {
    const [ada, bea, cleo] = await groupOf(3)
    if (!ada || !bea || !cleo) throw new Error('nobody')
    const leaving = await createSelfRemove(cleo, cipherSuite)
    expect(isSelfRemove(leaving.message)).toBe(true)
    const told = await readSelfRemove(leaving.message, ada, cipherSuite)
    expect(told.leafIndex).toBe(2)
    const { commit, newState } = await createPathCommit({ state: told.newState, proposals: [] })
    const { newState: beaTold } = await readSelfRemove(leaving.message, bea, cipherSuite)
    expect(authenticator(await hear(beaTold, commit))).toBe(authenticator(newState))
    let removed = false
    await processMessage({
      context,
      state: leaving.newState,
      message: commit,
      callback: (incoming) => {
        removed = incoming.kind === 'commit' && removesUs(leaving.newState, incoming.proposals)
        return removed ? 'reject' : 'accept'
      },
    })
    expect(removed).toBe(true)
  })

  test('is refused in words where it is not what it says', async () => {
    const [ada, bea] = await groupOf(3)
    if (!ada || !bea) throw new Error('nobody')
    const { message } = await createSelfRemove(bea, cipherSuite)
    const changed = (offsetFromEnd: number) => message.map((byte, n) => (n === message.length - offsetFromEnd ? byte ^ 1 : byte))
    await expect(readSelfRemove(changed(1), ada, cipherSuite)).rejects.toThrow('membership tag')
    await expect(readSelfRemove(changed(40), ada, cipherSuite)).rejects.toThrow('membership tag')
    await expect(readSelfRemove(message.slice(0, -1), ada, cipherSuite)).rejects.toThrow('no self_remove')
    const later = (await createPathCommit({ state: ada, proposals: [] })).newState
    await expect(readSelfRemove(message, later, cipherSuite)).rejects.toThrow('of epoch 1, while the group is in 2')
    const { commit } = await createPathCommit({ state: ada, proposals: [] })
    expect(isSelfRemove(encode(mlsMessageEncoder, commit))).toBe(false)
  })
})
