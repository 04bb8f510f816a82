/** The nouns of the Nostr wire, and what the rest of Pylon asks of the Nostr layer. */
import type { Random } from '../base/random.ts'

export interface EventTemplate {
  readonly kind: number
  /** Unix seconds. */
  readonly created_at: number
  readonly tags: readonly (readonly string[])[]
  readonly content: string
}

export interface UnsignedEvent extends EventTemplate {
  readonly pubkey: string
}

/** An event whose id is fixed and whose signature may still be to come. */
export interface IdentifiedEvent extends UnsignedEvent {
  readonly id: string
}

export interface NostrEvent extends IdentifiedEvent {
  readonly sig: string
}

export interface Filter {
  readonly ids?: readonly string[]
  readonly authors?: readonly string[]
  readonly kinds?: readonly number[]
  readonly since?: number
  readonly until?: number
  readonly limit?: number
  readonly [tag: `#${string}`]: readonly string[] | undefined
}

/** What relays have of one key now. */
export interface Newest {
  readonly events: ReadonlyMap<number, NostrEvent>
  /** Relays that told all they have. */
  readonly answered: readonly string[]
  /** Those that the key writes to, as far as we go there. */
  readonly write: readonly string[]
  /** Whether what was not found is not there: somebody answered who should know. */
  readonly isSure: boolean
}

/**
 * One identity. Its key may be held elsewhere (NIP-46), so whatever it does may take time, and may fail: sign and encrypt before the
 * commit that depends on it, and leave what cannot be done now to be tried again.
 */
export interface Signer {
  /** 64 hex digits. */
  readonly pubkey: string
  /** For what its events leave to chance: nonces, salts, dates of wraps. */
  readonly random: Random
  sign(event: EventTemplate): Awaitable<NostrEvent>
  nip44Encrypt(peer: string, plaintext: string): Awaitable<string>
  /** @throws decrypt_failed */
  nip44Decrypt(peer: string, payload: string): Awaitable<string>
  nip04Encrypt(peer: string, plaintext: string): Awaitable<string>
  /** @throws decrypt_failed */
  nip04Decrypt(peer: string, payload: string): Awaitable<string>
}

/** What is there at once, or comes. */
export type Awaitable<T> = T | Promise<T>

/** A key that is held here, and answers at once. The secret never leaves it. */
export interface LocalSigner extends Signer {
  sign(event: EventTemplate): NostrEvent
  /** BIP-340 over a 32-byte digest, 128 hex digits: NUT-11 witnesses, NUT-20 quotes. */
  signDigest(digest: Uint8Array): string
  nip44Encrypt(peer: string, plaintext: string): string
  nip44Decrypt(peer: string, payload: string): string
  nip04Encrypt(peer: string, plaintext: string): string
  nip04Decrypt(peer: string, payload: string): string
}

/** Whether it is held here, and not at a bunker. */
export const isLocal = (signer: Signer): signer is LocalSigner => 'signDigest' in signer

/** All keys of a home: NIP-06 account 0 the node, 1 the customer, 10 and up the agents; imported ones wrapped in the database. */
export interface Keyring {
  readonly locked: boolean
  /** @throws locked */
  node(): Signer
  /** @throws locked */
  customer(): LocalSigner
  /** @throws locked, not_found */
  signer(pubkey: string): Signer
  /** The same for one that must be held here: digests of ecash, connections to wallets. @throws locked, not_found, bunker_unable */
  localSigner(pubkey: string): LocalSigner
  /** The key of a NIP-06 account, remembered from then on. @throws locked */
  account(index: number): LocalSigner
  /** Whether the key belongs to this home. */
  owns(pubkey: string): boolean
  /** The seed of the key's Cashu wallet (NUT-13), 64 bytes, derived apart from the Nostr key. @throws locked, not_found */
  walletSeed(pubkey: string): Uint8Array
  /** A signer for the wallet's own P2PK and NUT-20 key (not the Nostr key). @throws locked, not_found */
  walletSigner(pubkey: string): LocalSigner
}

export interface Subscription {
  /** Ends it on every relay. */
  close(): void
}

export interface SubscriptionSpec {
  /** Stable name; with the relay it names the cursor on disk. At most 40 of a-z 0-9 - : . */
  readonly name: string
  /** Without since, until and limit: the supervisor sets them. Matched again by us. */
  readonly filters: readonly Filter[]
  /** Relays to ask; the node's own when absent. */
  readonly relays?: readonly string[]
  /** How far before the cursor to read again to the end: as late as such events may come (default 3600; gift wraps 259200). */
  readonly overlapS?: number
  /** How old an event may be that is still to be heard when it comes, though not read again for (default: the overlap). */
  readonly latenessS?: number
  /** How often what may have come lately is read again although the connection stands, as relays lose live events: for what nobody sends twice. */
  readonly rereadMs?: number
  /** Its filters change often: asked apart from the others, which would be asked again each time. */
  readonly alone?: boolean
  /** How far back to ask when there is no cursor yet. */
  readonly backfillS: number
  /** An event that was handled is handed over again each time that it comes: its sender may want the answer once more. */
  readonly repeats?: boolean
  /** Asked before a signature is computed: false passes the event over, unseen. */
  isWorthIt?(event: NostrEvent, relay: string): boolean
  /**
   * Each verified, matching event; may come again (from another relay, after a restart): claim it durably first.
   * The cursor passes only what has resolved. A rejection is logged and the event comes again after reconnect.
   */
  onEvent(event: NostrEvent, relay: string): Promise<void>
}

