/** Kinds of Marmot (MLS over Nostr), for those who carry such events and do not read them. */

/** Key packages: the older form, and the addressable one. */
export const KEY_PACKAGE_KINDS: readonly number[] = [443, 30_443]
/** Where the key packages of a key are. */
export const KEY_PACKAGE_RELAYS_KIND = 10_051
export const GROUP_EVENT_KIND = 445
