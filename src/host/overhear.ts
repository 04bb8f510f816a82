/** Notes that name an agent without a tag: no subscription brings them, so what is new on the relays is looked through now and then. */
import { messageOf } from '../base/errors.ts'
import type { Scope } from '../base/scope.ts'
import { COMMENT_KIND } from '../nostr/nips/nip22.ts'
import { peopleNamed } from '../nostr/nips/nip27.ts'
import type { NostrEvent } from '../nostr/types.ts'
import { listAgents } from '../store/agents/agents.ts'
import type { HostDeps } from './parts.ts'
import { relaysOf } from './parts.ts'

const LOOK_MS = 30_000
const TIMEOUT_MS = 5000
/** Events are dated by their authors, and relays get them late. */
const OVERLAP_S = 120
/** What is read at one look: on busy relays only the newest. */
const MAX_EVENTS = 200
const MAX_PEOPLE = 10

export class Overhearing {
  readonly #deps: HostDeps
  readonly #receive: (pubkey: string, event: NostrEvent) => Promise<void>
  readonly #scope: Scope
  #since: number

  /** @param receive takes an event for an agent, once however often it is told. */
  constructor(deps: HostDeps, receive: (pubkey: string, event: NostrEvent) => Promise<void>) {
    this.#deps = deps
    this.#receive = receive
    this.#since = Math.floor(deps.clock.now() / 1000) - OVERLAP_S
    this.#scope = deps.scope.child('overhearing', {
      onFailure: ({ error }) => deps.logger.info({ error: messageOf(error) }, 'the relays could not be looked through; it is tried again'),
    })
  }

  start(): void {
    this.#scope.every('look', LOOK_MS, () => this.#look())
  }

  async #look(): Promise<void> {
    const { store, nostr, config, clock } = this.#deps
    const agents = listAgents(store)
    // An owner who wants no notes read pays for none.
    if (agents.length === 0 || config().host.read_notes === 0) return
    const relays = [...new Set(agents.flatMap((agent) => relaysOf(this.#deps, agent)))]
    const from = Math.floor(clock.now() / 1000) - OVERLAP_S
    const filter = { kinds: [1, COMMENT_KIND], since: this.#since, limit: MAX_EVENTS }
    const { events } = await nostr.query([filter], { relays, timeoutMs: TIMEOUT_MS })
    for (const event of events) {
      const named = peopleNamed(event.content, MAX_PEOPLE)
      for (const agent of agents) if (named.includes(agent.pubkey) && !this.#scope.isClosing) await this.#receive(agent.pubkey, event)
    }
    this.#since = from
  }
}
