/** What is said to an agent on relays: verified, opened, claimed once, kept until a tick observes it. */
import { hash } from 'node:crypto'
import { unixSeconds } from '../base/clock.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import { isKeyAway } from '../nostr/keys/away.ts'
import { isHex64, tagValue } from '../nostr/nips/nip01.ts'
import { openDm04 } from '../nostr/nips/nip04.ts'
import { COMMENT_KIND } from '../nostr/nips/nip22.ts'
import { isExpired } from '../nostr/nips/nip40.ts'
import { validateReceipt } from '../nostr/nips/nip57.ts'
import { CHAT_KIND, unwrap, WRAP_KIND } from '../nostr/nips/nip59.ts'
import { createVerifier } from '../nostr/reading/verify.ts'
import type { IdentifiedEvent, NostrEvent, Subscription } from '../nostr/types.ts'
import type { SessionMessage } from '../session/types.ts'
import { countSpokenTo } from '../store/agents/actions.ts'
import { type AgentRow, getAgent } from '../store/agents/agents.ts'
import { answersUpTo } from '../store/agents/exchanges.ts'
import { type HeardRow, hear, markWrapOpened, wasHeard, wasWrapOpened } from '../store/agents/heard.ts'
import { all, type Command } from '../store/commands.ts'
import { readInvoice } from '../wallet/lightning/bolt11.ts'
import type { RedeemedNutzap } from '../wallet/nutzaps/nutzaps.ts'
import { allowRelays, type HostDeps, ownerOf, relaysOf } from './parts.ts'
import { MAX_TURNS } from './policy.ts'
import { MAX_TRIGGER_AGE_MS, wakes } from './schedule.ts'
import type { SaidIn } from './session-turns.ts'

const DAY_S = 86_400
/** What is older wakes nobody. */
const MAX_TRIGGER_AGE_S = MAX_TRIGGER_AGE_MS / 1000
const HOUR_MS = 3_600_000
const MINUTE_MS = 60_000
const MAX_CONTENT_CHARS = 4000
const MAX_KEPT_TAGS = 50
const MAX_KEPT_VALUES = 5
const MAX_KEPT_CHARS = 200
/** Gift wraps are dated up to two days back. */
const WRAP_OVERLAP_S = 3 * DAY_S
const REREAD_MS = 600_000

type Heard = Pick<HeardRow, 'id' | 'type' | 'sender' | 'content' | 'scheme' | 'amountMsats' | 'event' | 'createdAt'>

export class Inbox {
  readonly #deps: HostDeps
  readonly #onHeard: (agent: AgentRow) => void
  readonly #verifier = createVerifier()
  readonly #subscriptions = new Map<string, Subscription[]>()
  /** Of each agent that is listened for. */
  readonly #listening = new Map<string, AbortController>()
  readonly #dropped = new Map<string, { readonly count: number; readonly toldAt: number }>()

  /** @param onHeard called after something new was committed. */
  constructor(deps: HostDeps, onHeard: (agent: AgentRow) => void) {
    this.#deps = deps
    this.#onHeard = onHeard
    deps.nutzaps?.onRedeemed((nutzap) => this.receiveNutzap(nutzap))
  }

