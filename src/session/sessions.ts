/** All sessions of one key: its key packages, the welcomes that it gets, its groups with what is said in them. */
import { unixSeconds } from '../base/clock.ts'
import { DEFAULT_CONFIG } from '../base/config.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import { News } from '../base/news.ts'
import { relayUrls } from '../nostr/relay/relay-url.ts'
import type { IdentifiedEvent } from '../nostr/types.ts'
import { all, type Command } from '../store/commands.ts'
import { sessionMessages } from '../store/keys.ts'
import { type GroupRow, getGroup, groupByOrder, insertGroup, listGroups, sweepUnread } from '../store/sessions/groups.ts'
import { type MessageRow, markHandled, newestMessages, pageOfMessages } from '../store/sessions/messages.ts'
import { wrapWelcome } from './group-commits.ts'
import { closed, notFound } from './group-line.ts'
import { Handing } from './handlers.ts'
import { makeCommit } from './mls/commit.ts'
import { mlsContext } from './mls/context.ts'
import { addProposal, groupDataOf, groupDataProposal, removeProposals, startGroup } from './mls/group.ts'
import { newKeyPackage } from './mls/key-package.ts'
import { OwnKeyPackages } from './own-key-packages.ts'
import { type FoundKeyPackage, findKeyPackage } from './peers.ts'
import { forgetMessages } from './retention.ts'
import { SessionGroup } from './session-group.ts'
import { epochRow, groupOfRow, rowOf } from './standing.ts'
import type { Created, CreateOrder, Group, PublishedKeyPackage, Said, SentWelcome, SessionMessage, SessionsDeps } from './types.ts'
import { MAX_WRAP_CHARS, Welcomes, WRAP_OVERLAP_S } from './welcomes.ts'
import { newGroupData } from './wire/group-data.ts'
import { newGroupId } from './wire/group-event.ts'
import { welcomeBytes, welcomeRumor } from './wire/welcome.ts'

const DAY_MS = 86_400_000
const SWEEP_MS = 3_600_000
const UNREAD_DAYS = 7
const LIFETIME_S = 90 * 86_400
const MLS_ID_BYTES = 16

export class Sessions {
  /** Woken under the id of a group at each new message of it, and at each step of one of ours. */
  readonly news: News
  readonly #deps: SessionsDeps
  readonly #owner: string
  readonly #keyPackages: OwnKeyPackages
  readonly #welcomes: Welcomes
  readonly #handing: Handing
  readonly #groups = new Map<string, SessionGroup>()
  #isStarted = false

  constructor(deps: SessionsDeps) {
    this.#deps = deps
    this.#owner = deps.signer.pubkey
    this.news = new News(deps.scope)
    this.#keyPackages = new OwnKeyPackages(deps)
    this.#welcomes = new Welcomes(deps, (row) => this.#onJoined(row))
    this.#handing = new Handing(deps)
  }

