/** The nouns of sessions: encrypted conversations, each an MLS group over Nostr (Marmot). */
import type { Logger } from '../base/logger.ts'
import type { Scope } from '../base/scope.ts'
import type { IdentifiedEvent, Nostr, Signer } from '../nostr/types.ts'
import type { Store } from '../store/store.ts'

export interface SessionsDeps {
  /** Of this key's sessions alone. */
  readonly scope: Scope
  readonly store: Store
  readonly nostr: Nostr
  readonly signer: Signer
  readonly logger: Logger
  /** Where others reach this key: named in its list (10051) and in its key packages. */
  readonly relays: readonly string[]
  /** All that is read and sent goes through these and no others: for a guest behind a door. By default where the group, or the peer, is. */
  readonly via?: readonly string[]
  /** How long messages are kept (default: a year). */
  keepDays?(): number
  /** Who may bring this key into a group. */
  mayInvite(pubkey: string): boolean
  /** Rumors in gift wraps to this key that are no welcome; may come again: claim before acting. */
  onRumor?(rumor: IdentifiedEvent, wrapId: string): Promise<void>
}

/** `removed`: somebody took us out; `broken`: its state here cannot go on, and why was logged. */
export type GroupState = 'active' | 'left' | 'removed' | 'broken'

export interface Group {
  /** 64 hex digits, as in the `h` tag: the public name. */
  readonly id: string
  /** Of the MLS group, hex; never on the wire in the clear. */
  readonly mlsId: string
  readonly name: string
  readonly members: readonly string[]
  readonly admins: readonly string[]
  readonly relays: readonly string[]
  readonly epoch: number
  readonly state: GroupState
  /** Milliseconds since the epoch. */
  readonly createdAt: number
}

/**
 * What others said is `new` until a handler has dealt with it, then `handled`. What we say is `sending` until the first relay took
 * it, then `sent`; `refused` when none will, and `reason` has their words.
 */
export type MessageState = 'new' | 'handled' | 'sending' | 'sent' | 'refused'

export interface SessionMessage {
  /** Of the rumor. */
  readonly id: string
  /** Rises with each message of a store, over all groups: what `after` pages on. */
  readonly seq: number
  readonly groupId: string
  readonly sender: string
  readonly isOwn: boolean
  readonly kind: number
  readonly content: string
  readonly tags: readonly (readonly string[])[]
  /** Unix seconds, as the sender says. */
  readonly createdAt: number
  readonly state: MessageState
  readonly reason: string | null
}

/** What is said in a group; kind 9 (chat) unless another is given. */
export interface Said {
  readonly content: string
  readonly kind?: number
  readonly tags?: readonly (readonly string[])[]
}

export interface CreateOrder {
  /** Names the group for ever: asked again under it, the same group is given. */
  readonly key: string
  readonly peers: readonly string[]
  readonly name: string
  readonly relays: readonly string[]
  /** How long key packages of the peers are waited for. */
  readonly timeoutMs: number
  readonly signal?: AbortSignal
}

/** A welcome as it went out: what a provider hook may hand to the guest beside the relays. */
export interface SentWelcome {
  readonly peer: string
  /** Of the gift wrap. */
  readonly wrapperEventId: string
  /** Kind 444, unsigned. */
  readonly rumor: IdentifiedEvent
}

export interface Created {
  readonly group: Group
  readonly welcomes: readonly SentWelcome[]
}

/** A key package of this key that stands published. */
export interface PublishedKeyPackage {
  readonly eventId: string
  /** KeyPackageRef, hex. */
  readonly ref: string
  /** Unix seconds. */
  readonly notAfter: number
  readonly createdAt: number
  readonly uses: number
}
