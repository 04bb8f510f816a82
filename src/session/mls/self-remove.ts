/**
 * Leaving by the proposal self_remove (draft-ietf-mls-extensions: type 0x000a, no body), which ts-mls 2.0.0-rc.10 does not know: it
 * would read a body. It travels as PublicMessage. To the tree it is a Remove of its sender, and a commit names it by a hash
 * of its bytes; so it is kept as that Remove, under that hash.
 */
import {
  bytesToBase64,
  type CiphersuiteImpl,
  type ClientState,
  contentTypes,
  defaultProposalTypes,
  encode,
  nodeTypes,
  protocolVersions,
  senderTypes,
  wireformats,
} from 'ts-mls'
import {
  uint8Decoder,
  uint8Encoder,
  uint16Decoder,
  uint16Encoder,
  uint32Decoder,
  uint32Encoder,
  uint64Decoder,
  uint64Encoder,
} from '../../../node_modules/ts-mls/dist/src/codec/number.js'
import { mapDecoders } from '../../../node_modules/ts-mls/dist/src/codec/tlsDecoder.js'
import { contramapBufferEncoders } from '../../../node_modules/ts-mls/dist/src/codec/tlsEncoder.js'
import { varLenDataDecoder, varLenDataEncoder } from '../../../node_modules/ts-mls/dist/src/codec/variableLength.js'
import { refhash } from '../../../node_modules/ts-mls/dist/src/crypto/hash.js'
import { signWithLabel, verifyWithLabel } from '../../../node_modules/ts-mls/dist/src/crypto/signature.js'
import { groupContextEncoder } from '../../../node_modules/ts-mls/dist/src/groupContext.js'
import { leafToNodeIndex, toLeafIndex } from '../../../node_modules/ts-mls/dist/src/treemath.js'

/** The proposal's type: listed in a leaf's capabilities by who can be told of leaving so. */
export const SELF_REMOVE = 0x000a

const SIGNED = 'FramedContentTBS'
const NO_DATA = new Uint8Array()

interface Content {
  readonly groupId: Uint8Array
  readonly epoch: bigint
  readonly leafIndex: number
  readonly authenticatedData: Uint8Array
}

interface Message {
  readonly content: Content
  readonly signature: Uint8Array
  readonly membershipTag: Uint8Array
}

/** FramedContent of a self_remove by a member. */
const contentEncoder = contramapBufferEncoders(
  [varLenDataEncoder, uint64Encoder, uint8Encoder, uint32Encoder, varLenDataEncoder, uint8Encoder, uint16Encoder],
  ({ groupId, epoch, leafIndex, authenticatedData }: Content) =>
    [groupId, epoch, senderTypes.member, leafIndex, authenticatedData, contentTypes.proposal, SELF_REMOVE] as const,
)

const messageEncoder = contramapBufferEncoders(
  [uint16Encoder, uint16Encoder, contentEncoder, varLenDataEncoder, varLenDataEncoder],
  ({ content, signature, membershipTag }: Message) =>
    [protocolVersions.mls10, wireformats.mls_public_message, content, signature, membershipTag] as const,
)

const messageDecoder = mapDecoders(
  [
    uint16Decoder,
    uint16Decoder,
    varLenDataDecoder,
    uint64Decoder,
    uint8Decoder,
    uint32Decoder,
    varLenDataDecoder,
    uint8Decoder,
    uint16Decoder,
    varLenDataDecoder,
    varLenDataDecoder,
  ],
  (version, wireformat, groupId, epoch, senderType, leafIndex, authenticatedData, contentType, type, signature, membershipTag) => {
    const isOne =
      version === protocolVersions.mls10 &&
      wireformat === wireformats.mls_public_message &&
      senderType === senderTypes.member &&
      contentType === contentTypes.proposal &&
      type === SELF_REMOVE
    return isOne ? { content: { groupId, epoch, leafIndex, authenticatedData }, signature, membershipTag } : undefined
  },
)