/** A private message (NIP-17) to a key of ours: opened, and written by whom it says. */
export interface Letter {
  /** The key of ours that it is to. */
  readonly to: string
  /** Its id, whatever wraps it comes in. */
  readonly rumorId: string
  readonly from: string
  readonly kind: number
  readonly content: string
  readonly tags: readonly (readonly string[])[]
  /** As the sender says. */
  readonly createdAtMs: number
}

/**
 * Takes a letter that is for it: false leaves it to others. Called again with the same letter until it has resolved, also after a
 * restart: what it does it does once for each `rumorId`. A rejection is tried again later.
 */
export type LetterHandler = (letter: Letter) => Promise<boolean>

export interface RelayHealth {
  readonly url: string
  readonly state: 'connected' | 'connecting' | 'down'
  readonly reason: string | undefined
  /** Milliseconds since the epoch, of the last event received. */
  readonly lastEventAt: number | undefined
  readonly cursorLagS: number | undefined
  readonly outboxDepth: number
  /** Milliseconds since the epoch: when it last delivered what was asked of it (canary). */
  readonly provenAt?: number | undefined
}

/** Something to publish: composed into a write by `enqueueEvent` of store/nostr/outbox.ts, sent after the commit. */
export interface OutboxEntry {
  /** The logical message, unique: `job:<id>:result`, `action:<id>`, `profile:<pubkey>`. A second enqueue of the same key and event id does nothing. */
  readonly key: string
  /** Signed by the keyring when it is sent, unless it carries `sig` (gift wraps). */
  readonly event: IdentifiedEvent | NostrEvent
  readonly relays: readonly string[]
  /** Milliseconds since the epoch after which nobody wants it. */
  readonly notAfter: number
  /** Of a gift wrap: what it holds, so that it can be made again for a relay that refuses its date. */
  readonly seal?: NostrEvent
}

export interface Nostr {
  readonly keyring: Keyring
  /** Relays of this node, from flags or config. */
  readonly relays: readonly string[]
  /** Connects; resolves at once, relays come up on their own. */
  start(): void
  health(): RelayHealth[]
  /** Which signature verifier is loaded. */
  readonly verifier: string
  subscribe(spec: SubscriptionSpec): Subscription
  /** What the relays have now, verified and deduplicated. `complete` only when every asked relay sent a real EOSE. */
  query(
    filters: readonly Filter[],
    options?: { relays?: readonly string[]; timeoutMs?: number },
  ): Promise<{ events: NostrEvent[]; complete: boolean }>
  /** Opens a live query and resolves once every reachable relay sent EOSE, so that an answer to what is published next cannot be missed. */
  listen(spec: {
    filters: readonly Filter[]
    relays?: readonly string[]
    timeoutMs?: number
    onEvent(event: NostrEvent, relay: string): void
  }): Promise<Subscription>
  /** Call after a commit that enqueued: sends what is due now. */
  nudgeOutbox(): void
  /** Called (at least once, also after a restart for what was accepted meanwhile) when the first relay accepted an entry whose key begins so. */
  onPublished(keyPrefix: string, handler: (key: string, eventId: string) => Promise<void>): void
  /**
   * Called (at least once, as above) when an entry whose key begins so will be taken by no relay: each refused it for good, or its
   * time was over, or there was none. `why` has the words of the relays.
   */
  onGivenUp(keyPrefix: string, handler: (key: string, why: string) => Promise<void>): void
  /** Where to send what concerns this key: own write relays, its read relays (10002) and the hints; capped and guarded. */
  relaysToReach(pubkey: string, hints?: readonly string[]): Promise<string[]>
  /**
   * Its DM relays (10050), or undefined when it publishes none: asked of our own relays, the hints, the index relays and those
   * that it writes to. @throws relay_unreachable when none answered that could know
   */
  dmRelaysOf(pubkey: string, hints?: readonly string[]): Promise<string[] | undefined>
  /** What relays have of these replaceable kinds now, uncached: our own, those given, index relays, and those that the key writes to. */
  newestOf(pubkey: string, kinds: readonly number[], relays?: readonly string[]): Promise<Newest>
  /** Its newest kind 0, parsed, or undefined. */
  profileOf(pubkey: string): Promise<{ name?: string; lud06?: string; lud16?: string } | undefined>
}
