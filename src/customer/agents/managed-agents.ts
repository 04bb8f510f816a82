/** The agents that one talks to: made, found, ended; each goes on by itself from where a restart found it. */
import { createHash } from 'node:crypto'
import { ERRORS, type ErrorCode, PylonError } from '../../base/errors.ts'
import { asJson, stringify } from '../../base/json.ts'
import { News } from '../../base/news.ts'
import { randomHex } from '../../base/random.ts'
import type { ControlCommandInput } from '../../nostr/control/commands.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import type { IdentifiedEvent } from '../../nostr/types.ts'
import { decodeHello, isProven } from '../../session/hello.ts'
import {
  claimManagedAgent,
  findManagedAgent,
  getManagedAgent,
  listManagedAgents,
  type ManagedAgentRow,
  type ManagedStep,
  patchManagedAgent,
  stepsOfManagedAgent,
  sweepManagedAgents,
} from '../../store/buying/managed-agents.ts'
import { persist } from '../../store/persist.ts'
import { decodeOrder } from '../machines/command-facts.ts'
import type { AgentsDeps } from './deps.ts'
import { isComing } from './life.ts'
import { commandOf, ManagedAgent } from './managed-agent.ts'

type Provision = Extract<ControlCommandInput, { command: 'provision' }>

export interface ManagedOrder {
  readonly name: string
  /** 64 hex digits; the node itself where it is ours. */
  readonly server: string
  /** Without the token, which is made here. */
  readonly command: Omit<Provision, 'command' | 'session_token'> & { readonly relay_urls: string[] }
  readonly maxSats?: number
  readonly payWith?: 'invoice' | 'token'
  /** Leave the runtime for a look where it does not become ready. */
  readonly keep: boolean
}

const NAME = /^[a-z0-9][a-z0-9_-]{0,31}$/
/** Ended ones are told of so long. */
const KEEP_ENDED_MS = 7 * 24 * 3600_000
const TEARDOWN_WAIT_MS = 200_000

export class ManagedAgents {
  readonly #deps: AgentsDeps
  readonly #actors = new Map<string, ManagedAgent>()
  /** Woken by the id of an agent whenever something of it has changed. */
  readonly news: News

  constructor(deps: AgentsDeps) {
    this.#deps = deps
    this.news = new News(deps.scope)
  }

  start(): void {
    const { scope, store, clock } = this.#deps
    for (const { id } of listManagedAgents(store)) this.#actor(id).bring()
    scope.spawn('forgetting ended agents', () => store.write(sweepManagedAgents({ before: clock.now() - KEEP_ENDED_MS })))
  }

  /** Records it; it goes on by itself from there. Once for each key. @throws agent_name_invalid, agent_exists, idempotency_conflict, invalid_request */
  async order(order: ManagedOrder, key: string): Promise<ManagedAgentRow> {
    const { store, clock, scope } = this.#deps
    if (!NAME.test(order.name)) {
      throw new PylonError('agent_name_invalid', `The name ${JSON.stringify(order.name)} is not 1 to 32 of a-z, 0-9, - and _.`)
    }
    const { server, name, command, keep, maxSats = null, payWith = null } = order
    const digest = createHash('sha256').update(stringify({ server, name, command, keep, maxSats, payWith })).digest('hex')
    const full = decodeOrder({ ...command, command: 'provision', session_token: randomHex(scope.random, 32) })
    const asked = { id: key, name, digest, server, command: asJson(full), maxSats, payWith, keep, at: clock.now() }
    const row = await store.write(claimManagedAgent(asked))
    // It will say hello.
    this.#deps.owner.listen()
    this.#actor(row.id).bring()
    return row
  }

  /** Resolves once it is ready. @throws why it will not be, and what became of its runtime; the signal's reason: it goes on then */
  async ready(id: string, signal: AbortSignal): Promise<ManagedAgentRow> {
    const isOpen = ({ phase, cleanup, cleanupReason }: ManagedAgentRow) =>
      isComing(phase) || (phase === 'failed' && cleanup === 'due' && cleanupReason === null)
    const row = await this.#until(id, isOpen, signal)
    if (row.phase === 'ready') return row
    if (row.phase === 'failed') throw this.#whyFailed(row)
    throw new PylonError('conflict', `The agent ${row.name} was ended before it was ready.`)
  }

  /** @throws agent_not_found */
  get(ref: string): ManagedAgentRow {
    const row = this.find(ref)
    if (row === undefined) throw new PylonError('agent_not_found', `There is no agent ${ref}; pylon agent list shows them.`)
    return row
  }

