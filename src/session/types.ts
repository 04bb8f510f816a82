/** The nouns of sessions: encrypted conversations, each an MLS group over Nostr (Marmot). */
import type { Config } from '../base/config.ts'
import type { Logger } from '../base/logger.ts'
import type { Scope } from '../base/scope.ts'
import type { IdentifiedEvent, Nostr, Signer } from '../nostr/types.ts'
import type { GroupRow } from '../store/sessions/groups.ts'
import type { KeyPackageRow } from '../store/sessions/key-packages.ts'
import type { MessageRow } from '../store/sessions/messages.ts'
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
  /** How long messages are kept; absent in a guest, which goes by the defaults. */
  config?(): Pick<Config, 'retention'>
  /** Who may bring this key into a group. */
  mayInvite(pubkey: string): boolean
  /** Rumors in gift wraps to this key that are no welcome; may come again: claim before acting. */
  onRumor?(rumor: IdentifiedEvent, wrapId: string): Promise<void>
}

/** A group as others see it. */
export type Group = Pick<GroupRow, 'id' | 'mlsId' | 'name' | 'members' | 'admins' | 'relays' | 'epoch' | 'state' | 'createdAt'>

/** A message as others see it. */
export type SessionMessage = Omit<MessageRow, 'owner' | 'key' | 'epoch' | 'at'>

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
export type PublishedKeyPackage = Pick<KeyPackageRow, 'eventId' | 'ref' | 'notAfter' | 'createdAt' | 'uses'>
