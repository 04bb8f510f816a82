/** One group at work: its line, what comes for it, what it changes. */
import { PylonError } from '../base/errors.ts'
import type { Subscription } from '../nostr/types.ts'
import type { GroupRow } from '../store/sessions/groups.ts'
import { GroupCommits } from './group-commits.ts'
import { GroupIntake } from './group-intake.ts'
import { GroupLine, type LineDeps, notFound } from './group-line.ts'
import { groupDataOf, groupDataProposal, removeProposals } from './mls/group.ts'
import { writeLeaving } from './mls/messages.ts'
import { changed } from './standing.ts'
import { GROUP_EVENT_KIND, MAX_CONTENT_CHARS, sealGroupEvent } from './wire/group-event.ts'

/** Before we came nothing can be read; a welcome may have waited for us. */
const BACKFILL_S = 3 * 86_400
/** A commit is sent again, as it was, while nobody followed it. */
const LATENESS_S = 7 * 86_400

export class SessionGroup {
  readonly line: GroupLine
  readonly commits: GroupCommits
  readonly #intake: GroupIntake
  #subscription: Subscription | undefined

  constructor(deps: LineDeps, id: string) {
    // Of this group alone: what waits for it ends with it.
    const scope = deps.scope.child(`group ${id.slice(0, 12)}`)
    this.line = new GroupLine({ ...deps, scope }, id)
    this.commits = new GroupCommits(this.line, () => scope.spawn('read again', () => this.#intake.readAgain()))
    this.#intake = new GroupIntake(this.line, this.commits)
  }

  get row(): GroupRow {
    const row = this.line.peek()
    if (row === undefined) throw notFound(this.line.id)
    return row
  }

  get refused(): number {
    return this.#intake.refused
  }

  start(): void {
    const { nostr, scope } = this.line.deps
    const { id, owner } = this.line
    this.#subscription = nostr.subscribe({
      name: `session:${owner.slice(0, 12)}:${id.slice(0, 16)}`,
      filters: [{ kinds: [GROUP_EVENT_KIND], '#h': [id] }],
      relays: this.line.relaysOf(this.row),
      latenessS: LATENESS_S,
      backfillS: BACKFILL_S,
      isWorthIt: ({ content }) => content.length <= MAX_CONTENT_CHARS,
      onEvent: (event) => this.#intake.receive(event),
    })
    this.commits.resume(this.row)
    scope.spawn('gaps', () => this.#intake.resume())
  }

  close(): void {
    this.#subscription?.close()
    this.line.deps.scope.end()
  }

  /** @throws session_refused */
  async leave(): Promise<void> {
    const { owner } = this.line
    const others = this.row.members.filter((member) => member !== owner)
    const isAdmin = this.row.admins.includes(owner)
    if (isAdmin && this.row.admins.length === 1 && others.length > 0) await this.#takeOut(others)
    else if (isAdmin) await this.#stepDown()
    await this.line.run('leave', async (standing) => {
      const { row } = standing
      const gone = { state: 'left', pending: null, pendingState: null, unheard: null } as const
      const key = standing.keys[0]?.key
      if (key === undefined || row.members.length === 1) return this.line.commit(changed(standing, gone))
      const { state, message } = await writeLeaving(standing.mls)
      const event = sealGroupEvent(row.id, key, message, this.line.nowS, this.line.deps.scope.random)
      return this.line.commit(changed(standing, gone, state), ...this.line.publish(row, 'leave', event.id, event))
    })
    this.line.deps.nostr.nudgeOutbox()
  }

  #takeOut(others: readonly string[]): Promise<void> {
    return this.commits.make(async ({ mls }) => ({ order: { proposals: others.flatMap((other) => removeProposals(mls, other)) } }))
  }

  /** An admin who leaves is none any more (MIP-01). */
  async #stepDown(): Promise<void> {
    const { owner } = this.line
    await this.commits.make(async ({ mls, row }) => {
      const admins = row.admins.filter((admin) => admin !== owner)
      if (admins.length === row.admins.length) return undefined
      if (!admins.some((admin) => row.members.includes(admin)))
        throw new PylonError('session_refused', 'No admin would be left in the group.')
      return { order: { proposals: [groupDataProposal(mls, { ...groupDataOf(mls), admins })] } }
    })
  }
}
