/** The sessions of hosted agents: their owner, and whom they allow, talk to them end to end encrypted; what is said there is heard as a DM is. */
import type { Scope } from '../base/scope.ts'
import { decodeEnvelope, readsEnvelopes } from '../session/envelope.ts'
import type { Sessions } from '../session/sessions.ts'
import type { SessionMessage } from '../session/types.ts'
import { type AgentRow, getAgent } from '../store/agents/agents.ts'
import { type HostDeps, relaysOf } from './parts.ts'
import type { SaidIn } from './session-turns.ts'

const CHAT_KIND = 9

/** @param text undefined: the turn shall end */
type Hear = (pubkey: string, message: SessionMessage, text: string | undefined, where: SaidIn) => Promise<void>

export class AgentSessions {
  readonly #deps: HostDeps
  readonly #hear: Hear
  readonly #open = new Map<string, { readonly scope: Scope; readonly sessions: Sessions }>()

  /** @param hear keeps what was said for a tick; the same again does nothing */
  constructor(deps: HostDeps, hear: Hear) {
    this.#deps = deps
    this.#hear = hear
  }

  /** Publishes a key package of the agent and listens; anew when it listens already. */
  async watch(agent: AgentRow): Promise<void> {
    const { scope: owner, keyring, openSessions } = this.#deps
    await this.unwatch(agent.pubkey)
    if (openSessions === undefined || owner.isClosing) return
    const scope = owner.child(`sessions of ${agent.pubkey.slice(0, 16)}`)
    const sessions = openSessions({
      scope,
      signer: keyring.signer(agent.pubkey),
      relays: relaysOf(this.#deps, agent),
      mayInvite: (pubkey) => this.#mayTalk(agent.pubkey, pubkey),
    })
    this.#open.set(agent.pubkey, { scope, sessions })
    sessions.onMessage((message) => this.#onMessage(agent.pubkey, message))
    sessions.start()
  }

  async unwatch(pubkey: string): Promise<void> {
    const open = this.#open.get(pubkey)
    this.#open.delete(pubkey)
    await open?.scope.close()
  }

  of(pubkey: string): Sessions | undefined {
    return this.#open.get(pubkey)?.sessions
  }

  /** The keys of its home, its owner's among them, and those that its owner named. */
  #mayTalk(agentPubkey: string, pubkey: string): boolean {
    const { keyring, store } = this.#deps
    return keyring.owns(pubkey) || getAgent(store, agentPubkey)?.allow.includes(pubkey) === true
  }

  async #onMessage(pubkey: string, message: SessionMessage): Promise<void> {
    if (message.kind !== CHAT_KIND) return
    const envelope = decodeEnvelope(message.content)
    const text = envelope === undefined ? message.content : 'message' in envelope.body ? envelope.body.message : ''
    const isAbort = envelope?.body.type === 'abort'
    if (text.trim() === '' && !isAbort) return
    await this.#hear(pubkey, message, isAbort ? undefined : text, { group: message.groupId, reads_envelopes: readsEnvelopes(message) })
  }
}
