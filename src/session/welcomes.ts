/** What comes to this key in gift wraps: welcomes bring it into groups, all else is handed on. Each wrap is opened once. */
import { isPylonError, messageOf, PylonError } from '../base/errors.ts'
import { isKeyAway } from '../nostr/keys/away.ts'
import { unwrap, WRAP_KIND } from '../nostr/nips/nip59.ts'
import { createVerifier } from '../nostr/reading/verify.ts'
import type { IdentifiedEvent, NostrEvent } from '../nostr/types.ts'
import { all } from '../store/commands.ts'
import { sessionSeen } from '../store/keys.ts'
import { claimEvent, wasSeen } from '../store/nostr/seen-events.ts'
import { type EpochRow, type GroupRow, getGroup, insertGroup, listGroups } from '../store/sessions/groups.ts'
import { keyPackageByRef, useKeyPackage } from '../store/sessions/key-packages.ts'
import { groupDataOf, joinByWelcome } from './mls/group.ts'
import { epochRow, rowOf, shownOf } from './standing.ts'
import type { SessionsDeps } from './types.ts'
import { readWelcome, WELCOME_KIND } from './wire/welcome.ts'

/** Gift wraps are dated up to two days back. */
export const WRAP_OVERLAP_S = 3 * 86_400
export const MAX_WRAP_CHARS = 1_048_576
/** Groups of one key. */
const MAX_GROUPS = 1000
const MAX_SECRETS = 200

export class Welcomes {
  readonly #deps: SessionsDeps
  readonly #owner: string
  readonly #verifier = createVerifier()
  readonly #onJoined: (row: GroupRow) => void
  #refused = 0

  /** @param onJoined called after it was committed */
  constructor(deps: SessionsDeps, onJoined: (row: GroupRow) => void) {
    this.#deps = deps
    this.#owner = deps.signer.pubkey
    this.#onJoined = onJoined
  }

  get refused(): number {
    return this.#refused
  }

  get filters() {
    return [{ kinds: [WRAP_KIND], '#p': [this.#owner] }]
  }

  async receive(wrap: NostrEvent): Promise<void> {
    const { store, onRumor } = this.#deps
    if (wasSeen(store, sessionSeen(this.#owner, wrap.id))) return
    const rumor = await this.#open(wrap)
    if (rumor?.kind === WELCOME_KIND) return this.accept(rumor, wrap.id)
    if (rumor !== undefined) await onRumor?.(rumor, wrap.id)
    await store.write(this.#seen(wrap.id))
  }

  #seen(id: string) {
    return claimEvent({ id: sessionSeen(this.#owner, id), subscription: 'session', at: this.#deps.scope.clock.now() })
  }

  async #open(wrap: NostrEvent): Promise<IdentifiedEvent | undefined> {
    try {
      return await unwrap(this.#deps.signer, wrap, this.#verifier, 'anybody')
    } catch (error) {
      if (isKeyAway(error)) throw error
      this.#deps.logger.debug({ event_id: wrap.id, error: messageOf(error) }, 'a gift wrap could not be opened')
      return undefined
    }
  }

  /** A welcome, by relay or from elsewhere; the same again does nothing. @param wrapId undefined where no wrap brought it */
  accept(rumor: IdentifiedEvent, wrapId: string | undefined): Promise<void> {
    return this.#deps.scope.once(`welcome ${rumor.id}`, () => this.#accept(rumor, wrapId))
  }

  async #accept(rumor: IdentifiedEvent, wrapId: string | undefined): Promise<void> {
    const { store, logger } = this.#deps
    const claims = [this.#seen(rumor.id), ...(wrapId === undefined ? [] : [this.#seen(wrapId)])]
    if (wasSeen(store, sessionSeen(this.#owner, rumor.id))) {
      await store.write(all(...claims))
      return
    }
    try {
      const { row, ref, epoch } = await this.#join(rumor)
      await store.write(all(insertGroup({ group: row, epoch }), useKeyPackage({ owner: this.#owner, ref }), ...claims))
      logger.info({ group: row.name, by: rumor.pubkey }, 'this key was brought into a session')
      this.#onJoined(row)
    } catch (error) {
      if (!isPylonError(error, 'session_refused')) throw error
      this.#refused++
      logger.warn({ by: rumor.pubkey, why: error.message }, 'a welcome to a session was refused')
      await store.write(all(...claims))
    }
  }

  /** @throws session_refused */
  async #join(rumor: IdentifiedEvent): Promise<{ row: GroupRow; ref: string; epoch: EpochRow }> {
    const { mayInvite, store, scope } = this.#deps
    if (!mayInvite(rumor.pubkey)) throw refused('whoever sent it may not bring this key into a session')
    const welcome = readWelcome(rumor)
    const refs = welcome.secrets.slice(0, MAX_SECRETS).map(({ newMember }) => Buffer.from(newMember).toString('hex'))
    const own = refs.map((ref) => keyPackageByRef(store, this.#owner, ref)).find((one) => one !== undefined)
    if (own === undefined) throw refused('it is for a key package that this key does not have, or has no more')
    const mls = await joinByWelcome(welcome, own).catch((error: unknown) => {
      throw refused(messageOf(error))
    })
    const { nostrGroupId: id } = groupDataOf(mls)
    const shown = shownOf(mls)
    if (!shown.members.includes(this.#owner)) throw refused('this key is no member of the group')
    if (!shown.members.includes(rumor.pubkey) || !shown.admins.includes(rumor.pubkey))
      throw refused('whoever sent it is no admin of the group')
    const known = getGroup(store, this.#owner, id)
    if (known?.state === 'active') throw refused('this key is in a session of this name already')
    if (known === undefined && listGroups(store, this.#owner).length >= MAX_GROUPS) throw refused('this key is in too many sessions')
    const row = rowOf(mls, {
      ...{ owner: this.#owner, id, orderKey: null, joinedEpoch: shown.epoch, welcomes: [], updateDue: true },
      ...{ nextSaid: known?.nextSaid ?? 1, createdAt: scope.clock.now() },
    })
    return { row, ref: own.ref, epoch: await epochRow(this.#owner, id, mls) }
  }
}

function refused(why: string): PylonError {
  return new PylonError('session_refused', `The welcome is refused: ${why}.`)
}
