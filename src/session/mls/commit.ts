/**
 * Commits with an update path wherever RFC 9420 (12.4) wants one. ts-mls 2.0.0-rc.10 leaves it out of a commit of one Remove or of
 * new group data, which others refuse, and after which whoever was removed could compute the next epoch; so the commit is put
 * together here, of the parts that its own is made of.
 */
import {
  type CiphersuiteImpl,
  type ClientState,
  contentTypes,
  defaultExtensionTypes,
  defaultProposalTypes,
  encode,
  type MlsContext,
  type MlsFramedMessage,
  nodeTypes,
  type Proposal,
  type ProposalOrRef,
  proposalOrRefTypes,
  protocolVersions,
  type SecretTree,
  senderTypes,
  type Welcome,
  wireformats,
} from 'ts-mls'
import { defaultClientConfig } from '../../../node_modules/ts-mls/dist/src/clientConfig.js'
import {
  addHistoricalReceiverData,
  applyProposals,
  makePskIndex,
  nextEpochContext,
} from '../../../node_modules/ts-mls/dist/src/clientState.js'
import { deriveSecret } from '../../../node_modules/ts-mls/dist/src/crypto/kdf.js'
import { createConfirmationTag, createContentCommitSignature } from '../../../node_modules/ts-mls/dist/src/framedContent.js'
import { signGroupInfo } from '../../../node_modules/ts-mls/dist/src/groupInfo.js'
import { makeKeyPackageRef } from '../../../node_modules/ts-mls/dist/src/keyPackage.js'
import { type EpochSecrets, initializeEpoch } from '../../../node_modules/ts-mls/dist/src/keySchedule.js'
import { protect } from '../../../node_modules/ts-mls/dist/src/messageProtection.js'
import { pathToPathSecrets } from '../../../node_modules/ts-mls/dist/src/pathSecrets.js'
import { mergePrivateKeyPaths, toPrivateKeyPath, updateLeafKey } from '../../../node_modules/ts-mls/dist/src/privateKeyPath.js'
import { ratchetTreeEncoder } from '../../../node_modules/ts-mls/dist/src/ratchetTree.js'
import { createSecretTree } from '../../../node_modules/ts-mls/dist/src/secretTree.js'
import { treeHashRoot } from '../../../node_modules/ts-mls/dist/src/treeHash.js'
import { leafToNodeIndex, leafWidth, toLeafIndex } from '../../../node_modules/ts-mls/dist/src/treemath.js'
import { createUpdatePath, firstCommonAncestor, type PathSecret } from '../../../node_modules/ts-mls/dist/src/updatePath.js'
import { encryptGroupInfo, encryptGroupSecrets } from '../../../node_modules/ts-mls/dist/src/welcome.js'

export interface CommitOrder {
  readonly proposals: readonly Proposal[]
  /** Of proposals that others made, as `unappliedProposals` names them. */
  readonly references?: readonly string[]
  /** Signs from the next epoch on: of a self-update. */
  readonly newSignatureKeys?: { readonly signKey: Uint8Array; readonly publicKey: Uint8Array }
}

export interface MadeCommit {
  readonly message: MlsFramedMessage
  /** The epoch as it is left: what encrypted the commit is used up. */
  readonly before: ClientState
  readonly after: ClientState
  readonly welcome: Welcome | undefined
}

type Applied = Awaited<ReturnType<typeof applyProposals>>
type GroupContext = ClientState['groupContext']

export async function makeCommit(context: MlsContext, state: ClientState, order: CommitOrder): Promise<MadeCommit> {
  const { cipherSuite: suite, clientConfig = defaultClientConfig } = context
  const own = toLeafIndex(state.privatePath.leafIndex)
  const proposals = bundle(order)
  const tree = state.ratchetTree.slice()
  const applied = await applyProposals(
    state,
    tree,
    proposals,
    own,
    makePskIndex(state, {}),
    false,
    clientConfig,
    context.authService,
    suite,
  )
  const { additionalResult } = applied
  if (additionalResult.kind !== 'memberCommit') throw new Error('Only proposals of members can be committed here.')
  const extensions = additionalResult.extensions.length > 0 ? additionalResult.extensions : state.groupContext.extensions
  const provisional = { ...state.groupContext, extensions }
  const path = needsPath(applied) ? await updatePath(state, tree, provisional, order, suite) : undefined

  const { signature, framedContent } = await createContentCommitSignature(
    state.groupContext,
    'mls_private_message',
    { proposals, path: path?.path },
    { senderType: senderTypes.member, leafIndex: own },
    new Uint8Array(),
    state.signaturePrivateKey,
    suite.signature,
  )
  const treeHash = await treeHashRoot(tree, suite.hash)
  const groupContext = await nextEpochContext(
    provisional,
    'mls_private_message',
    framedContent,
    signature,
    treeHash,
    state.confirmationTag,
    suite.hash,
  )
  const secrets = await initializeEpoch(
    state.keySchedule.initSecret,
    path?.commitSecret ?? new Uint8Array(suite.kdf.size),
    groupContext,
    applied.pskSecret,
    suite.kdf,
  )
  const confirmationTag = await createConfirmationTag(secrets.keySchedule.confirmationKey, groupContext.confirmedTranscriptHash, suite.hash)
  const sealed = await protect(
    state.keySchedule.senderDataSecret,
    new Uint8Array(),
    state.groupContext,
    state.secretTree,
    { ...framedContent, auth: { contentType: contentTypes.commit, signature, confirmationTag } },
    own,
    clientConfig.paddingConfig,
    suite,
  )
  const before = { ...state, secretTree: sealed.tree }
  const [historicalReceiverData] = addHistoricalReceiverData(before, clientConfig)
  const after: ClientState = {
    groupContext,
    ratchetTree: tree,
    secretTree: secretTreeOf(tree.length, secrets),
    keySchedule: secrets.keySchedule,
    privatePath: path?.privatePath ?? state.privatePath,
    unappliedProposals: {},
    historicalReceiverData,
    confirmationTag,
    signaturePrivateKey: order.newSignatureKeys?.signKey ?? state.signaturePrivateKey,
    groupActiveState: { kind: 'active' },
  }
  const message = { version: protocolVersions.mls10, wireformat: wireformats.mls_private_message, privateMessage: sealed.privateMessage }
  return { message, before, after, welcome: await welcomeOf(after, applied, path?.pathSecrets ?? [], secrets, suite) }
}

