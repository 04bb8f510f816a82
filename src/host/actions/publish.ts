/** Actions that put something on relays: the event is fixed, claimed and enqueued in one write, so it goes out once. */

import { accountOf, agentOwner } from '../../base/accounts.ts'
import { sats } from '../../base/amounts.ts'
import { unixSeconds } from '../../base/clock.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { LruMap } from '../../base/lru.ts'
import { identify, parseIdentified } from '../../nostr/nips/nip01.ts'
import { buildDm04 } from '../../nostr/nips/nip04.ts'
import { replyTags } from '../../nostr/nips/nip10.ts'
import { COMMENT_KIND, commentTags } from '../../nostr/nips/nip22.ts'
import { peopleNamed } from '../../nostr/nips/nip27.ts'
import { buildDm17 } from '../../nostr/nips/nip59.ts'
import type { EventTemplate, IdentifiedEvent } from '../../nostr/types.ts'
import type { Sessions } from '../../session/sessions.ts'
import { type ActionRow, claimAction, finishAction } from '../../store/agents/actions.ts'
import { type AgentRow, getAgent } from '../../store/agents/agents.ts'
import { hasWritten, heardEvent, lastSaidBy } from '../../store/agents/heard.ts'
import { all } from '../../store/commands.ts'
import { actionKey } from '../../store/keys.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import { saidDigest } from '../observation.ts'
import { type HostDeps, ownerOf, relaysOf } from '../parts.ts'
import { inEnvelope, saidIn } from '../session-turns.ts'
import type { Action } from './action.ts'

const DAY_MS = 86_400_000
/** Nobody wants a note later than this. */
const NOTE_TTL_MS = DAY_MS
const DM_TTL_MS = 3 * DAY_MS
const FIND_TIMEOUT_MS = 4000
const CACHED_EVENTS = 1000
/** People named in one text who are told. */
const MAX_NAMED = 10
/** Of these, those whose relays are looked up. */
const MAX_REACHED = 3
const REQUEST_EXPIRY_MS = DAY_MS

type Of<T extends Action['type']> = Extract<Action, { type: T }>

export class Publisher {
  readonly #deps: HostDeps
  readonly #sessionsOf: (pubkey: string) => Sessions | undefined
  readonly #events = new LruMap<string, IdentifiedEvent>(CACHED_EVENTS)

  /** @param sessionsOf of an agent, where it has any */
  constructor(deps: HostDeps, sessionsOf: (pubkey: string) => Sessions | undefined = () => undefined) {
    this.#deps = deps
    this.#sessionsOf = sessionsOf
  }

  /** Keeps an event at hand that an agent may soon answer. */
  remember(event: IdentifiedEvent): void {
    this.#events.set(event.id, event)
  }

