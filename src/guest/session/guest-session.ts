/** The session of an agent with its owner: key, store, relays and conversations of one guest, put together. */
import { dirname, join } from 'node:path'
import { DEFAULT_CONFIG } from '../../base/config.ts'
import { createDialer, type Dialer } from '../../base/dialer.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { createSocketDialer } from '../../base/socket-dialer.ts'
import { KEY_PACKAGE_KINDS } from '../../nostr/nips/marmot-kinds.ts'
import { createNostr } from '../../nostr/nostr.ts'
import type { LocalSigner, Nostr } from '../../nostr/types.ts'
import type { GuestLaunch } from '../../runtime/contract/launch.ts'
import { WELCOMES_DIR } from '../../runtime/contract/paths.ts'
import type { Protocol } from '../../runtime/contract/prompt.ts'
import { encodeEnvelope } from '../../session/envelope.ts'
import { Sessions } from '../../session/sessions.ts'
import type { Group } from '../../session/types.ts'
import { Store } from '../../store/store.ts'
import type { AgentSeat } from '../agents/seat.ts'
import { BotKeyring } from './bot-key.ts'
import { Conversations } from './conversations.ts'
import { Greeting } from './greeting.ts'
import { TurnLog } from './turn-log.ts'
import { WelcomeFolder } from './welcome-folder.ts'

/** Behind a door all relays are one: it has this name and no address. */
const DOOR_URL = 'ws://relay.door'
const LOOK_FOR_GROUPS_MS = 1000
const ASK_FOR_KEY_PACKAGE = { minMs: 200, maxMs: 5000 }
const QUERY_MS = 5000
const CAPABILITIES = ['prompt', 'steer', 'follow_up', 'abort', 'text_delta', 'tool_call']

export interface GuestSessionDeps {
  readonly scope: Scope
  readonly logger: Logger
  readonly launch: GuestLaunch & { readonly session: NonNullable<GuestLaunch['session']>; readonly protocol: Protocol }
  readonly signer: LocalSigner
  /** Private; on the volume. */
  readonly dir: string
  readonly seat: AgentSeat
}

export class GuestSession {
  readonly #deps: GuestSessionDeps
  readonly #store: Store
  readonly #dialer: Dialer
  readonly #nostr: Nostr
  readonly #sessions: Sessions
  readonly #greeting: Greeting
  readonly #conversations: Conversations
  /** Groups that were told what the agent can do. */
  readonly #told = new Set<string>()

  /** @throws database_*, identity_invalid */
  constructor(deps: GuestSessionDeps) {
    const { scope, logger, launch, signer, dir } = deps
    const { session, protocol, spec } = launch
    this.#deps = deps
    this.#store = Store.open(join(dir, 'session.db'), { clock: scope.clock })
    scope.atEnd('store', () => this.#store.close())
    this.#dialer = session.door === undefined ? createDialer() : createSocketDialer(session.door.unix)
    scope.atEnd('dialer', () => this.#dialer.close())
    const via = session.door === undefined ? undefined : [DOOR_URL]
    this.#nostr = createNostr({
      scope: scope.child('nostr'),
      store: this.#store,
      logger,
      dialer: this.#dialer,
      keyring: new BotKeyring(signer),
      relays: via ?? session.relays,
      config: () => DEFAULT_CONFIG,
    })
    this.#sessions = new Sessions({
      scope: scope.child('sessions'),
      store: this.#store,
      nostr: this.#nostr,
      signer,
      logger,
      relays: session.relays,
      ...(via === undefined ? {} : { via }),
      mayInvite: (pubkey) => pubkey === session.owner_pubkey,
    })
    this.#greeting = new Greeting({
      scope: scope.child('greeting'),
      store: this.#store,
      nostr: this.#nostr,
      signer,
      relays: via ?? session.relays,
      runtimeId: spec.identity.runtime_id,
      token: session.token,
      owner: session.owner_pubkey,
      groups: () => this.#groups(),
    })
    this.#conversations = new Conversations({
      scope: scope.child('conversations'),
      sessions: this.#sessions,
      seat: deps.seat,
      log: new TurnLog(this.#store, scope.clock),
      protocol,
      owner: session.owner_pubkey,
      onOwner: async (groupId) => {
        this.#greeting.answered()
        await this.#tellCapabilities(groupId)
      },
    })
  }

  get pubkey(): string {
    return this.#deps.signer.pubkey
  }

  start(): void {
    const { scope, logger, launch } = this.#deps
    this.#nostr.start()
    this.#sessions.start()
    const { state_dir: stateDir } = launch.spec.paths
    const { door } = launch.session
    const folders = [...(door === undefined ? [] : [dirname(door.unix)]), stateDir].map((dir) => join(dir, WELCOMES_DIR))
    new WelcomeFolder({ scope: scope.child('welcomes'), sessions: this.#sessions, logger, folders, stateDir }).start()
    this.#conversations.start()
    this.#greeting.start()
    scope.every('groups', LOOK_FOR_GROUPS_MS, () => this.#lookForGroups())
  }

  /** Resolves once others find the key package of this agent. @throws shutting_down */
  async published(): Promise<void> {
    const { scope } = this.#deps
    const backoff = scope.backoff(ASK_FOR_KEY_PACKAGE)
    const filter = { kinds: [...KEY_PACKAGE_KINDS], authors: [this.pubkey], limit: 1 }
    for (;;) {
      const { events } = await this.#nostr.query([filter], { timeoutMs: QUERY_MS })
      if (events.length > 0) return
      await backoff.wait()
    }
  }

  #groups(): readonly Group[] {
    const owner = this.#deps.launch.session.owner_pubkey
    return this.#sessions.groups().filter(({ state, members }) => state === 'active' && members.includes(owner))
  }

  async #lookForGroups(): Promise<void> {
    for (const { id } of this.#groups()) await this.#tellCapabilities(id)
  }

  /** Once in each group, before anything else. */
  async #tellCapabilities(groupId: string): Promise<void> {
    if (this.#told.has(groupId)) return
    this.#told.add(groupId)
    const { launch, logger } = this.#deps
    const { protocol } = launch
    const body = { type: 'capability', capabilities: CAPABILITIES } as const
    const content = encodeEnvelope({ protocol, session_id: `${protocol}-${groupId.slice(0, 16)}`, body })
    await this.#sessions.send(groupId, { content }, `capability:${groupId}`).catch((error: unknown) => {
      logger.warn({ error: messageOf(error) }, 'what the agent can do could not be told')
    })
  }
}
