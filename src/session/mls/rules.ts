/** What a commit may do (MIP-01, MIP-03): admins anything that keeps the group whole, others renew their own keys, or let somebody go who asked to. */

import type { ProposalWithSender } from 'ts-mls'
import { type ClientState, defaultProposalTypes, type Proposal } from 'ts-mls'
import { groupDataIn, groupDataOf, identityAt, identityOf, membersOf } from './group.ts'

export type CommitVerdict =
  | { readonly verdict: 'accept' }
  /** An admin takes us out. */
  | { readonly verdict: 'removed' }
  | { readonly verdict: 'refuse'; readonly why: string }

const refuse = (why: string): CommitVerdict => ({ verdict: 'refuse', why })

/** Before anything of it is applied. @param senderLeaf undefined for who is no member */
export function judgeCommit(state: ClientState, senderLeaf: number | undefined, proposals: readonly ProposalWithSender[]): CommitVerdict {
  const sender = senderLeaf === undefined ? undefined : identityAt(state.ratchetTree, senderLeaf)
  if (sender === undefined) return refuse('whoever made it is no member')
  const data = groupDataOf(state)
  const isAdmin = data.admins.includes(sender)
  const onlyLeaves = proposals.every(
    ({ proposal, senderLeafIndex }) => removedLeaf(proposal) !== undefined && removedLeaf(proposal) === senderLeafIndex,
  )
  if (!isAdmin && proposals.length > 0 && !onlyLeaves) return refuse('whoever made it is no admin')
  for (const { proposal, senderLeafIndex } of proposals) {
    const why = faultOf(state, proposal, senderLeafIndex)
    if (why !== undefined) return refuse(why)
  }
  return removesUs(state, proposals) ? { verdict: 'removed' } : { verdict: 'accept' }
}

/**
 * Whether a commit takes us out of the group; the callback of ts-mls must answer `reject` then: to apply such a commit is an
 * endless loop in it where our leaf was the last.
 */
export const removesUs = (state: ClientState, proposals: readonly ProposalWithSender[]): boolean =>
  proposals.some(({ proposal }) => removedLeaf(proposal) === state.privatePath.leafIndex)

function removedLeaf(proposal: Proposal): number | undefined {
  return proposal.proposalType === defaultProposalTypes.remove && 'remove' in proposal ? proposal.remove.removed : undefined
}

function faultOf(state: ClientState, proposal: Proposal, senderLeaf: number | undefined): string | undefined {
  switch (proposal.proposalType) {
    case defaultProposalTypes.add:
    case defaultProposalTypes.remove:
      return undefined
    case defaultProposalTypes.update:
      return 'update' in proposal &&
        senderLeaf !== undefined &&
        identityOf(proposal.update.leafNode) === identityAt(state.ratchetTree, senderLeaf)
        ? undefined
        : 'a member became another one'
    case defaultProposalTypes.group_context_extensions:
      return 'groupContextExtensions' in proposal ? faultOfData(state, proposal.groupContextExtensions.extensions) : undefined
    default:
      return `it has a proposal of type ${proposal.proposalType}, which Marmot has no use for`
  }
}

function faultOfData(state: ClientState, extensions: Parameters<typeof groupDataIn>[0]): string | undefined {
  try {
    const data = groupDataIn(extensions)
    if (data.nostrGroupId !== groupDataOf(state).nostrGroupId) return 'it gives the group another id'
    return data.admins.length === 0 ? 'it leaves the group without an admin' : undefined
  } catch {
    // What is wrong with it is its sender's to find out.
    return 'the data that it gives the group is malformed'
  }
}

/** After it was applied: whoever made it is who it was, and there is still an admin. Undefined when all is well. */
export function faultAfter(before: ClientState, after: ClientState, senderLeaf: number): string | undefined {
  if (identityAt(before.ratchetTree, senderLeaf) !== identityAt(after.ratchetTree, senderLeaf)) return 'a member became another one'
  const members = membersOf(after)
  return groupDataOf(after).admins.some((admin) => members.includes(admin)) ? undefined : 'no admin is left in the group'
}