function bundle({ proposals, references = [] }: CommitOrder): ProposalOrRef[] {
  return [
    ...references.map((reference) => ({
      proposalOrRefType: proposalOrRefTypes.reference,
      reference: Uint8Array.from(Buffer.from(reference, 'base64')),
    })),
    ...proposals.map((proposal) => ({ proposalOrRefType: proposalOrRefTypes.proposal, proposal })),
  ]
}

/** Commits that only add members may go without. */
function needsPath({ allProposals }: Applied): boolean {
  return allProposals.length === 0 || allProposals.some(({ proposal }) => proposal.proposalType !== defaultProposalTypes.add)
}

const secretTreeOf = (nodes: number, secrets: EpochSecrets): SecretTree => createSecretTree(leafWidth(nodes), secrets.encryptionSecret)

interface Path {
  readonly path: Awaited<ReturnType<typeof createUpdatePath>>[1]
  readonly pathSecrets: PathSecret[]
  readonly privatePath: ClientState['privatePath']
  readonly commitSecret: Uint8Array
}

/** Writes the new keys into the tree. @param provisional the group context with what the commit makes of its extensions */
async function updatePath(
  state: ClientState,
  tree: ClientState['ratchetTree'],
  provisional: GroupContext,
  { newSignatureKeys }: CommitOrder,
  suite: CiphersuiteImpl,
): Promise<Path> {
  const own = toLeafIndex(state.privatePath.leafIndex)
  const at = leafToNodeIndex(own)
  const node = tree[at]
  if (node?.nodeType !== nodeTypes.leaf) throw new Error('Our own leaf is not in the tree.')
  if (newSignatureKeys !== undefined) tree[at] = { ...node, leaf: { ...node.leaf, signaturePublicKey: newSignatureKeys.publicKey } }
  const signKey = newSignatureKeys?.signKey ?? state.signaturePrivateKey
  const [, path, pathSecrets, leafKey] = await createUpdatePath(state.ratchetTree, tree, own, provisional, signKey, suite)
  const newLeafKey = await suite.hpke.exportPrivateKey(leafKey)
  const privatePath = mergePrivateKeyPaths(
    updateLeafKey(state.privatePath, newLeafKey),
    await toPrivateKeyPath(pathToPathSecrets(pathSecrets), own, suite),
  )
  // Who is left alone has no node above: nobody needs to follow then, and who was taken out must not be able to.
  const commitSecret = await deriveSecret(pathSecrets.at(-1)?.secret ?? newLeafKey, 'path', suite.kdf)
  return { path, pathSecrets, privatePath, commitSecret }
}

/** For those who were added; undefined where nobody was. */
async function welcomeOf(
  after: ClientState,
  { additionalResult, pskIds }: Applied,
  pathSecrets: readonly PathSecret[],
  secrets: EpochSecrets,
  suite: CiphersuiteImpl,
): Promise<Welcome | undefined> {
  if (additionalResult.kind !== 'memberCommit' || additionalResult.addedLeafNodes.length === 0) return undefined
  const { groupContext, ratchetTree, confirmationTag, privatePath, signaturePrivateKey } = after
  const ratchetTreeExtension = { extensionType: defaultExtensionTypes.ratchet_tree, extensionData: encode(ratchetTreeEncoder, ratchetTree) }
  const info = { groupContext, extensions: [ratchetTreeExtension], confirmationTag, signer: privatePath.leafIndex }
  const groupInfo = await signGroupInfo(info, signaturePrivateKey, suite.signature)
  const encryptedGroupInfo = await encryptGroupInfo(groupInfo, secrets.welcomeSecret, suite)
  const own = toLeafIndex(privatePath.leafIndex)
  const forEach = additionalResult.addedLeafNodes.map(async ([leafIndex, keyPackage]) => {
    const ancestor = firstCommonAncestor(ratchetTree, leafIndex, own)
    const pathSecret = pathSecrets.find(({ nodeIndex }) => nodeIndex === ancestor)?.secret
    const groupSecrets = { joinerSecret: secrets.joinerSecret, pathSecret, psks: pskIds }
    const initKey = await suite.hpke.importPublicKey(keyPackage.initKey)
    const { enc, ct } = await encryptGroupSecrets(initKey, encryptedGroupInfo, groupSecrets, suite.hpke)
    return {
      newMember: await makeKeyPackageRef(keyPackage, suite.hash),
      encryptedGroupSecrets: { kemOutput: enc, ciphertext: ct },
    }
  })
  return { cipherSuite: groupContext.cipherSuite, secrets: await Promise.all(forEach), encryptedGroupInfo }
}
