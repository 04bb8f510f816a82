/** Messages of one MLS group: written, and read to what they mean. */
import {
  type ClientState,
  contentTypes,
  createApplicationMessage,
  createProposal,
  decode,
  defaultProposalTypes,
  encode,
  type MlsFramedMessage,
  type MlsMessage,
  mlsMessageDecoder,
  mlsMessageEncoder,
  type PrivateMessage,
  processMessage,
  wireformats,
} from 'ts-mls'
import { decryptSenderData } from '../../../node_modules/ts-mls/dist/src/privateMessage.js'
import { mlsContext } from './context.ts'
import { epochOf, identityAt, knowsSelfRemove } from './group.ts'
import { type CommitVerdict, faultAfter, judgeCommit } from './rules.ts'
import { createSelfRemove, isSelfRemove, readSelfRemove } from './self-remove.ts'

/** Proposals of others that wait for a commit. */
const MAX_PROPOSALS = 50

export type Received =
  | {
      readonly kind: 'application'
      readonly state: ClientState
      readonly bytes: Uint8Array
      /** Whose leaf sent it. */
      readonly sender: string
      readonly epoch: number
      readonly generation: number
    }
  | { readonly kind: 'commit'; readonly state: ClientState; readonly sender: string }
  | { readonly kind: 'proposal'; readonly state: ClientState }
  | { readonly kind: 'removed'; readonly sender: string }
  /** For another epoch than this state's. */
  | { readonly kind: 'other_epoch'; readonly epoch: number; readonly isCommit: boolean }
  | { readonly kind: 'refused'; readonly why: string }

const refused = (why: string): Received => ({ kind: 'refused', why })

export async function writeMessage(state: ClientState, bytes: Uint8Array): Promise<{ state: ClientState; message: Uint8Array }> {
  const context = await mlsContext()
  // Somebody's proposal that nobody has committed yet must not silence the group.
  const { unappliedProposals } = state
  const { newState, message } = await createApplicationMessage({ context, state: { ...state, unappliedProposals: {} }, message: bytes })
  return { state: { ...newState, unappliedProposals }, message: encodeMessage(message) }
}

/** Our own leaving, for somebody else to commit. */
export async function writeLeaving(state: ClientState): Promise<{ state: ClientState; message: Uint8Array }> {
  const { cipherSuite } = await mlsContext()
  if (knowsSelfRemove(state)) {
    const { newState, message } = await createSelfRemove(state, cipherSuite)
    return { state: newState, message }
  }
  const proposal = { proposalType: defaultProposalTypes.remove, remove: { removed: state.privatePath.leafIndex } }
  const { newState, message } = await createProposal({ context: await mlsContext(), state, proposal })
  return { state: newState, message: encodeMessage(message) }
}

export const encodeMessage = (message: MlsMessage): Uint8Array => encode(mlsMessageEncoder, message)

/** What was inside of a group event, read. Never throws for what others wrote. */
export async function readBytes(state: ClientState, bytes: Uint8Array): Promise<Received> {
  if (isSelfRemove(bytes)) return readLeaving(state, bytes)
  const message = decodeMessage(bytes)
  return message === undefined ? refused('it holds no MLS message') : readMessage(state, message)
}

async function readLeaving(state: ClientState, bytes: Uint8Array): Promise<Received> {
  if (Object.keys(state.unappliedProposals).length >= MAX_PROPOSALS) return refused('too many proposals wait')
  try {
    const { newState } = await readSelfRemove(bytes, state, (await mlsContext()).cipherSuite)
    return { kind: 'proposal', state: newState }
  } catch (error) {
    return refused(error instanceof Error ? error.message : 'it is malformed')
  }
}

/** Undefined for what is no message of a group. */
export function decodeMessage(bytes: Uint8Array): MlsFramedMessage | undefined {
  try {
    const message = decode(mlsMessageDecoder, bytes)
    const isFramed = message?.wireformat === wireformats.mls_private_message || message?.wireformat === wireformats.mls_public_message
    return isFramed ? message : undefined
  } catch {
    // Whoever knows the key of the epoch may still write what is no MLS.
    return undefined
  }
}

/** Never throws for what others wrote. */
export async function readMessage(state: ClientState, message: MlsFramedMessage): Promise<Received> {
  try {
    return await read(state, message)
  } catch (error) {
    return refused(error instanceof Error ? error.message : 'it is malformed')
  }
}

async function read(state: ClientState, message: MlsFramedMessage): Promise<Received> {
  const isPrivate = message.wireformat === wireformats.mls_private_message
  const { groupId, epoch, contentType } = isPrivate ? message.privateMessage : message.publicMessage.content
  if (!Buffer.from(groupId).equals(state.groupContext.groupId)) return refused('it is of another group')
  const isCurrent = epoch === state.groupContext.epoch
  const isApplication = contentType === contentTypes.application
  const isReadable = isCurrent || (isApplication && state.historicalReceiverData.has(epoch))
  if (!isReadable) return { kind: 'other_epoch', epoch: Number(epoch), isCommit: contentType === contentTypes.commit }
  const from = isPrivate ? await senderOf(state, message.privateMessage) : undefined
  let verdict: CommitVerdict = { verdict: 'accept' }
  let senderLeaf: number | undefined
  const result = await processMessage({
    context: await mlsContext(),
    state,
    message,
    callback: (incoming) => {
      if (incoming.kind === 'proposal') return Object.keys(state.unappliedProposals).length < MAX_PROPOSALS ? 'accept' : 'reject'
      senderLeaf = incoming.senderLeafIndex
      verdict = judgeCommit(state, incoming.senderLeafIndex, incoming.proposals)
      return verdict.verdict === 'accept' ? 'accept' : 'reject'
    },
  })
  if (result.kind === 'applicationMessage') {
    if (from === undefined) return refused('nobody can have sent it')
    return {
      kind: 'application',
      state: result.newState,
      bytes: result.message,
      sender: from.pubkey,
      epoch: Number(epoch),
      generation: from.generation,
    }
  }
  return judged(verdict, state, result.newState, senderLeaf)
}

function judged(verdict: CommitVerdict, before: ClientState, after: ClientState, senderLeaf: number | undefined): Received {
  const sender = senderLeaf === undefined ? '' : (identityAt(before.ratchetTree, senderLeaf) ?? '')
  if (verdict.verdict === 'removed') return { kind: 'removed', sender }
  if (verdict.verdict === 'refuse') return refused(verdict.why)
  if (epochOf(after) === epochOf(before) || senderLeaf === undefined) return { kind: 'proposal', state: after }
  const fault = faultAfter(before, after, senderLeaf)
  return fault === undefined ? { kind: 'commit', state: after, sender } : refused(fault)
}

/** Who says that it sent this; whether it did is known once the message was opened. */
async function senderOf(state: ClientState, message: PrivateMessage): Promise<{ pubkey: string; generation: number } | undefined> {
  const { cipherSuite } = await mlsContext()
  const former = state.historicalReceiverData.get(message.epoch)
  const isCurrent = message.epoch === state.groupContext.epoch
  const secret = isCurrent ? state.keySchedule.senderDataSecret : former?.senderDataSecret
  const tree = isCurrent ? state.ratchetTree : former?.ratchetTree
  if (secret === undefined || tree === undefined) return undefined
  const data = await decryptSenderData(message, secret, cipherSuite)
  const pubkey = data === undefined ? undefined : identityAt(tree, data.leafIndex)
  return data === undefined || pubkey === undefined ? undefined : { pubkey, generation: data.generation }
}
