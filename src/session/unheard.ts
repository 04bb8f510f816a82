/** Commits of ours that members were not heard to follow yet: relays take things and forget them, so these are sent again. */
import type { GroupRow, UnheardCommits } from '../store/sessions/groups.ts'

/** More than a member can be behind. */
const MAX_COMMITS = 10

type Of = Pick<GroupRow, 'owner' | 'members' | 'unheard'>

/** With one more, after which the group has these members. */
export function withCommit({ owner, unheard }: Of, members: readonly string[], event: unknown, epoch: number): UnheardCommits | null {
  const commits = [...(unheard?.commits ?? []), { event, epoch }].slice(-MAX_COMMITS)
  return stillUnheard({ owner, members, unheard: { commits, heard: unheard?.heard ?? {}, tries: 0 } })
}

/** Somebody was heard in an epoch, and so has followed us there. */
export function withHeard(row: Of, member: string, epoch: number): UnheardCommits | null {
  if (row.unheard === null || (row.unheard.heard[member] ?? 0) >= epoch) return row.unheard
  return stillUnheard({ ...row, unheard: { ...row.unheard, heard: { ...row.unheard.heard, [member]: epoch } } })
}

/** Without what was undone. @param epoch the one that the group went back to */
export function upTo(row: Of, epoch: number): UnheardCommits | null {
  if (row.unheard === null) return null
  return stillUnheard({ ...row, unheard: { ...row.unheard, commits: row.unheard.commits.filter((one) => one.epoch <= epoch) } })
}

function stillUnheard({ owner, members, unheard }: Of): UnheardCommits | null {
  if (unheard === null) return null
  const others = members.filter((member) => member !== owner)
  const commits = unheard.commits.filter(({ epoch }) => others.some((member) => (unheard.heard[member] ?? 0) < epoch))
  return commits.length === 0 ? null : { ...unheard, commits }
}
