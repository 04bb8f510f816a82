/**
 * Commits with an update path. ts-mls 2.0.0-rc.10 leaves the path out of a commit with one Remove or with new group extensions,
 * where RFC 9420 12.4 demands it: others refuse such a commit, and who was removed could compute the next epoch. Its parts are
 * right, so they are put together here; they are not in its exports and are reached by their files.
 */
import type { ClientState, GroupContext, MlsContext, MlsFramedMessage, Proposal, RatchetTree } from 'ts-mls'
import { base64ToBytes, nodeTypes, proposalOrRefTypes, protocolVersions, senderTypes, wireformats } from 'ts-mls'
import { defaultClientConfig } from '../../../node_modules/ts-mls/dist/src/clientConfig.js'
import {
  addHistoricalReceiverData,
  applyProposals,
  checkCanSendHandshakeMessages,
  makePskIndex,
  nextEpochContext,
} from '../../../node_modules/ts-mls/dist/src/clientState.js'
import { deriveSecret } from '../../../node_modules/ts-mls/dist/src/crypto/kdf.js'
import { createConfirmationTag, createContentCommitSignature } from '../../../node_modules/ts-mls/dist/src/framedContent.js'
import { initializeEpoch } from '../../../node_modules/ts-mls/dist/src/keySchedule.js'
import { protect } from '../../../node_modules/ts-mls/dist/src/messageProtection.js'
import { pathToPathSecrets } from '../../../node_modules/ts-mls/dist/src/pathSecrets.js'
import { mergePrivateKeyPaths, toPrivateKeyPath, updateLeafKey } from '../../../node_modules/ts-mls/dist/src/privateKeyPath.js'
import { createSecretTree } from '../../../node_modules/ts-mls/dist/src/secretTree.js'
import { treeHashRoot } from '../../../node_modules/ts-mls/dist/src/treeHash.js'
import { leafToNodeIndex, leafWidth, toLeafIndex } from '../../../node_modules/ts-mls/dist/src/treemath.js'
import { createUpdatePath } from '../../../node_modules/ts-mls/dist/src/updatePath.js'
import { PylonError } from '../../base/errors.ts'

const NO_DATA = new Uint8Array()

/** Raw Ed25519: 32 bytes each, or `signKey` as PKCS #8. */
export interface SignatureKeys {
  readonly signKey: Uint8Array
  readonly publicKey: Uint8Array
}

export interface PathCommit {
  readonly context: MlsContext
  readonly state: ClientState
  /** By value; proposals that the state holds unapplied are committed by reference. None of either is a self-update. No Add. */
  readonly proposals: readonly Proposal[]
  /** Takes the place of the leaf's signature key; the commit itself is signed by the old one. */
  readonly signatureKeys?: SignatureKeys
}

/** The commit as a PrivateMessage, and the state that is ours once it is everybody's. */
export async function createPathCommit(order: PathCommit): Promise<{ readonly commit: MlsFramedMessage; readonly newState: ClientState }> {
  const { context, state } = order
  const { cipherSuite } = context
  const config = context.clientConfig ?? defaultClientConfig
  checkCanSendHandshakeMessages(state)
  const { tree, proposals, provisional, pskSecret } = await applied(order)
  const { path, privatePath, commitSecret, signKey } = await newPath(order, tree, provisional)

  const { signature, framedContent } = await createContentCommitSignature(
    state.groupContext,
    'mls_private_message',
    { proposals, path },
    { senderType: senderTypes.member, leafIndex: state.privatePath.leafIndex },
    NO_DATA,
    state.signaturePrivateKey,
    cipherSuite.signature,
  )
  const treeHash = await treeHashRoot(tree, cipherSuite.hash)
  const { hash, kdf } = cipherSuite
  const groupContext = await nextEpochContext(
    provisional,
    'mls_private_message',
    framedContent,
    signature,
    treeHash,
    state.confirmationTag,
    hash,
  )
  const epoch = await initializeEpoch(state.keySchedule.initSecret, commitSecret, groupContext, pskSecret, kdf)
  const confirmationTag = await createConfirmationTag(epoch.keySchedule.confirmationKey, groupContext.confirmedTranscriptHash, hash)
  const { privateMessage } = await protect(
    state.keySchedule.senderDataSecret,
    NO_DATA,
    state.groupContext,
    state.secretTree,
    { ...framedContent, auth: { contentType: framedContent.contentType, signature, confirmationTag } },
    state.privatePath.leafIndex,
    config.paddingConfig,
    cipherSuite,
  )
  const newState: ClientState = {
    groupContext,
    ratchetTree: tree,
    secretTree: createSecretTree(leafWidth(tree.length), epoch.encryptionSecret),
    keySchedule: epoch.keySchedule,
    privatePath,
    unappliedProposals: {},
    historicalReceiverData: addHistoricalReceiverData(state, config)[0],
    confirmationTag,
    signaturePrivateKey: signKey,
    groupActiveState: { kind: 'active' },
  }
  return { commit: { version: protocolVersions.mls10, wireformat: wireformats.mls_private_message, privateMessage }, newState }
}

