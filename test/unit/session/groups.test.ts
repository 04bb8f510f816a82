import { describe, expect, it } from 'vitest'
import { initializeEpoch } from '../../../node_modules/ts-mls/dist/src/keySchedule.js'
import { makeCommit } from '../../../src/session/mls/commit.ts'
import { mlsContext } from '../../../src/session/mls/context.ts'
import {
  addProposal,
  decodeState,
  encodeState,
  epochKeysOf,
  epochOf,
  groupDataOf,
  groupDataProposal,
  joinByWelcome,
  membersOf,
  newSignatureKeys,
  removeProposals,
  startGroup,
} from '../../../src/session/mls/group.ts'
import { decodeKeyPackage, newKeyPackage } from '../../../src/session/mls/key-package.ts'
import { decodeMessage, encodeMessage, readMessage, writeMessage } from '../../../src/session/mls/messages.ts'
import { newGroupData } from '../../../src/session/wire/group-data.ts'

type State = Awaited<ReturnType<typeof startGroup>>

const [ada, bot, eve] = ['a1'.repeat(32), 'b2'.repeat(32), 'e3'.repeat(32)] as const
const TIMES = { notBefore: 1_700_000_000, notAfter: 1_900_000_000 }
const data = newGroupData({ nostrGroupId: '77'.repeat(32), name: 'Agent Chat', admins: [ada], relays: ['ws://127.0.0.1:1'] })

const text = (state: State, said: string) => writeMessage(state, Buffer.from(said))

async function read(state: State, bytes: Uint8Array) {
  const message = decodeMessage(bytes)
  if (message === undefined) throw new Error('no message')
  return readMessage(state, message)
}

async function group(...others: string[]): Promise<State[]> {
  const context = await mlsContext()
  const first = await startGroup(await newKeyPackage(ada, TIMES), Uint8Array.from(Buffer.alloc(16, 9)), data)
  const packages = await Promise.all(others.map((pubkey) => newKeyPackage(pubkey, TIMES)))
  const { after, welcome } = await makeCommit(context, first, {
    proposals: packages.map(({ publicBytes }) => addProposal(decodeKeyPackage(publicBytes))),
  })
  if (welcome === undefined) throw new Error('no welcome')
  return [after, ...(await Promise.all(packages.map((own) => joinByWelcome(welcome, own))))]
}

async function authenticators(states: readonly State[]): Promise<Set<string>> {
  return new Set(states.map(({ keySchedule }) => Buffer.from(keySchedule.epochAuthenticator).toString('hex')))
}