  /** Listens for the agent, anew when it listens already. */
  watch(agent: AgentRow): void {
    this.unwatch(agent.pubkey)
    allowRelays(this.#deps, agent)
    this.#deps.nutzaps?.watch(ownerOf(agent), relaysOf(this.#deps, agent))
    const short = agent.pubkey.slice(0, 16)
    const relays = agent.relays.length > 0 ? { relays: agent.relays } : {}
    const listening = new AbortController()
    this.#listening.set(agent.pubkey, listening)
    // Who holds the key may be long about it: nobody waits for that once nobody listens.
    const onEvent = (event: NostrEvent) => unlessEnded(this.receive(agent.pubkey, event), listening.signal)
    this.#subscriptions.set(agent.pubkey, [
      this.#deps.nostr.subscribe({
        name: `agent-${short}-mentions`,
        filters: [{ kinds: [1, 4, COMMENT_KIND, 9735], '#p': [agent.pubkey] }],
        overlapS: MAX_TRIGGER_AGE_S,
        backfillS: MAX_TRIGGER_AGE_S,
        ...relays,
        onEvent,
      }),
      this.#deps.nostr.subscribe({
        name: `agent-${short}-wraps`,
        filters: [{ kinds: [WRAP_KIND], '#p': [agent.pubkey] }],
        overlapS: WRAP_OVERLAP_S,
        backfillS: WRAP_OVERLAP_S,
        // A private message may bring ecash, and nobody sends it twice.
        rereadMs: REREAD_MS,
        ...relays,
        onEvent,
      }),
    ])
  }

  unwatch(pubkey: string): void {
    this.#listening.get(pubkey)?.abort()
    this.#listening.delete(pubkey)
    for (const subscription of this.#subscriptions.get(pubkey) ?? []) subscription.close()
    this.#subscriptions.delete(pubkey)
    this.#deps.nutzaps?.unwatch(pubkey)
  }

  close(): void {
    for (const pubkey of [...this.#subscriptions.keys()]) this.unwatch(pubkey)
  }

  /** Claims one event for an agent. Rejects only when it should come again. */
  async receive(pubkey: string, event: NostrEvent): Promise<void> {
    const agent = getAgent(this.#deps.store, pubkey)
    if (agent === undefined || wasHeard(this.#deps.store, pubkey, event.id)) return
    const heard = await this.#read(agent, event)
    if (heard === undefined || heard.sender === pubkey) return
    const opened = event.kind === WRAP_KIND ? [markWrapOpened({ agentPubkey: pubkey, id: event.id, at: this.#deps.clock.now() })] : []
    await this.#keep(agent, heard, opened)
  }

  /** What was said to an agent in a session; the same again does nothing. @returns whether it found a place */
  async receiveSaid(agent: AgentRow, { id, sender, createdAt }: SessionMessage, content: string, where: SaidIn): Promise<boolean> {
    const said = { id, type: 'dm', sender, content, scheme: 'mls', amountMsats: null, event: where, createdAt } as const
    return (await this.#keep(agent, said, [])) !== 'full'
  }

  /** A zap whose sats its wallet has already; the same again does nothing. */
  async receiveNutzap({ id, recipient, sender, comment, zapped, amountSats, createdAt }: RedeemedNutzap): Promise<void> {
    const agent = getAgent(this.#deps.store, recipient)
    if (agent === undefined || sender === recipient) return
    const event = { zapped, receipt: id }
    await this.#keep(
      agent,
      { id, type: 'zap', sender, content: comment, scheme: null, amountMsats: amountSats * 1000n, event, createdAt },
      [],
    )
  }

  async #keep(agent: AgentRow, heard: Heard, more: readonly Command<unknown>[]): Promise<'new' | 'known' | 'full'> {
    const { store, clock } = this.#deps
    const { pubkey } = agent
    const nowMs = clock.now()
    const said = { ...heard, content: heard.content.slice(0, MAX_CONTENT_CHARS), agentPubkey: pubkey, heardAt: nowMs }
    const row: HeardRow = {
      ...said,
      wakes: wakes({
        createdAtMs: heard.createdAt * 1000,
        bornAtMs: agent.createdAt,
        nowMs,
        repliesToSender: countSpokenTo(store, pubkey, heard.sender, nowMs - HOUR_MS),
        replyCap: this.#deps.config().host.replies_per_hour,
        answersBefore: answersUpTo(store, said, MAX_TURNS),
      }),
    }
    const [outcome] = await store.write(all(hear(row), ...more))
    if (outcome === 'new') this.#onHeard(agent)
    if (outcome === 'full') this.#nameDropped(agent, nowMs)
    return outcome
  }

  /** What finds no place is named, once a minute however much it is. */
  #nameDropped(agent: AgentRow, nowMs: number): void {
    const { count, toldAt } = this.#dropped.get(agent.pubkey) ?? { count: 0, toldAt: 0 }
    const isDue = nowMs - toldAt >= MINUTE_MS
    this.#dropped.set(agent.pubkey, { count: isDue ? 0 : count + 1, toldAt: isDue ? nowMs : toldAt })
    if (isDue) this.#deps.logger.warn({ agent: agent.name, count: count + 1 }, 'too much waits for an agent: what came is left unanswered')
  }

  async #read(agent: AgentRow, event: NostrEvent): Promise<Heard | undefined> {
    switch (event.kind) {
      case 1:
      case COMMENT_KIND:
        return { ...base(event), type: 'mention', sender: event.pubkey, content: event.content, event: envelopeOf(event) }
      case 4:
        return this.#readKind4(agent, event)
      case WRAP_KIND:
        return this.#readWrap(agent, event)
      case 9735:
        return this.#readReceipt(agent, event)
      default:
        return undefined
    }
  }

  async #readKind4(agent: AgentRow, event: NostrEvent): Promise<Heard | undefined> {
    if (event.pubkey === agent.pubkey) return undefined
    const opened = await this.#tryOpen(agent, () => openDm04(this.#deps.keyring.signer(agent.pubkey), event))
    return opened === undefined ? undefined : { ...base(event), type: 'dm', sender: opened.from, content: opened.text, scheme: 'nip04' }
  }

  async #readWrap(agent: AgentRow, wrap: NostrEvent): Promise<Heard | undefined> {
    const { store, keyring, clock } = this.#deps
    if (wasWrapOpened(store, agent.pubkey, wrap.id)) return undefined
    const rumor = await this.#tryOpen(agent, () => unwrap(keyring.signer(agent.pubkey), wrap, this.#verifier))
    const isMessage = rumor?.kind === CHAT_KIND && rumor.pubkey !== agent.pubkey && !isExpired(rumor, unixSeconds(clock))
    if (!isMessage || (await this.#isTaken(agent, rumor))) {
      await store.write(markWrapOpened({ agentPubkey: agent.pubkey, id: wrap.id, at: clock.now() }))
      return undefined
    }
    return { ...base(rumor), type: 'dm', sender: rumor.pubkey, content: rumor.content, scheme: 'nip17' }
  }

  async #isTaken(
    { pubkey: to }: AgentRow,
    { id: rumorId, pubkey: from, kind, content, tags, created_at }: IdentifiedEvent,
  ): Promise<boolean> {
    return (await this.#deps.takeLetter?.({ to, rumorId, from, kind, content, tags, createdAtMs: created_at * 1000 })) === true
  }

  /** A receipt counts only when signed by the agent's own LNURL server; one invoice is one zap, however many receipts it has. */
  async #readReceipt(agent: AgentRow, receipt: NostrEvent): Promise<Heard | undefined> {
    const providerPubkey = await this.#deps.zapAddresses?.receiptKeyOf(agent.pubkey)
    const bolt11 = tagValue(receipt, 'bolt11')
    if (providerPubkey === undefined || bolt11 === undefined) return undefined
    const result = validateReceipt(receipt, { recipient: agent.pubkey, providerPubkey }, this.#verifier, readInvoice)
    if (!result.ok) {
      this.#deps.logger.info({ agent: agent.name, event: receipt.id, reason: result.reason }, 'a zap receipt was ignored')
      return undefined
    }
    const id = hash('sha256', bolt11.toLowerCase())
    const event = { zapped: result.eventId ?? null, receipt: receipt.id }
    const { sender, comment: content, amountMsats } = result
    return { id, type: 'zap', sender, content, scheme: null, amountMsats, event, createdAt: receipt.created_at }
  }

  /** What a stranger sent wrongly is dropped; what we cannot do now (locked) comes again. */
  async #tryOpen<T>(agent: AgentRow, open: () => Promise<T>): Promise<T | undefined> {
    try {
      return await open()
    } catch (error) {
      if (isKeyAway(error)) throw error
      const code = error instanceof PylonError ? error.code : undefined
      this.#deps.logger.debug({ agent: agent.name, code, error: messageOf(error) }, 'a message could not be opened')
      return undefined
    }
  }
}

function unlessEnded(work: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => reject(new PylonError('shutting_down', 'Nobody listens for the agent any more.'))
    signal.addEventListener('abort', end, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', end))
  })
}

const base = (event: { id: string; created_at: number }) => ({
  id: event.id,
  scheme: null,
  amountMsats: null,
  event: null,
  createdAt: event.created_at,
})

/** What a reply to it needs, however much it came with: whom and which thread, not what it says. */
function envelopeOf(event: NostrEvent): IdentifiedEvent {
  const { id, pubkey, created_at, kind } = event
  const tags = event.tags
    .filter(([name = '', value]) => (/^([epEP]|zap)$/.test(name) ? isHex64(value) : event.kind === COMMENT_KIND && /^[AIKaik]$/.test(name)))
    .slice(0, MAX_KEPT_TAGS)
    .map((tag) => tag.slice(0, MAX_KEPT_VALUES).map((value) => (value.length > MAX_KEPT_CHARS ? '' : value)))
  return { id, pubkey, created_at, kind, tags, content: '' }
}
