/** The state of one MLS group, and what can be read from it. States are values: whoever makes a new one stores it. */
import {
  type ClientState,
  clientStateDecoder,
  clientStateEncoder,
  createGroup,
  decode,
  defaultExtensionTypes,
  defaultProposalTypes,
  encode,
  type GroupContextExtension,
  joinGroup,
  type KeyPackage,
  type LeafNode,
  makeCustomExtension,
  mlsExporter,
  nodeTypes,
  type Proposal,
  type RatchetTree,
  type Welcome,
} from 'ts-mls'
import { addHistoricalReceiverData } from '../../../node_modules/ts-mls/dist/src/clientState.js'
import { PylonError } from '../../base/errors.ts'
import { decodeGroupData, encodeGroupData, type GroupData } from '../wire/group-data.ts'
import type { EpochKeys } from '../wire/group-event.ts'
import { GROUP_DATA_EXTENSION, mlsContext } from './context.ts'
import { decodeKeyPackage, decodePrivateKeyPackage, type OwnKeyPackage } from './key-package.ts'
import { SELF_REMOVE } from './self-remove.ts'

export type MlsState = ClientState

export const encodeState = (state: ClientState): Uint8Array => encode(clientStateEncoder, state)

/** @throws internal */
export function decodeState(bytes: Uint8Array): ClientState {
  const state = decode(clientStateDecoder, Uint8Array.from(bytes), Math.max(bytes.length, 1))
  if (state === undefined) throw new PylonError('internal', 'The state of a session is unreadable.')
  return state
}

export const epochOf = (state: ClientState): number => Number(state.groupContext.epoch)
export const mlsIdOf = (state: ClientState): string => Buffer.from(state.groupContext.groupId).toString('hex')

/** A group of one, epoch 0. @param invited who is to be added next */
export async function startGroup(
  own: OwnKeyPackage,
  mlsId: Uint8Array,
  data: GroupData,
  invited: readonly KeyPackage[] = [],
): Promise<ClientState> {
  // Asked of later members only where all of the first ones can do it.
  const canLeave = invited.length > 0 && invited.every(({ leafNode }) => leafNode.capabilities.proposals.includes(SELF_REMOVE))
  return createGroup({
    context: await mlsContext(),
    groupId: mlsId,
    keyPackage: decodeKeyPackage(own.publicBytes),
    privateKeyPackage: decodePrivateKeyPackage(own.privateBytes),
    extensions: [
      groupDataExtension(data),
      {
        extensionType: defaultExtensionTypes.required_capabilities,
        extensionData: { extensionTypes: [GROUP_DATA_EXTENSION], proposalTypes: canLeave ? [SELF_REMOVE] : [], credentialTypes: [] },
      },
    ],
  })
}

/** @throws whatever ts-mls makes of a welcome that is not for this key package */
export async function joinByWelcome(welcome: Welcome, own: OwnKeyPackage): Promise<ClientState> {
  return joinGroup({
    context: await mlsContext(),
    welcome,
    keyPackage: decodeKeyPackage(own.publicBytes),
    privateKeys: decodePrivateKeyPackage(own.privateBytes),
  })
}

const groupDataExtension = (data: GroupData) =>
  makeCustomExtension({ extensionType: GROUP_DATA_EXTENSION, extensionData: encodeGroupData(data) })

/** @throws session_refused */
export function groupDataOf(state: ClientState): GroupData {
  return groupDataIn(state.groupContext.extensions)
}

export function groupDataIn(extensions: readonly GroupContextExtension[]): GroupData {
  const extension = extensions.find(({ extensionType }) => extensionType === GROUP_DATA_EXTENSION)
  if (!(extension?.extensionData instanceof Uint8Array)) {
    throw new PylonError('session_refused', 'This is no Marmot group: it has no data of one (0xf2ee).')
  }
  return decodeGroupData(extension.extensionData)
}

/** The key that a leaf is of, hex. */
export function identityOf({ credential }: LeafNode): string | undefined {
  return 'identity' in credential ? Buffer.from(credential.identity).toString('hex') : undefined
}

/** The same of the leaf at an index; undefined for one that is blank. */
export function identityAt(tree: RatchetTree, leaf: number): string | undefined {
  const node = tree[leaf * 2]
  return node?.nodeType === nodeTypes.leaf ? identityOf(node.leaf) : undefined
}

/** Leaves with whose they are. */
function leavesOf(tree: RatchetTree): { leaf: number; pubkey: string }[] {
  const leaves: { leaf: number; pubkey: string }[] = []
  for (let leaf = 0; leaf * 2 < tree.length; leaf++) {
    const pubkey = identityAt(tree, leaf)
    if (pubkey !== undefined) leaves.push({ leaf, pubkey })
  }
  return leaves
}

export const membersOf = (state: ClientState): string[] => [...new Set(leavesOf(state.ratchetTree).map(({ pubkey }) => pubkey))]

/** What reads and writes the events of this epoch. */
export async function epochKeysOf(state: ClientState): Promise<EpochKeys> {
  const { cipherSuite } = await mlsContext()
  const of = (label: string, context: string) =>
    mlsExporter(state.keySchedule.exporterSecret, label, new TextEncoder().encode(context), 32, cipherSuite)
  return { epoch: epochOf(state), key: await of('marmot', 'group-event'), legacySecret: await of('nostr', 'nostr') }
}

export const addProposal = (keyPackage: KeyPackage): Proposal => ({ proposalType: defaultProposalTypes.add, add: { keyPackage } })

/** Of all leaves of a member. */
export const removeProposals = (state: ClientState, pubkey: string): Proposal[] =>
  leavesOf(state.ratchetTree)
    .filter((leaf) => leaf.pubkey === pubkey)
    .map(({ leaf }) => ({ proposalType: defaultProposalTypes.remove, remove: { removed: leaf } }))

/** New data of the group; all other extensions stay as they are. */
export const groupDataProposal = (state: ClientState, data: GroupData): Proposal => ({
  proposalType: defaultProposalTypes.group_context_extensions,
  groupContextExtensions: {
    extensions: state.groupContext.extensions.map((one) => (one.extensionType === GROUP_DATA_EXTENSION ? groupDataExtension(data) : one)),
  },
})

/** Members who asked to leave, as proposals that a commit can refer to. */
export function leaveReferences(state: ClientState): string[] {
  return Object.entries(state.unappliedProposals)
    .filter(([, { proposal, senderLeafIndex }]) => {
      return proposal.proposalType === defaultProposalTypes.remove && 'remove' in proposal && proposal.remove.removed === senderLeafIndex
    })
    .map(([reference]) => reference)
}

export async function newSignatureKeys(): Promise<{ signKey: Uint8Array; publicKey: Uint8Array }> {
  return (await mlsContext()).cipherSuite.signature.keygen()
}

/** The state of a next epoch that was made before the last messages of this one were read: it knows them too. */
export async function withFormerEpoch(next: ClientState, former: ClientState): Promise<ClientState> {
  const { clientConfig } = await mlsContext()
  if (clientConfig === undefined) return next
  const [historicalReceiverData] = addHistoricalReceiverData(former, clientConfig)
  return { ...next, historicalReceiverData }
}

/** Whether members of the group are told of leaving by self_remove. */
export function knowsSelfRemove(state: ClientState): boolean {
  const required = state.groupContext.extensions.find(({ extensionType }) => extensionType === defaultExtensionTypes.required_capabilities)
  const data = required?.extensionData
  return data !== undefined && 'proposalTypes' in data && data.proposalTypes.includes(SELF_REMOVE)
}