describe('an MLS group', () => {
  it('is joined by a welcome and talked in, also after its state was stored', async () => {
    const [a, b] = (await group(bot)) as [State, State]
    expect(membersOf(b)).toEqual([ada, bot])
    expect(groupDataOf(b)).toEqual(data)
    expect(Buffer.from((await epochKeysOf(a)).key)).toEqual(Buffer.from((await epochKeysOf(b)).key))
    const said = await text(decodeState(encodeState(a)), 'hello')
    const heard = await read(decodeState(encodeState(b)), said.message)
    expect(heard).toMatchObject({ kind: 'application', sender: ada, epoch: 1, generation: 0 })
    expect(heard.kind === 'application' && Buffer.from(heard.bytes).toString()).toBe('hello')
    const again = await text(said.state, 'again')
    expect(await read(b, again.message)).toMatchObject({ kind: 'application', generation: 1 })
    expect(heard.kind === 'application' && (await read(heard.state, said.message)).kind).toBe('refused')
  })

  it('goes on over a self-update with a new signature key, and reads the epoch before', async () => {
    const [a, b] = (await group(bot)) as [State, State]
    const late = await text(a, 'late')
    const commit = await makeCommit(await mlsContext(), b, { proposals: [], newSignatureKeys: await newSignatureKeys() })
    const taken = await read(late.state, encodeMessage(commit.message))
    if (taken.kind !== 'commit') throw new Error(JSON.stringify(taken))
    expect(taken.sender).toBe(bot)
    expect((await authenticators([taken.state, commit.after])).size).toBe(1)
    expect(await read(commit.after, late.message)).toMatchObject({ kind: 'application', sender: ada, epoch: 1 })
    const said = await text(commit.after, 'new')
    expect(await read(taken.state, said.message)).toMatchObject({ kind: 'application', sender: bot, epoch: 2 })
  })

  it('a member who is taken out is so, and the others go on by new keys', async () => {
    const [a, b, e] = (await group(bot, eve)) as [State, State, State]
    const commit = await makeCommit(await mlsContext(), a, { proposals: removeProposals(a, eve) })
    const bytes = encodeMessage(commit.message)
    expect(await read(e, bytes)).toEqual({ kind: 'removed', sender: ada })
    const taken = await read(b, bytes)
    if (taken.kind !== 'commit') throw new Error(JSON.stringify(taken))
    expect(membersOf(taken.state)).toEqual([ada, bot])
    expect((await authenticators([taken.state, commit.after])).size).toBe(1)
  })

  it('whoever is taken out of a group of two cannot compute the epoch after', async () => {
    const [a, b] = (await group(bot)) as [State, State]
    const { after } = await makeCommit(await mlsContext(), a, { proposals: removeProposals(a, bot) })
    const { kdf } = (await mlsContext()).cipherSuite
    const none = new Uint8Array(kdf.size)
    const guessed = await initializeEpoch(b.keySchedule.initSecret, none, after.groupContext, none, kdf)
    expect(guessed.keySchedule.epochAuthenticator).not.toEqual(after.keySchedule.epochAuthenticator)
  })

  it('an admin gives it another name; whoever is none may not', async () => {
    const [a, b] = (await group(bot)) as [State, State]
    const context = await mlsContext()
    const renamed = await makeCommit(context, a, { proposals: [groupDataProposal(a, { ...data, name: 'Other' })] })
    const taken = await read(b, encodeMessage(renamed.message))
    if (taken.kind !== 'commit') throw new Error(JSON.stringify(taken))
    expect(groupDataOf(taken.state).name).toBe('Other')
    expect((await authenticators([taken.state, renamed.after])).size).toBe(1)
    const refused = await makeCommit(context, b, { proposals: [groupDataProposal(b, { ...data, name: 'Mine' })] })
    expect(await read(a, encodeMessage(refused.message))).toEqual({ kind: 'refused', why: 'whoever made it is no admin' })
    const noAdmin = await makeCommit(context, a, { proposals: [groupDataProposal(a, { ...data, admins: [eve] })] })
    expect(await read(b, encodeMessage(noAdmin.message))).toEqual({ kind: 'refused', why: 'no admin is left in the group' })
    expect(epochOf(b)).toBe(1)
  })

  it.each([1, 2, 3, 4, 5, 6])('grows by one member after another, %i', async (count) => {
    const context = await mlsContext()
    const names = ['11', '22', '33', '44', '55', '66'].slice(0, count).map((two) => two.repeat(32))
    let states = (await group(bot)) as State[]
    for (const name of names) {
      const own = await newKeyPackage(name, TIMES)
      const [first, ...rest] = states as [State, ...State[]]
      const commit = await makeCommit(context, first, { proposals: [addProposal(decodeKeyPackage(own.publicBytes))] })
      const taken = await Promise.all(rest.map((state) => read(state, encodeMessage(commit.message))))
      const joined = await joinByWelcome(commit.welcome as never, own)
      states = [commit.after, ...taken.map((one) => (one.kind === 'commit' ? one.state : (undefined as never))), joined]
      const last = states.at(-1) as State
      const update = await makeCommit(context, last, { proposals: [], newSignatureKeys: await newSignatureKeys() })
      const next = await Promise.all(states.slice(0, -1).map((state) => read(state, encodeMessage(update.message))))
      states = [...next.map((one) => (one.kind === 'commit' ? one.state : (undefined as never))), update.after]
      expect((await authenticators(states)).size).toBe(1)
    }
    expect(membersOf(states[0] as State)).toHaveLength(count + 2)
  })
})