  find(ref: string): ManagedAgentRow | undefined {
    return findManagedAgent(this.#deps.store, ref)
  }

  list(): ManagedAgentRow[] {
    return listManagedAgents(this.#deps.store)
  }

  /** What happened to it after a step; waits for more, or for its end, at most `waitMs`. */
  async steps(id: string, after: number, waitMs: number, signal: AbortSignal): Promise<ManagedStep[]> {
    const { store } = this.#deps
    const found = stepsOfManagedAgent(store, id, after)
    const phase = getManagedAgent(store, id)?.phase
    if (found.length > 0 || waitMs <= 0 || phase === undefined || !isComing(phase)) return found
    await this.news.next(id, waitMs, signal)
    return stepsOfManagedAgent(store, id, after)
  }

  /** Tears its runtime down and forgets it. @throws agent_not_found; conflict when the runtime could not be torn down: it is tried again */
  async end(ref: string, signal: AbortSignal): Promise<ManagedAgentRow> {
    const { id } = this.get(ref)
    const actor = this.#actor(id)
    await actor.end()
    actor.bring()
    const until = this.#deps.clock.now() + TEARDOWN_WAIT_MS
    const isOpen = ({ phase, cleanup, cleanupReason }: ManagedAgentRow) =>
      phase === 'ending' && (cleanup !== 'due' || cleanupReason === null) && this.#deps.clock.now() < until
    const row = await this.#until(id, isOpen, signal)
    if (row.phase !== 'ended') throw new PylonError('conflict', this.#leftOver(row))
    return row
  }

  /** What a guest says of itself, from a gift wrap. */
  async onRumor(rumor: IdentifiedEvent): Promise<void> {
    const hello = decodeHello(rumor)
    if (hello === undefined) return
    const { clock, logger } = this.#deps
    const row = this.list().find(
      (one) =>
        (one.runtimeId === null ? isComing(one.phase) : one.runtimeId === hello.runtimeId) &&
        isProven(hello, commandOf(one).session_token ?? '', rumor.pubkey),
    )
    if (row === undefined) return logger.debug({ runtime_id: hello.runtimeId }, 'a hello that proves nothing was passed over')
    if (row.botPubkey === rumor.pubkey) return
    if (row.botPubkey !== null) {
      return logger.warn(
        { agent: row.name, runtime_id: hello.runtimeId, pubkey: rumor.pubkey },
        'a second key says that it is this agent: it is refused',
      )
    }
    await persist(
      this.#deps,
      patchManagedAgent({ id: row.id, patch: { botPubkey: rumor.pubkey, runtimeId: hello.runtimeId }, at: clock.now() }),
    )
    this.news.tell(row.id)
  }

  async #until(id: string, isOpen: (row: ManagedAgentRow) => boolean, signal: AbortSignal): Promise<ManagedAgentRow> {
    const { scope, store } = this.#deps
    for (;;) {
      const row = getManagedAgent(store, id)
      if (row === undefined) throw new PylonError('agent_not_found', 'The agent is gone.')
      if (!isOpen(row)) return row
      if (scope.isClosing) throw new PylonError('shutting_down', 'The node ends; it goes on with the agent after the next start.')
      signal.throwIfAborted()
      await this.news.next(id, 10_000, signal)
    }
  }

  #whyFailed(row: ManagedAgentRow): PylonError {
    const code = row.errorCode !== null && row.errorCode in ERRORS ? (row.errorCode as ErrorCode) : 'runtime_failed'
    const words = [row.reason ?? 'The agent did not become ready.', this.#leftOver(row)].filter((part) => part !== '').join(' ')
    return new PylonError(code, words, { details: { agent: row.name, runtime_id: row.runtimeId, cleanup: row.cleanup } })
  }

  /** What of it is still there, and the way to end that; empty where nothing is. */
  #leftOver({ cleanup, cleanupReason, runtimeId, server, name }: ManagedAgentRow): string {
    const runtime = runtimeId === null ? 'What was asked for' : `Its runtime ${runtimeId}`
    const option = server === this.#deps.ownPubkey() ? '' : ` --server ${npubOf(server)}`
    const byHand = runtimeId === null ? `pylon agent delete ${name}` : `pylon runtime teardown ${runtimeId}${option}`
    if (cleanup === 'kept') return `${runtime} was kept: pylon runtime get ${runtimeId}${option}; to end it: pylon agent delete ${name}`
    if (cleanup === 'due')
      return `${runtime} could not be torn down yet (${cleanupReason ?? 'no answer'}); it is tried again. By hand: ${byHand}`
    return cleanup === 'manual' ? `${runtime} is left for you to remove (${cleanupReason ?? 'the node does not'}): ${byHand}` : ''
  }

  #actor(id: string): ManagedAgent {
    const known = this.#actors.get(id)
    if (known !== undefined) return known
    const actor = new ManagedAgent(id, this.#deps, this.news)
    this.#actors.set(id, actor)
    return actor
  }
}