  /** Publishes what is missing and listens. */
  start(): void {
    const { nostr, scope, via, relays } = this.#deps
    this.#isStarted = true
    this.#keyPackages.start()
    nostr.subscribe({
      name: `session:${this.#owner.slice(0, 16)}:wraps`,
      filters: this.#welcomes.filters,
      relays: via ?? relayUrls([...nostr.relays, ...relays]),
      overlapS: WRAP_OVERLAP_S,
      backfillS: WRAP_OVERLAP_S,
      isWorthIt: ({ content }) => content.length <= MAX_WRAP_CHARS,
      onEvent: (event) => this.#welcomes.receive(event),
    })
    for (const row of listGroups(this.#deps.store, this.#owner)) if (row.state === 'active') this.#open(row.id)
    const said = sessionMessages('message', this.#owner)
    const committed = sessionMessages('commit', this.#owner)
    nostr.onPublished(said.of(''), (key) => this.#onSaid(said.idIn(key), 'sent', null))
    nostr.onGivenUp(said.of(''), (key, why) => this.#onSaid(said.idIn(key), 'refused', why))
    nostr.onPublished(committed.of(''), (key) => this.#onCommit(committed.idIn(key), undefined))
    nostr.onGivenUp(committed.of(''), (key, why) => this.#onCommit(committed.idIn(key), why))
    scope.every('sweep', SWEEP_MS, () => this.#sweep())
  }

  keyPackages(): PublishedKeyPackage[] {
    const current = this.#keyPackages.current()
    return current === undefined ? [] : [current]
  }

  rotateKeyPackage(): Promise<void> {
    return this.#keyPackages.rotate()
  }

  /**
   * A group with these peers, of whom only we are admin. Idempotent by its key.
   * @throws session_no_key_package, session_key_package_invalid
   */
  create(order: CreateOrder): Promise<Created> {
    return this.#deps.scope.once(`create ${order.key}`, () => this.#create(order))
  }

  async #create(order: CreateOrder): Promise<Created> {
    const known = groupByOrder(this.#deps.store, this.#owner, order.key)
    if (known !== undefined) return createdOf(known)
    const { relays, timeoutMs, signal } = order
    const wanted = [...new Set(order.peers)].map((pubkey) => findKeyPackage(this.#deps, { pubkey, relays, timeoutMs, signal }))
    const row = await this.#begin(order, await Promise.all(wanted))
    this.#deps.nostr.nudgeOutbox()
    this.#open(row.id)
    return createdOf(row)
  }

  async #begin(order: CreateOrder, peers: readonly FoundKeyPackage[]): Promise<GroupRow> {
    const { scope, store } = this.#deps
    const [at, nowS, relays] = [scope.clock.now(), unixSeconds(scope.clock), relayUrls(order.relays)]
    const id = newGroupId(scope.random)
    const own = await newKeyPackage(this.#owner, { notBefore: nowS - 3600, notAfter: nowS + LIFETIME_S })
    const data = newGroupData({ nostrGroupId: id, name: order.name, admins: [this.#owner], relays })
    const alone = await startGroup(
      own,
      scope.random.bytes(MLS_ID_BYTES),
      data,
      peers.map(({ keyPackage }) => keyPackage),
    )
    const proposals = peers.map(({ keyPackage }) => addProposal(keyPackage))
    const { after, welcome } = await makeCommit(await mlsContext(), alone, { proposals })
    const bytes = welcome === undefined ? new Uint8Array() : welcomeBytes(welcome)
    const wrapped = await Promise.all(
      peers.map((peer) => {
        const rumor = welcomeRumor({ author: this.#owner, welcome: bytes, relays, keyPackageEventId: peer.eventId, atS: nowS })
        return wrapWelcome(this.#deps, { peer: peer.pubkey, relays: peer.relays, rumor })
      }),
    )
    const row = rowOf(after, {
      ...{ owner: this.#owner, id, orderKey: order.key, joinedEpoch: 0, nextSaid: 1, updateDue: false, createdAt: at },
      welcomes: wrapped.map(({ welcome: sent }) => sent),
    })
    const epoch = await epochRow(this.#owner, id, after)
    await store.write(all(insertGroup({ group: row, epoch }), ...wrapped.map(({ command }) => command)))
    return row
  }

  /** How much that came was refused since the start: welcomes, and events of groups. The log says why. */
  get refused(): number {
    return [...this.#groups.values()].reduce((sum, group) => sum + group.refused, this.#welcomes.refused)
  }

  groups(): Group[] {
    return listGroups(this.#deps.store, this.#owner).map(groupOfRow)
  }

  group(id: string): Group | undefined {
    const row = getGroup(this.#deps.store, this.#owner, id)
    return row === undefined ? undefined : groupOfRow(row)
  }

  /** The newest active one with just this peer. */
  groupWith(peer: string): Group | undefined {
    const isWith = ({ state, members }: Group) => state === 'active' && members.length === 2 && members.includes(peer)
    return this.groups().findLast(isWith)
  }

  /** Once for each key. @throws session_not_found, session_closed, session_refused */
  async send(groupId: string, said: Said, key: string): Promise<SessionMessage> {
    return messageOfRow(await this.#group(groupId).line.send(said, key))
  }

  /** Marks the message handled and says all of the answer, in one commit; once for each key. @throws session_closed */
  async answer(
    message: Pick<SessionMessage, 'id' | 'groupId'>,
    said: readonly Said[],
    key: string,
    ...more: Command<unknown>[]
  ): Promise<void> {
    const handled = markHandled({ owner: this.#owner, groupId: message.groupId, id: message.id })
    if (said.length === 0) await this.#deps.store.write(all(handled, ...more))
    else await this.#group(message.groupId).line.sendAll(said, key, handled, ...more)
  }

  messages(groupId: string, page: { readonly after?: number; readonly limit: number }): SessionMessage[] {
    return pageOfMessages(this.#deps.store, this.#owner, groupId, page.after ?? 0, page.limit).map(messageOfRow)
  }

  /** The newest, oldest first. */
  newest(groupId: string, limit: number): SessionMessage[] {
    return newestMessages(this.#deps.store, this.#owner, groupId, limit).map(messageOfRow)
  }

  /** Called at least once for each message of others that is not handled, in order, one at a time for each group; also after a restart. */
  onMessage(handler: (message: SessionMessage) => Promise<void>): void {
    this.#handing.handler = (row) => handler(messageOfRow(row))
    for (const { id } of listGroups(this.#deps.store, this.#owner)) this.#handing.look(id)
  }

  /** A welcome that came by another way than a relay; the same again does nothing. Refused ones are logged. */
  acceptWelcome(rumor: IdentifiedEvent): Promise<void> {
    return this.#welcomes.accept(rumor, undefined)
  }

  /** @throws session_no_key_package, session_key_package_invalid, session_closed, session_refused */
  async addMember(groupId: string, peer: string, timeoutMs: number): Promise<void> {
    const { row } = this.#group(groupId)
    const found = await findKeyPackage(this.#deps, { pubkey: peer, relays: row.relays, timeoutMs })
    await this.#group(groupId).commits.make(async (standing) => {
      this.#assertAdmin(standing.row)
      if (standing.row.members.includes(peer)) return undefined
      const added = [{ pubkey: peer, keyPackageEventId: found.eventId, relays: found.relays }]
      return { order: { proposals: [addProposal(found.keyPackage)] }, added }
    })
  }

  /** @throws session_closed, session_refused */
  async removeMember(groupId: string, peer: string): Promise<void> {
    await this.#group(groupId).commits.make(async ({ row, mls }) => {
      this.#assertAdmin(row)
      const proposals = removeProposals(mls, peer)
      return proposals.length === 0 ? undefined : { order: { proposals } }
    })
  }

  /** @throws session_closed, session_refused */
  async rename(groupId: string, name: string): Promise<void> {
    await this.#group(groupId).commits.make(async ({ row, mls }) => {
      this.#assertAdmin(row)
      return row.name === name ? undefined : { order: { proposals: [groupDataProposal(mls, { ...groupDataOf(mls), name })] } }
    })
  }

  /** New keys for our own leaf. @throws session_closed, session_refused */
  selfUpdate(groupId: string): Promise<void> {
    return this.#group(groupId).commits.selfUpdate()
  }

  /** Asks to be let go; the only admin takes all others out. From then on nothing is said or heard. @throws session_refused */
  async leave(groupId: string): Promise<void> {
    const group = this.#group(groupId)
    await group.leave()
    this.#groups.delete(groupId)
    group.close()
    this.news.tell(groupId)
  }

  #assertAdmin(row: GroupRow): void {
    if (!row.admins.includes(this.#owner)) throw new PylonError('session_refused', 'Only an admin of the group may change it.')
  }

  /** @throws session_not_found, session_closed */
  #group(id: string): SessionGroup {
    const row = getGroup(this.#deps.store, this.#owner, id)
    if (row === undefined) throw notFound(id)
    if (row.state !== 'active') throw closed(row)
    return this.#open(id)
  }

  #open(id: string): SessionGroup {
    const known = this.#groups.get(id)
    if (known !== undefined) return known
    const deps = { ...this.#deps, onNew: (groupId: string) => this.#onNew(groupId) }
    const group = new SessionGroup(deps, id)
    this.#groups.set(id, group)
    if (this.#isStarted) group.start()
    return group
  }

  #onNew(groupId: string): void {
    this.news.tell(groupId)
    this.#handing.look(groupId)
    const group = this.#groups.get(groupId)
    if (group === undefined || group.row.state === 'active') return
    this.#groups.delete(groupId)
    group.close()
  }

  #onJoined({ id }: GroupRow): void {
    this.#groups.get(id)?.close()
    this.#groups.delete(id)
    this.#open(id)
    this.news.tell(id)
    this.#deps.scope.spawn('rotate', () => this.rotateKeyPackage())
  }

  async #onSaid(id: string | undefined, state: 'sent' | 'refused', why: string | null): Promise<void> {
    const [groupId = '', rumorId = ''] = id?.split(':') ?? []
    if (getGroup(this.#deps.store, this.#owner, groupId)?.state === 'active') await this.#open(groupId).line.markSaid(rumorId, state, why)
  }

  async #onCommit(id: string | undefined, why: string | undefined): Promise<void> {
    const [groupId = '', eventId = ''] = id?.split(':') ?? []
    if (getGroup(this.#deps.store, this.#owner, groupId)?.state !== 'active') return
    const { commits } = this.#open(groupId)
    await (why === undefined ? commits.accepted(eventId) : commits.givenUp(eventId, why))
  }

  async #sweep(): Promise<void> {
    const { store, scope, logger, config } = this.#deps
    const owner = this.#owner
    const groups = listGroups(store, owner).map(({ id }) => id)
    const { retention } = (config ?? (() => DEFAULT_CONFIG))()
    try {
      await store.write(sweepUnread({ owner, before: scope.clock.now() - UNREAD_DAYS * DAY_MS }))
      await forgetMessages({ store, scope, owner, groups, retention })
    } catch (error) {
      logger.warn({ error: messageOf(error) }, 'old messages of sessions could not be removed')
    }
  }
}

const createdOf = (row: GroupRow): Created => ({ group: groupOfRow(row), welcomes: row.welcomes as readonly SentWelcome[] })

function messageOfRow({ id, seq, groupId, sender, isOwn, kind, content, tags, createdAt, state, reason }: MessageRow): SessionMessage {
  return { id, seq, groupId, sender, isOwn, kind, content, tags, createdAt, state, reason }
}