/** The tree and the group's context with all proposals in them, before the path. */
async function applied({ context, state, proposals: byValue }: PathCommit) {
  const config = context.clientConfig ?? defaultClientConfig
  const tree = state.ratchetTree.slice()
  const references = Object.keys(state.unappliedProposals).map((reference) => ({
    proposalOrRefType: proposalOrRefTypes.reference,
    reference: base64ToBytes(reference),
  }))
  const proposals = [...references, ...byValue.map((proposal) => ({ proposalOrRefType: proposalOrRefTypes.proposal, proposal }))]
  const ownLeaf = toLeafIndex(state.privatePath.leafIndex)
  const psks = makePskIndex(state, {})
  const { additionalResult, pskSecret } = await applyProposals(
    state,
    tree,
    proposals,
    ownLeaf,
    psks,
    true,
    config,
    context.authService,
    context.cipherSuite,
  )
  // Who is new would have to be left out of the path's recipients.
  if (additionalResult.kind !== 'memberCommit' || additionalResult.addedLeafNodes.length > 0)
    throw new PylonError('internal', 'A commit with an update path adds nobody.')
  const extensions = additionalResult.extensions.length > 0 ? additionalResult.extensions : state.groupContext.extensions
  return { tree, proposals, provisional: { ...state.groupContext, extensions }, pskSecret }
}

/** New keys from our leaf to the root, put into `tree`. */
async function newPath({ context, state, signatureKeys }: PathCommit, tree: RatchetTree, provisional: GroupContext) {
  const { cipherSuite } = context
  const ownLeaf = toLeafIndex(state.privatePath.leafIndex)
  const ownNode = leafToNodeIndex(ownLeaf)
  const own = tree[ownNode]
  if (signatureKeys && own?.nodeType === nodeTypes.leaf)
    tree[ownNode] = { ...own, leaf: { ...own.leaf, signaturePublicKey: signatureKeys.publicKey } }
  const signKey = signatureKeys?.signKey ?? state.signaturePrivateKey
  const [, path, secrets, leafKey] = await createUpdatePath(state.ratchetTree, tree, ownLeaf, provisional, signKey, cipherSuite)
  const newLeafKey = await cipherSuite.hpke.exportPrivateKey(leafKey)
  const ownPath = await toPrivateKeyPath(pathToPathSecrets(secrets), ownLeaf, cipherSuite)
  const root = secrets.at(-1)
  return {
    path,
    signKey,
    privatePath: mergePrivateKeyPaths(updateLeafKey(state.privatePath, newLeafKey), ownPath),
    // Who is left alone has no node above: nobody needs to follow then, and who was removed must not be able to.
    commitSecret: await deriveSecret(root?.secret ?? newLeafKey, 'path', cipherSuite.kdf),
  }
}