  /** @throws action_invalid when no relay has it */
  async find(agent: AgentRow, id: string, hints: readonly string[] = []): Promise<IdentifiedEvent> {
    const known = this.#events.get(id) ?? storedEvent(heardEvent(this.#deps.store, agent.pubkey, id))
    if (known !== undefined) return known
    const relays = [...new Set([...relaysOf(this.#deps, agent), ...this.#deps.nostr.relays, ...hints])]
    const { events } = await this.#deps.nostr.query([{ ids: [id], limit: 1 }], { relays, timeoutMs: FIND_TIMEOUT_MS })
    const found = events.find((event) => event.id === id)
    if (found === undefined) throw new PylonError('action_invalid', `no relay has the event ${id}`)
    this.#events.set(id, found)
    return found
  }

  async post(agent: AgentRow, row: ActionRow, action: Of<'post'>): Promise<void> {
    const tags = [...new Set([...action.text.matchAll(/(?:^|\s)#([\p{L}\p{N}_]{2,40})/gu)].map((match) => (match[1] ?? '').toLowerCase()))]
    const named = mentionTags(action.text, [agent.pubkey])
    const template = { kind: 1, content: action.text, tags: [...tags.slice(0, 10).map((tag) => ['t', tag]), ...named] }
    await this.#publish(agent, row, template, {
      relays: await this.#relaysWith(agent, named),
      digest: saidDigest('post', '', action.text),
      counterparty: null,
    })
  }

  async reply(agent: AgentRow, row: ActionRow, action: Of<'reply'>): Promise<void> {
    const parent = await this.find(agent, action.to, action.relays)
    // NIP-22 is for what NIP-10 does not cover; channels (NIP-28) reply as short notes do.
    const isNote = parent.kind === 1 || parent.kind === 42
    const thread = isNote ? replyTags(parent, agent.pubkey) : commentTags(parent, agent.pubkey)
    const tags = [
      ...thread,
      ...mentionTags(action.text, [agent.pubkey, ...thread.filter((tag) => tag[0] === 'p').map((tag) => tag[1] ?? '')]),
    ]
    const relays = await this.#reach(agent, parent.pubkey, action.relays)
    await this.#publish(
      agent,
      row,
      { kind: isNote ? 1 : COMMENT_KIND, content: action.text, tags },
      {
        relays,
        digest: saidDigest('reply', parent.id, action.text),
        counterparty: parent.pubkey,
      },
    )
  }

  async react(agent: AgentRow, row: ActionRow, action: Of<'react'>): Promise<void> {
    const target = await this.find(agent, action.to, action.relays)
    const tags = [
      ['e', target.id],
      ['p', target.pubkey],
      ['k', String(target.kind)],
    ]
    await this.#publish(
      agent,
      row,
      { kind: 7, content: action.content, tags },
      {
        relays: await this.#reach(agent, target.pubkey, action.relays),
        digest: saidDigest('reply', target.id, `reaction ${action.content}`),
        counterparty: target.pubkey,
      },
    )
  }

  /** NIP-28: a message in a channel. */
  async channel(agent: AgentRow, row: ActionRow, action: Of<'channel'>): Promise<void> {
    await this.#publish(
      agent,
      row,
      {
        kind: 42,
        content: action.text,
        tags: [['e', action.channel, relaysOf(this.#deps, agent)[0] ?? '', 'root'], ...mentionTags(action.text, [agent.pubkey])],
      },
      {
        relays: relaysOf(this.#deps, agent),
        digest: saidDigest('channel', action.channel, action.text),
        counterparty: null,
      },
    )
  }

  /** An invoice of the agent's wallet, sent by DM. The invoice is fixed by the action's key, so trying again makes no other. */
  async requestPayment(agent: AgentRow, row: ActionRow, action: Of<'request_payment'>): Promise<void> {
    const invoice = await this.#deps.wallets.of(ownerOf(agent)).createInvoice({
      idempotencyKey: actionKey.of(row.id),
      cause: { type: 'action', id: row.id },
      amountSats: sats(action.sats),
      creditAccount: accountOf(agentOwner(agent.pubkey), 'income', 'other'),
      ...(action.memo === '' ? {} : { description: action.memo }),
      expiresAt: row.createdAt + REQUEST_EXPIRY_MS,
    })
    const text = `${action.memo === '' ? 'Payment request' : action.memo}: ${action.sats} sats\n${invoice.request}`
    await this.dm(agent, row, { type: 'dm', to: action.to, text, ...given({ relays: action.relays }) })
  }

  /** NIP-17 to the peer's DM relays with a copy to the agent itself, or NIP-04, as the agent's scheme says. */
  async dm(agent: AgentRow, row: ActionRow, action: Of<'dm'>): Promise<void> {
    const { store, clock, nostr, keyring } = this.#deps
    if (await this.#saidInSession(agent, row, action)) return
    const signer = keyring.signer(agent.pubkey)
    const inbox = agent.dmScheme === 'nip04' ? undefined : await this.#dmRelays(agent, action)
    if (inbox === undefined && agent.dmScheme === 'nip17') {
      throw new PylonError('action_refused', 'the peer has no DM relays (kind 10050) and dm_scheme nip17 allows nothing else')
    }
    if (inbox === undefined) {
      const template = await buildDm04(signer, action.to, action.text, unixSeconds(clock))
      await this.#publish(agent, row, template, {
        relays: await this.#reach(agent, action.to, action.relays),
        digest: null,
        counterparty: action.to,
        ttlMs: DM_TTL_MS,
        ...(agent.dmScheme === 'nip04' ? {} : { note: 'sent as kind 4 (NIP-04): the peer publishes no DM relays (kind 10050)' }),
      })
      return
    }
    const at = clock.now()
    const { rumor, wraps } = await buildDm17(signer, [action.to], action.text, unixSeconds(clock))
    const claim = claimAction({ id: row.id, counterparty: action.to, eventId: rumor.id, digest: null, at })
    const commands = wraps.map(({ recipient, event, seal }) => {
      const own = recipient === agent.pubkey
      const relays = own ? relaysOf(this.#deps, agent) : inbox
      return enqueueEvent({ key: `${actionKey.of(row.id)}${own ? ':copy' : ''}`, event, seal, relays, notAfter: at + DM_TTL_MS, at })
    })
    await store.write(all(claim, ...commands))
    nostr.nudgeOutbox()
  }

  /** Who spoke in a session last is answered there. @returns false where it is another way */
  async #saidInSession(agent: AgentRow, row: ActionRow, { to, text }: Of<'dm'>): Promise<boolean> {
    const { store, clock } = this.#deps
    const last = lastSaidBy(store, agent.pubkey, to)
    const sessions = this.#sessionsOf(agent.pubkey)
    const said = last === undefined ? undefined : saidIn(last)
    if (last === undefined || sessions === undefined || said === undefined || sessions.group(said.group)?.state !== 'active') return false
    const at = clock.now()
    const key = actionKey.of(row.id)
    const content = said.reads_envelopes ? inEnvelope(said.group, key, { type: 'assistant_text', text }) : text
    const claim = claimAction({ id: row.id, counterparty: to, eventId: null, digest: null, at })
    const done = finishAction({ id: row.id, state: 'done', reason: null, at })
    await sessions.answer({ id: last.id, groupId: said.group }, [{ content }], key, claim, done)
    return true
  }

  /** Where the peer reads NIP-17. Who wrote so can read it, and is not answered by less because no relay tells its kind 10050 now. */
  async #dmRelays(agent: AgentRow, { to: pubkey, relays: hints = [] }: Of<'dm'>): Promise<readonly string[] | undefined> {
    const { store, nostr } = this.#deps
    const neighbour = getAgent(store, pubkey)
    if (neighbour !== undefined) return relaysOf(this.#deps, neighbour)
    const has = (scheme: 'nip17' | 'nip04') => hasWritten(store, agent.pubkey, pubkey, scheme)
    try {
      const relays = await nostr.dmRelaysOf(pubkey, [...hints, ...relaysOf(this.#deps, agent)])
      if (relays !== undefined && relays.length > 0) return relays
    } catch (error) {
      // Where nobody answered who could know, kind 4 would be a guess: only who wrote so itself is answered so.
      if (!has('nip17') && !has('nip04')) throw error
    }
    return has('nip17') ? this.#reach(agent, pubkey, hints) : undefined
  }

  /** The agent's relays and those where the people whom it names read. */
  async #relaysWith(agent: AgentRow, named: readonly (readonly string[])[]): Promise<readonly string[]> {
    const reached = await Promise.all(named.slice(0, MAX_REACHED).map((tag) => this.#reach(agent, tag[1] ?? '')))
    return [...new Set([...relaysOf(this.#deps, agent), ...reached.flat()])]
  }

  async #reach(agent: AgentRow, pubkey: string, hints: readonly string[] = []): Promise<readonly string[]> {
    const own = relaysOf(this.#deps, agent)
    try {
      return [...new Set([...own, ...(await this.#deps.nostr.relaysToReach(pubkey, hints))])]
    } catch (error) {
      this.#deps.logger.warn({ agent: agent.name, error: messageOf(error) }, 'the relays of a peer are not known')
      return own
    }
  }

  async #publish(
    agent: AgentRow,
    row: ActionRow,
    template: Omit<EventTemplate, 'created_at'>,
    how: { relays: readonly string[]; digest: string | null; counterparty: string | null; ttlMs?: number; note?: string },
  ): Promise<void> {
    const { store, clock, nostr } = this.#deps
    const at = clock.now()
    const event = identify(agent.pubkey, { ...template, created_at: Math.floor(at / 1000) })
    this.remember(event)
    await store.write(
      all(
        claimAction({
          id: row.id,
          counterparty: how.counterparty,
          eventId: event.id,
          digest: how.digest,
          at,
          ...given({ note: how.note }),
        }),
        enqueueEvent({ key: actionKey.of(row.id), event, relays: how.relays, notAfter: at + (how.ttlMs ?? NOTE_TTL_MS), at }),
      ),
    )
    nostr.nudgeOutbox()
  }
}

function storedEvent(value: unknown): IdentifiedEvent | undefined {
  if (value === undefined) return undefined
  try {
    return parseIdentified(value)
  } catch {
    // Of a former version: it is asked for on the relays.
    return undefined
  }
}

/** People named in the text, besides those who are told anyway. */
function mentionTags(text: string, without: readonly string[]): string[][] {
  const people = peopleNamed(text, MAX_NAMED + without.length).filter((pubkey) => !without.includes(pubkey))
  return people.slice(0, MAX_NAMED).map((pubkey) => ['p', pubkey])
}