function parse(message: Uint8Array): Message | undefined {
  try {
    const [parsed, length] = messageDecoder(message, 0) ?? []
    return length === message.length ? parsed : undefined
  } catch {
    // Whatever else it is, others read it.
    return undefined
  }
}

/** Whether an MLSMessage is a self_remove; nothing of it is verified by that. */
export function isSelfRemove(message: Uint8Array): boolean {
  return parse(message) !== undefined
}

/**
 * The state with the proposal unapplied in it, and the leaf that leaves.
 * @throws Error in words: not one, of another group or epoch, not by a member, not signed or tagged by them
 */
export async function readSelfRemove(
  message: Uint8Array,
  state: ClientState,
  cipherSuite: CiphersuiteImpl,
): Promise<{ readonly newState: ClientState; readonly leafIndex: number }> {
  const parsed = parse(message)
  if (!parsed) throw new Error('This is no self_remove.')
  const { content, signature, membershipTag } = parsed
  const { groupId, epoch } = state.groupContext
  if (bytesToBase64(content.groupId) !== bytesToBase64(groupId)) throw new Error('A self_remove of another group.')
  if (content.epoch !== epoch) throw new Error(`A self_remove of epoch ${content.epoch}, while the group is in ${epoch}.`)
  const leaf = state.ratchetTree[leafToNodeIndex(toLeafIndex(content.leafIndex))]
  if (leaf?.nodeType !== nodeTypes.leaf) throw new Error('A self_remove of somebody who is no member.')
  const signed = toBeSigned(content, state)
  const tagged = concat(signed, encode(varLenDataEncoder, signature))
  if (!(await cipherSuite.hash.verifyMac(state.keySchedule.membershipKey, membershipTag, tagged)))
    throw new Error('A self_remove with a wrong membership tag.')
  if (!(await verifyWithLabel(leaf.leaf.signaturePublicKey, SIGNED, signed, signature, cipherSuite.signature)))
    throw new Error('A self_remove with a wrong signature.')
  return { newState: await withProposal(state, content, signature, cipherSuite), leafIndex: content.leafIndex }
}

/** Our own leaving, for somebody else to commit; the state knows it when that commit comes. */
export async function createSelfRemove(
  state: ClientState,
  cipherSuite: CiphersuiteImpl,
): Promise<{ readonly message: Uint8Array; readonly newState: ClientState }> {
  const { groupId, epoch } = state.groupContext
  const content = { groupId, epoch, leafIndex: state.privatePath.leafIndex, authenticatedData: NO_DATA }
  const signed = toBeSigned(content, state)
  const signature = await signWithLabel(state.signaturePrivateKey, SIGNED, signed, cipherSuite.signature)
  const membershipTag = await cipherSuite.hash.mac(state.keySchedule.membershipKey, concat(signed, encode(varLenDataEncoder, signature)))
  const message = encode(messageEncoder, { content, signature, membershipTag })
  return { message, newState: await withProposal(state, content, signature, cipherSuite) }
}

async function withProposal(state: ClientState, content: Content, signature: Uint8Array, { hash }: CiphersuiteImpl): Promise<ClientState> {
  const wireformat = encode(uint16Encoder, wireformats.mls_public_message)
  const authenticated = concat(wireformat, encode(contentEncoder, content), encode(varLenDataEncoder, signature))
  const reference = bytesToBase64(await refhash('MLS 1.0 Proposal Reference', authenticated, hash))
  const proposal = { proposalType: defaultProposalTypes.remove, remove: { removed: content.leafIndex } }
  return {
    ...state,
    unappliedProposals: { ...state.unappliedProposals, [reference]: { proposal, senderLeafIndex: content.leafIndex } },
  }
}

function toBeSigned(content: Content, state: ClientState): Uint8Array {
  const header = concat(encode(uint16Encoder, protocolVersions.mls10), encode(uint16Encoder, wireformats.mls_public_message))
  return concat(header, encode(contentEncoder, content), encode(groupContextEncoder, state.groupContext))
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts))
}
