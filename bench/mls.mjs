// CPU of what an encrypted session is made of, done as src/session does it, beside one Schnorr signature of the same run; prints JSON.
// node bench/mls.mjs [--quick]
import { systemRandom } from '../src/base/random.ts'
import { inlineMoreWasm } from '../src/base/wasm-inlining.ts'
import { createSigner } from '../src/nostr/keys/signer.ts'
import { buildDm17, unwrap } from '../src/nostr/nips/nip59.ts'
import { createVerifier } from '../src/nostr/reading/verify.ts'
import { makeCommit } from '../src/session/mls/commit.ts'
import { mlsContext } from '../src/session/mls/context.ts'
import {
  addProposal,
  decodeState,
  encodeState,
  epochKeysOf,
  joinByWelcome,
  newSignatureKeys,
  startGroup,
} from '../src/session/mls/group.ts'
import { assertUsable, decodeKeyPackage, newKeyPackage } from '../src/session/mls/key-package.ts'
import { encodeMessage, readBytes, writeMessage } from '../src/session/mls/messages.ts'
import { rumorOf } from '../src/session/rumors.ts'
import { newGroupData } from '../src/session/wire/group-data.ts'
import { newGroupId, openGroupEvent, sealGroupEvent } from '../src/session/wire/group-event.ts'

const ROUNDS = process.argv.includes('--quick') ? 20 : 100
const WARM = 20
const NOW_S = 1_800_000_000
const TEXT = 'x'.repeat(200)
const TIMES = { notBefore: NOW_S - 3600, notAfter: NOW_S + 90 * 86_400 }

inlineMoreWasm()
const [owner, bot] = [1, 2].map((n) => createSigner(new Uint8Array(32).fill(n), systemRandom))
const context = await mlsContext()
const verifier = createVerifier()

/** CPU for each of so many: of the whole process with its thread pool, and of the main thread alone; and what each gave. */
async function cpu(work, rounds) {
  const given = []
  const before = { all: process.cpuUsage(), main: process.threadCpuUsage() }
  for (let i = 0; i < rounds; i++) given.push(await work(i))
  const each = ({ user, system }) => (user + system) / 1000 / rounds
  return { ms: { all: each(process.cpuUsage(before.all)), main: each(process.threadCpuUsage(before.main)) }, given }
}

async function measure(rounds) {
  const made = await cpu(() => newKeyPackage(bot.pubkey, TIMES), rounds)
  const [own] = made.given
  const checked = await cpu(() => assertUsable(decodeKeyPackage(own.publicBytes), bot.pubkey, NOW_S), rounds)

  const creator = await newKeyPackage(owner.pubkey, TIMES)
  const id = newGroupId(systemRandom)
  const data = newGroupData({ nostrGroupId: id, name: 'bench', admins: [owner.pubkey], relays: ['wss://relay.example.com'] })
  const peer = decodeKeyPackage(own.publicBytes)
  const invited = await cpu(async () => {
    const alone = await startGroup(creator, systemRandom.bytes(32), data, [peer])
    return makeCommit(context, alone, { proposals: [addProposal(peer)] })
  }, rounds)
  const [{ after, welcome }] = invited.given
  const joined = await cpu(() => joinByWelcome(welcome, own), rounds)

  let [ours, theirs] = [after, joined.given[0]]
  const keys = await epochKeysOf(ours)
  const written = await cpu(async (i) => {
    const { state, message } = await writeMessage(ours, Buffer.from(JSON.stringify(rumorOf(owner.pubkey, { content: TEXT }, i, NOW_S))))
    ours = state
    return sealGroupEvent(id, keys.key, message, NOW_S, systemRandom)
  }, rounds)
  const read = await cpu(async (i) => {
    const got = await readBytes(theirs, openGroupEvent(written.given[i], [keys]).message)
    if (got.kind !== 'application') throw new Error(`not read: ${JSON.stringify(got)}`)
    theirs = got.state
  }, rounds)

  const commits = await cpu(async () => makeCommit(context, ours, { proposals: [], newSignatureKeys: await newSignatureKeys() }), rounds)
  const bytes = encodeMessage(commits.given[0].message)
  const followed = await cpu(async () => {
    const got = await readBytes(theirs, bytes)
    if (got.kind !== 'commit') throw new Error(`not followed: ${JSON.stringify(got)}`)
  }, rounds)
  const stored = encodeState(ours)
  const state = await cpu(() => encodeState(decodeState(stored)), rounds)

  const dm = await cpu(async () => (await buildDm17(owner, [bot.pubkey], TEXT, NOW_S)).wraps[0].event, rounds)
  const opened = await cpu((i) => unwrap(bot, dm.given[i], verifier), rounds)
  const signed = await cpu(() => owner.sign({ kind: 1, created_at: NOW_S, tags: [], content: TEXT }), rounds)
  return {
    steps: [
      ['make a key package', made.ms],
      ['check a key package of somebody else', checked.ms],
      ['begin a group and invite one: commit and welcome', invited.ms],
      ['join by a welcome', joined.ms],
      ['write a message of 200 characters, to the signed event', written.ms],
      ['read it', read.ms],
      ['self-update: commit with new keys', commits.ms],
      ['follow it', followed.ms],
      ['read and write the stored state', state.ms],
      ['beside: the same message by NIP-17, one wrap to the peer and one to oneself', dm.ms],
      ['beside: read the wrap', opened.ms],
    ],
    signature_ms: signed.ms.all,
    state_bytes: stored.length,
    message_bytes: JSON.stringify(written.given[0]).length,
    dm_bytes: JSON.stringify(dm.given[0]).length,
  }
}

await measure(WARM)
console.log(JSON.stringify(await measure(ROUNDS)))
